"""What the words of ordinary problems mean, as arrays: worked out once for a machine.

A third of a million spellings take seconds to work out and are the same for all benchmarks, so they
are kept in the user's cache, as compiled kernels are. What cannot be kept is worked out again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.hashing import code_version
from pipeline.machine_cache import kept_arrays
from pipeline.problem_features import formula_part, shares
from pipeline.word_forms import VARIABLE, is_variable, spellings
from pipeline.word_hashes import hash_tokens

UInt8s = npt.NDArray[np.uint8]
Int32s = npt.NDArray[np.int32]
UInt64s = npt.NDArray[np.uint64]

WEIGHTLESS = -1
"""Feature of a word that has none, see :mod:`pipeline.kernels.problem_words`."""
MOST_LETTERS = 3
"""Variables that are looked for when they are written together."""


@dataclass(frozen=True, slots=True)
class WordArrays:
    """Words by number."""

    hashes: UInt64s
    forms: UInt64s
    """What n-grams see."""
    parts: UInt8s
    """Whether a word may stand in a formula (1) or says something there (2)."""
    features: Int32s
    """Place among the features of ordinary problems."""


def describe_words(forms: Mapping[str, str], numbers: Mapping[str, int]) -> WordArrays:
    """Words as arrays.

    Args:
        forms: Each word's content form.
        numbers: Of the features; a form that is none has :data:`WEIGHTLESS`.
    """
    seen = [VARIABLE if is_variable(word) else form or word for word, form in forms.items()]
    features = (numbers.get(form, WEIGHTLESS) for form in forms.values())
    return WordArrays(
        hashes=hash_tokens(list(forms)),
        forms=hash_tokens(seen),
        parts=np.array([_part_code(formula_part(word)) for word in forms], np.uint8),
        features=np.fromiter(features, np.int32, len(forms)),
    )


def spell(features: Iterable[str]) -> dict[str, str]:
    """All usual spellings of features that are words, each with its feature."""
    return {
        word: feature
        for feature in features
        if " " not in feature
        for word in spellings(feature)
        if not is_run(word)
    }


@cache
def ordinary_words() -> WordArrays:
    """All usual spellings of the words that ordinary problems hold."""
    return WordArrays(**kept_arrays("ordinary-words", code_version("pipeline"), _spell_ordinary))


def _spell_ordinary() -> dict[str, Any]:
    numbers = {feature: number for number, feature in enumerate(shares())}
    found = describe_words(spell(numbers), numbers)
    return {field.name: getattr(found, field.name) for field in fields(found)}


def is_run(word: str) -> bool:
    """Whether these are names in a row, such as "abc": never a word."""
    if not (2 <= len(word) <= MOST_LETTERS and word.isascii() and word.isalpha()):
        return False
    codes = [ord(letter) for letter in word]
    return codes == list(range(codes[0], codes[0] + len(word)))


def _part_code(part: str) -> int:
    if not part:
        return 0
    return 1 if part == VARIABLE or part.isalpha() else 2
