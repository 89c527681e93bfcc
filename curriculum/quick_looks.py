"""Which rows can break a rule at all: many texts at once, so that few are looked at one by one.

What is told here may only err to one side: a row that is cleared never breaks the rule of
:mod:`curriculum.validate` and :mod:`curriculum.languages`, which tests hold against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from curriculum.candidates import PreparedRow
from curriculum.languages import ENGLISH, ENOUGH_ENGLISH, WORD_CHARS, sample_of
from pipeline.settings.validation import ValidationSettings

UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TAIL_WORDS, TAIL_CHARS = 400, 2800
NGRAM, LEAST_WORDS = 4, 60
"""A text of so many words ends in a loop when few of its last words' n-grams differ."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one row may be refused for."""

    may_be_foreign: bool = True
    may_repeat: bool = True


SUSPECT = Look()
"""A row that nobody looked at yet."""


def look_at(rows: Sequence[PreparedRow], settings: ValidationSettings) -> list[Look]:
    """What each row may be refused for; nothing by a rule that is switched off.

    Args:
        rows: Well-formed rows.
        settings: Limits.
    """
    foreign = repeats = np.zeros(len(rows), bool)
    if settings.looks_for_languages:
        questions = [row.question for row in rows]
        foreign = _may_be_foreign([q[:WORD_CHARS] for q in questions], questions)
        thinkings = [row.thinking if row.may_hold_scripts else "" for row in rows]
        foreign |= _may_be_foreign([row.trace.head(WORD_CHARS) for row in rows], thinkings)
    if settings.looks_for_loops:
        enough = settings.min_distinct_ngrams
        repeats = _may_repeat([row.trace.tail(TAIL_CHARS) for row in rows], enough)
        repeats |= _may_repeat([row.answer[-TAIL_CHARS:] for row in rows], enough)
    return [Look(*pair) for pair in zip(foreign.tolist(), repeats.tolist(), strict=True)]


def _may_be_foreign(heads: Sequence[str], texts: Sequence[str]) -> Bools:
    """By the words of the beginnings, and by the letters of the texts."""
    from curriculum.text_kernels import count_known_words, find_foreign

    counts = np.zeros(len(heads), np.int64)
    # Blanks outside ASCII join words, so that fewer are known; no word is known that is none.
    count_known_words(*_join(heads), _english(), ENOUGH_ENGLISH, counts)
    # Few English words are also found in what is short; the exact rule tells.
    result: Bools = counts < ENOUGH_ENGLISH
    places = [place for place, text in enumerate(texts) if not text.isascii()]
    if places:
        flags = np.zeros(len(places), np.uint8)
        find_foreign(*_join([sample_of(texts[place]) for place in places]), flags)
        result[places] |= flags.astype(bool)
    return result


def _may_repeat(tails: Sequence[str], enough: float) -> Bools:
    from curriculum.text_kernels import count_tail_words

    counts = np.zeros((len(tails), 2), np.int64)
    count_tail_words(*_join([t if t.isascii() else "" for t in tails]), TAIL_WORDS, counts)
    words, distinct = counts[:, 0], counts[:, 1]
    # Every distinct word but three begins an n-gram that no other word begins.
    share = (distinct - NGRAM + 1) / np.maximum(1, words - NGRAM + 1)
    is_plain = np.array([tail.isascii() for tail in tails], bool)
    result: Bools = ~is_plain | ((words >= LEAST_WORDS) & (share <= enough))
    return result


def _join(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint8], Int64s]:
    """UTF-8 of texts one after another, and where each begins and ends."""
    pieces = [text.encode() for text in texts]
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    spans = np.stack(
        [np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)], ends], axis=1
    )
    return np.frombuffer(b"".join(pieces) + bytes(4), np.uint8), spans


@cache
def _english() -> UInt64s:
    from curriculum.text_kernels import fill_words, hash_word

    table = np.zeros(256, np.uint64)
    words = [hash_word(np.frombuffer(word.encode(), np.uint8)) for word in sorted(ENGLISH)]
    fill_words(table, np.array(words, np.uint64))
    return table
