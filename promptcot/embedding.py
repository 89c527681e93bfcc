"""Concept similarity without a model: cosine of weighted character n-grams.

The original embeds concepts with an 8B language model. This encoder needs no download and gives
the same numbers on every machine; it sees shared words and word stems, not meaning.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_NGRAMS = (3, 4, 5)
_DIMENSIONS = 1024

Vectors = npt.NDArray[np.float64]


def embed_concepts(concepts: Sequence[str]) -> Vectors:
    """Unit vectors of concept names, shape (number of concepts, 1024).

    Character n-grams of 3 to 5 letters are weighted by how rare they are among ``concepts`` and
    hashed into a fixed number of signed slots.
    """
    counted = [_ngrams(concept) for concept in concepts]
    document_frequency = Counter(ngram for grams in counted for ngram in grams)
    vectors = np.zeros((len(concepts), _DIMENSIONS))
    for row, grams in enumerate(counted):
        for ngram, count in sorted(grams.items()):
            # crc32 is stable across processes; Python's own hash is not.
            slot = zlib.crc32(ngram.encode("utf-8"))
            sign = 1.0 if slot & 1 else -1.0
            rarity = math.log((1 + len(concepts)) / (1 + document_frequency[ngram])) + 1
            vectors[row, (slot >> 1) % _DIMENSIONS] += sign * count * rarity
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit


def _ngrams(text: str) -> Counter[str]:
    words = " ".join(text.lower().split())
    padded = f" {words} "
    return Counter(
        padded[start : start + size]
        for size in _NGRAMS
        for start in range(max(1, len(padded) - size + 1))
    )
