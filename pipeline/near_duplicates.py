"""Near-duplicate texts in linear time: MinHash finds candidates, true Jaccard decides.

Texts are streamed twice. The first pass keeps four bytes a band and row (128 bytes a row at a
threshold of 0.7); the second keeps the word n-grams, four bytes each, of rows that are candidates.

Rows are taken in order, and a row is removed when it is like an earlier row *that stays*. So the
earliest of a family survives, every removed row is as similar as stated to the very row that stands
for it, and no chain of small changes removes what is not alike.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from pipeline.matching import tokenize

UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

_NUM_HASHES = 128
_CANDIDATE_RECALL = 0.995
"""Chance that a pair exactly at the threshold becomes a candidate."""
_CHUNK_ROWS = 1024
_WINDOW = 4
"""Rows of one bucket that a row is compared with, besides the bucket's first: keeps the work linear
where thousands of rows share a stock phrase."""
_MAX_CACHED_WORDS = 1_000_000


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A row that repeats an earlier one."""

    removed: int
    kept: int
    jaccard: float
    """Of the two rows' sets of word n-grams."""


def find_near_duplicates(
    texts: Callable[[], Iterable[str]], *, threshold: float, ngram: int = 3
) -> list[NearDuplicate]:
    """Rows to remove so that no two of those that stay are alike, by row number.

    Args:
        texts: Opens the texts anew, always the same ones; a text without words has no likeness.
        threshold: Jaccard similarity from which two texts are one.
        ngram: Words of one n-gram; numbers and operators count as words (see
            :mod:`pipeline.matching`). A shorter text is one n-gram.
    """
    shingler = _Shingler(ngram)
    keys, is_empty = _band_keys(texts(), shingler, threshold)
    pairs = _candidate_pairs(keys, is_empty)
    del keys
    if not len(pairs):
        return []
    num = len(is_empty)
    involved = np.zeros(num, dtype=bool)
    involved[pairs // num] = True
    involved[pairs % num] = True
    grams = _collect(texts(), shingler, involved)
    return _choose(pairs, num, grams, threshold)


class _Shingler:
    """Texts as sets of hashed word n-grams."""

    def __init__(self, ngram: int) -> None:
        self._ngram = ngram
        self._words = _WordHashes()
        self._factors = _mixed(np.arange(1, ngram + 1, dtype=np.uint64)) | np.uint64(1)

    def hash_grams(self, texts: list[str]) -> tuple[UInt64s, Int64s]:
        """All n-grams of all texts, and how many each text has (one if it is shorter)."""
        if len(self._words) > _MAX_CACHED_WORDS:
            self._words.clear()
        words, sizes = array("Q"), array("q")
        for text in texts:
            tokens = tokenize(text)
            words.extend(map(self._words.__getitem__, tokens))
            # A short text is padded to one n-gram.
            missing = self._ngram - len(tokens) if tokens else 0
            words.extend([0] * missing)
            sizes.append(len(tokens) + max(0, missing))
        hashes = np.frombuffer(words, dtype=np.uint64)
        lengths = np.frombuffer(sizes, dtype=np.int64)
        counts = np.maximum(lengths - (self._ngram - 1), 0)
        starts = np.cumsum(lengths) - lengths
        # Windows that reach into the next text are left out.
        shift = np.repeat(starts - (np.cumsum(counts) - counts), counts)
        places = np.arange(int(counts.sum()), dtype=np.int64) + shift
        grams = np.zeros(len(places), dtype=np.uint64)
        for offset, factor in enumerate(self._factors):
            grams += hashes[places + offset] * factor
        return _mixed(grams), counts


class _WordHashes(dict[str, int]):
    """Each word's hash, made when it is first met."""

    def __missing__(self, word: str) -> int:
        value = self[word] = xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))
        return value


def _mixed(values: UInt64s) -> UInt64s:
    """The finaliser of splitmix64: every bit of the input reaches every bit of the output."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def choose_bands(threshold: float) -> tuple[int, int]:
    """Bands and hashes per band: the most selective that still find pairs at the threshold."""
    for size in range(_NUM_HASHES, 1, -1):
        bands = _NUM_HASHES // size
        if 1 - (1 - threshold**size) ** bands >= _CANDIDATE_RECALL:
            return bands, size
    return _NUM_HASHES, 1


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    rows = iter(texts)
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        yield chunk


def _band_keys(
    texts: Iterable[str], shingler: _Shingler, threshold: float
) -> tuple[UInt32s, npt.NDArray[np.bool_]]:
    """For each band, one key per row; and which rows have no words."""
    bands, size = choose_bands(threshold)
    factors = _mixed(np.arange(1000, 1000 + bands * size, dtype=np.uint64)) | np.uint64(1)
    pieces, empty = [], []
    for chunk in _chunks(texts):
        grams, counts = shingler.hash_grams(chunk)
        filled = counts > 0
        keys = np.zeros((bands, len(chunk)), dtype=np.uint32)
        if filled.any():
            starts = (np.cumsum(counts) - counts)[filled]
            for band in range(bands):
                joined = np.zeros(len(starts), dtype=np.uint64)
                for factor in factors[band * size : (band + 1) * size]:
                    joined = _mixed(joined ^ np.minimum.reduceat(grams * factor, starts))
                keys[band, filled] = (joined >> np.uint64(32)).astype(np.uint32)
        pieces.append(keys)
        empty.append(~filled)
    if not pieces:
        return np.zeros((bands, 0), dtype=np.uint32), np.zeros(0, dtype=bool)
    return np.concatenate(pieces, axis=1), np.concatenate(empty)


def _candidate_pairs(keys: UInt32s, is_empty: npt.NDArray[np.bool_]) -> Int64s:
    """Pairs that share a band's key, as ``later * rows + earlier``, ascending."""
    num = len(is_empty)
    rows = np.flatnonzero(~is_empty)
    found = np.empty(0, dtype=np.int64)
    for band in keys:
        own = band[rows]
        order = np.argsort(own, kind="stable")
        ordered, places = own[order], rows[order]
        new = []
        for step in range(1, _WINDOW + 1):
            same = np.flatnonzero(ordered[step:] == ordered[:-step])
            new.append(places[same + step] * num + places[same])
        is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]
        firsts = np.maximum.accumulate(np.where(is_first, np.arange(len(ordered)), 0))
        others = np.flatnonzero(~is_first)
        new.append(places[others] * num + places[firsts[others]])
        found = np.unique(np.concatenate([found, *new]))
    return found


def _collect(
    texts: Iterable[str], shingler: _Shingler, involved: npt.NDArray[np.bool_]
) -> dict[int, UInt32s]:
    """The n-gram sets of the rows involved, sorted."""
    grams: dict[int, UInt32s] = {}
    start = 0
    for chunk in _chunks(texts):
        chosen = np.flatnonzero(involved[start : start + len(chunk)])
        values, counts = shingler.hash_grams([chunk[index] for index in chosen])
        pieces = np.split((values >> np.uint64(32)).astype(np.uint32), np.cumsum(counts)[:-1])
        for index, piece in zip(chosen, pieces, strict=False):
            grams[start + int(index)] = np.unique(piece)
        start += len(chunk)
    return grams


def _choose(
    pairs: Int64s, num: int, grams: dict[int, UInt32s], threshold: float
) -> list[NearDuplicate]:
    """Decide row by row, against earlier rows that stay."""
    kept_of: dict[int, int] = {}
    removed = []
    for later, group in groupby(pairs.tolist(), key=lambda pair: pair // num):
        # A candidate that was removed itself is represented by the row it repeats.
        candidates = {kept_of.get(pair % num, pair % num) for pair in group}
        for earlier in sorted(candidates):
            jaccard = _jaccard(grams[later], grams[earlier])
            if jaccard >= threshold:
                kept_of[later] = earlier
                removed.append(NearDuplicate(later, earlier, round(jaccard, 3)))
                break
    return removed


def _jaccard(a: UInt32s, b: UInt32s) -> float:
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)
