"""Hashes of questions and answers, by which the same and nearly the same questions are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.near_duplicates import Sketches, sketch_words
from pipeline.questions import question_keys
from pipeline.word_hashes import WordHashes, hash_words

UInt64s = npt.NDArray[np.uint64]
_NUMBER = 1
"""Kind of a word that is a number, see :class:`pipeline.word_hashes.WordHashes`."""


@dataclass(frozen=True, slots=True)
class QuestionHashes:
    """What is kept of questions."""

    keys: UInt64s
    """Equal for the same question in another spelling."""
    numbers: UInt64s
    """Equal for the same numbers, each as often, in any order."""
    sketches: Sketches


def hash_questions(texts: Sequence[str], words: WordHashes | None = None) -> QuestionHashes:
    """Hashes of several questions; their words, if they are hashed already."""
    words = hash_words(texts) if words is None else words
    keys = np.array([int(key[:16], 16) for key in question_keys(texts)], dtype=np.uint64)
    return QuestionHashes(keys, _hash_numbers(words), sketch_words(words))


def hash_answers(answers: Sequence[str]) -> npt.NDArray[np.uint32]:
    """Hashes of the boxed answers in what follows the reasonings; 0 where there is none."""
    contents = [find_boxed(answer) or "" for answer in answers]
    keys = [int(key[:8], 16) or 1 for key in question_keys(contents)]
    is_there = np.array([bool(content) for content in contents], bool)
    return np.where(is_there, np.array(keys, np.uint32), np.uint32(0))


def find_boxed(answer: str) -> str | None:
    """Content of the last box, if its braces close."""
    start = answer.rfind("\\boxed{")
    return braced(answer, start + len("\\boxed")) if start >= 0 else None


def braced(text: str, start: int) -> str | None:
    """Content of the brace group that opens at ``start``, or ``None`` when it never closes."""
    depth = 0
    for position in range(start, len(text)):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : position]
    return None


def _hash_numbers(words: WordHashes) -> UInt64s:
    """Sums of the numbers' hashes: the order does not matter, and how often does."""
    counted = np.where(words.kinds == _NUMBER, _scramble(words.hashes), np.uint64(0))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(counted, dtype=np.uint64)])
    result: UInt64s = sums[words.offsets[1:]] - sums[words.offsets[:-1]]
    return result


def mark_bands(bands: npt.NDArray[np.uint32], numbers: UInt64s) -> npt.NDArray[np.uint32]:
    """Keys that only questions with the same numbers share: 0 still says that there is none."""
    marks = (_scramble(numbers) >> np.uint64(32)).astype(np.uint32)[:, None]
    return np.where(bands == 0, bands, bands ^ marks)


def _scramble(values: UInt64s) -> UInt64s:
    """The finaliser of splitmix64: sums and differences of hashes stay hashes."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
