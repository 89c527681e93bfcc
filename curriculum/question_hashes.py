"""Hashes of questions for the search of near-duplicates (thin seam over the present functions)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.near_duplicates import UInt32s, _band_keys, _Shingler, choose_bands

NGRAM = 3
LOWEST_JACCARD = 0.7
BANDS = choose_bands(LOWEST_JACCARD)[0]


def hash_questions(texts: Sequence[str]) -> tuple[UInt32s, UInt32s, list[int]]:
    """Band keys (a row per text), n-gram hashes, and how many n-grams each text has."""
    shingler = _Shingler(NGRAM)
    keys, _ = _band_keys(texts, shingler, LOWEST_JACCARD)
    values, counts = shingler.hash_grams(list(texts))
    pieces = np.split((values >> np.uint64(32)).astype(np.uint32), np.cumsum(counts)[:-1])
    grams = [np.unique(piece) for piece in pieces[: len(texts)]]
    flat = np.concatenate(grams) if grams else np.zeros(0, np.uint32)
    return np.ascontiguousarray(keys.T), flat, [len(piece) for piece in grams]
