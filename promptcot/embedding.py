"""Concept similarity without a model: cosine of weighted character n-grams.

The original embeds concepts with an 8B language model. This encoder needs no download and gives
the same numbers on every machine; it sees shared words and word stems, not meaning.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

DIMENSIONS = 1024
_NGRAMS = (3, 4, 5)
_BLOCK = 4096

Vectors = npt.NDArray[np.float32]


def embed_ngrams(concepts: Sequence[str]) -> Iterator[Vectors]:
    """Unit vectors of concept names, some thousand rows at a time.

    Character n-grams of 3 to 5 letters are weighted by how rare they are among ``concepts`` and
    hashed into a fixed number of signed slots.
    """
    frequency: Counter[str] = Counter()
    for concept in concepts:
        frequency.update(set(_ngrams(concept)))
    slots: dict[str, tuple[int, float]] = {}
    for ngram, count in frequency.items():
        # crc32 is stable across processes; Python's own hash is not.
        slot = zlib.crc32(ngram.encode("utf-8"))
        rarity = math.log((1 + len(concepts)) / (1 + count)) + 1
        slots[ngram] = ((slot >> 1) % DIMENSIONS, rarity if slot & 1 else -rarity)
    for start in range(0, len(concepts), _BLOCK):
        block = np.zeros((len(concepts[start : start + _BLOCK]), DIMENSIONS), dtype=np.float32)
        for row, concept in zip(block, concepts[start : start + _BLOCK], strict=True):
            _fill(row, concept, slots)
        yield block


def _fill(row: Vectors, concept: str, slots: dict[str, tuple[int, float]]) -> None:
    values: dict[int, float] = {}
    for ngram in _ngrams(concept):
        slot, weight = slots[ngram]
        values[slot] = values.get(slot, 0.0) + weight
    # fsum and sqrt are exact to the last bit everywhere; a BLAS norm is not.
    length = math.sqrt(math.fsum(value * value for value in values.values()))
    if length:
        row[list(values)] = [value / length for value in values.values()]


def _ngrams(text: str) -> list[str]:
    padded = f" {' '.join(text.lower().split())} "
    return [
        padded[start : start + size]
        for size in _NGRAMS
        for start in range(max(1, len(padded) - size + 1))
    ]
