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


def look_at(rows: Sequence[PreparedRow], enough_distinct: float) -> list[Look]:
    """What each row may be refused for.

    Args:
        rows: Well-formed rows.
        enough_distinct: Share of distinct n-grams that a text's end must have.
    """
    questions, thinkings = [row.question for row in rows], [row.thinking for row in rows]
    foreign = _may_be_foreign(questions, [True] * len(rows))
    foreign |= _may_be_foreign(thinkings, [row.may_hold_scripts for row in rows])
    repeats = _may_repeat([text[-TAIL_CHARS:] for text in thinkings], enough_distinct)
    repeats |= _may_repeat([row.answer[-TAIL_CHARS:] for row in rows], enough_distinct)
    return [Look(*pair) for pair in zip(foreign.tolist(), repeats.tolist(), strict=True)]


def _may_be_foreign(texts: Sequence[str], may_hold_scripts: Sequence[bool]) -> Bools:
    from curriculum.text_kernels import count_known_words, find_foreign

    counts = np.zeros(len(texts), np.int64)
    # Blanks outside ASCII join words, so that fewer are known; no word is known that is none.
    heads = _join([text[:WORD_CHARS] for text in texts])
    count_known_words(*heads, _english(), ENOUGH_ENGLISH, counts)
    # Few English words are also found in what is short; the exact rule tells.
    result: Bools = counts < ENOUGH_ENGLISH
    pairs = zip(texts, may_hold_scripts, strict=True)
    places = [place for place, (text, may) in enumerate(pairs) if may and not text.isascii()]
    if places:
        flags = np.zeros(len(places), np.uint8)
        find_foreign(*_join([sample_of(texts[place]) for place in places]), flags)
        result[places] |= flags.astype(bool)
    return result


def _may_repeat(tails: Sequence[str], enough: float) -> Bools:
    from curriculum.text_kernels import count_tail_words

    if enough <= 0:
        return np.zeros(len(tails), bool)
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
