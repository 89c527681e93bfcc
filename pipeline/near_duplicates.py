"""Near-duplicate texts in linear time: MinHash finds candidates, true Jaccard decides.

A text becomes a *sketch*: the set of its word n-grams, four bytes each, and keys of bands, four
bytes each, of which texts that are alike share some. Rows are taken in order, and a row is removed
when it is like an earlier row *that stays*. So the earliest of a family survives, every removed row
is as similar as stated to the very row that stands for it, and no chain of small changes removes
what is not alike.

Keys are read a few bands at a time and n-grams of candidates only, within a stated memory, as are
the pairs of candidates: where there are too many, later rows wait for another round. Besides, 20
bytes a row are kept and about 60 while a band is sorted. Where no sketches are stored, texts are
streamed twice and their keys kept (128 bytes a row at a threshold of 0.7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from pipeline.word_hashes import WordHashes, hash_words, offsets_of

UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

NGRAM = 3
"""Words of one n-gram of a stored sketch."""
LOWEST_JACCARD = 0.7
"""Likeness down to which stored sketches find nearly every pair: 99.95 % at this likeness."""

_NUM_HASHES = 128
_CANDIDATE_RECALL = 0.995
"""Chance that a pair exactly at the threshold becomes a candidate."""
_CHUNK_ROWS = 1024
_WINDOW = 4
"""Rows of one bucket that a row is compared with, besides the bucket's first: keeps the work linear
where thousands of rows share a stock phrase."""
_MEMORY = 256 << 20
_BYTES_PER_PAIR = 8192
"""Of two rows of 170 words, while their n-grams are sorted."""
_BYTES_PER_CANDIDATE = 32
"""Of a pair of rows while pairs are collected."""


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A row that repeats an earlier one."""

    removed: int
    kept: int
    jaccard: float
    """Of the two rows' sets of word n-grams."""


@dataclass(frozen=True, slots=True)
class NearRows:
    """Rows that repeat earlier ones: parallel arrays, in order."""

    removed: Int64s
    kept: Int64s
    jaccard: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GramSets:
    """The hashed word n-grams of many texts, in the order of the text, repetitions included."""

    values: UInt32s
    offsets: Int64s
    """Text ``i`` has ``values[offsets[i] : offsets[i + 1]]``."""
    labels: UInt32s | None = None
    """Sets of different labels are never alike; 0, or no labels at all, is alike with any."""

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, slots=True)
class Sketches:
    """What is kept of texts to find near-duplicates."""

    bands: UInt32s
    """A row of keys per text; all 0 where it has no words."""
    grams: GramSets


def choose_bands(threshold: float) -> tuple[int, int]:
    """Bands and hashes per band: the most selective that still find pairs at the threshold."""
    for size in range(_NUM_HASHES, 1, -1):
        bands = _NUM_HASHES // size
        if 1 - (1 - threshold**size) ** bands >= _CANDIDATE_RECALL:
            return bands, size
    return _NUM_HASHES, 1


NUM_BANDS, _BAND_SIZE = choose_bands(LOWEST_JACCARD)


def sketch_texts(texts: Sequence[str]) -> Sketches:
    """Sketches as they are stored: words, numbers and operators, see :mod:`pipeline.matching`."""
    return sketch_words(hash_words(texts))


def sketch_words(words: WordHashes) -> Sketches:
    """Sketches of texts whose words are hashed already."""
    grams = _gram_sets(words, NGRAM)
    return Sketches(_band_keys(grams, NUM_BANDS, _BAND_SIZE), grams)


def find_near_rows(
    order: Int64s,
    read_bands: Callable[[int, int], UInt32s],
    read_grams: Callable[[Int64s], GramSets],
    *,
    threshold: float,
    memory: int = _MEMORY,
) -> NearRows:
    """Rows to remove so that no two of those that stay are alike.

    Args:
        order: Numbers of the rows, the one that should survive first.
        read_bands: Keys ``first`` to ``last`` of *all* rows, by row number: an array of
            ``last - first`` columns. Called several times.
        read_grams: The sets of some rows, given by ascending row numbers.
        threshold: Jaccard similarity from which two rows are one.
        memory: Bytes that keys, and then n-grams, may take.
    """

    def read_ordered(first: int, last: int) -> UInt32s:
        return read_bands(first, last)[order]

    def read_placed(places: Int64s) -> GramSets:
        rows = order[places]
        ascending = np.argsort(rows)
        return _reorder(read_grams(rows[ascending]), np.argsort(ascending))

    # What is read at once are the keys of all rows, of which the candidates may be few.
    step = memory // (8 * (int(order.max(initial=0)) + 1))
    search = _Search(len(order), read_placed, threshold, memory)
    found = search.run(read_ordered, _num_bands_for(threshold), max(1, step))
    return NearRows(order[found.removed], order[found.kept], found.jaccard)


def find_near_duplicates(
    texts: Callable[[], Iterable[str]], *, threshold: float, ngram: int = NGRAM
) -> list[NearDuplicate]:
    """Rows to remove so that no two of those that stay are alike, by row number.

    Args:
        texts: Opens the texts anew, always the same ones; a text without words has no likeness.
        threshold: Jaccard similarity from which two texts are one.
        ngram: Words of one n-gram; numbers and operators count as words (see
            :mod:`pipeline.matching`). A shorter text is one n-gram.
    """
    num_bands, size = choose_bands(threshold)
    keys = [
        _band_keys(_gram_sets(hash_words(chunk), ngram), num_bands, size)
        for chunk in _chunks(texts())
    ]
    if not keys:
        return []
    bands = np.concatenate(keys)
    del keys

    def read_grams(rows: Int64s) -> GramSets:
        chosen = _pick(texts(), rows)
        return _join([_gram_sets(hash_words(chunk), ngram) for chunk in _chunks(chosen)])

    search = _Search(len(bands), read_grams, threshold, _MEMORY)
    found = search.run(lambda first, last: bands[:, first:last], num_bands, num_bands)
    rows = zip(found.removed, found.kept, found.jaccard, strict=True)
    return [
        NearDuplicate(int(removed), int(kept), round(float(jaccard), 3))
        for removed, kept, jaccard in rows
    ]


def _gram_sets(words: WordHashes, ngram: int) -> GramSets:
    from pipeline.kernels.sketches import write_grams

    values = np.empty(len(words.hashes), np.uint32)
    offsets = np.empty(len(words) + 1, np.int64)
    count = write_grams(words.hashes, words.offsets, ngram, values, offsets)
    return GramSets(values[:count].copy(), offsets)


def _sort_sets(sets: GramSets) -> GramSets:
    """Every set ascending, without repetitions."""
    keys = np.repeat(np.arange(len(sets), dtype=np.uint64) << np.uint64(32), np.diff(sets.offsets))
    # Sorting set and value as one number leaves every set in place.
    keys |= sets.values
    keys.sort()
    if len(keys):
        keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    sizes = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=len(sets))
    return GramSets(keys.astype(np.uint32), offsets_of(sizes), sets.labels)


def _band_keys(grams: GramSets, num_bands: int, size: int) -> UInt32s:
    from pipeline.kernels.sketches import fill_factors, write_bands

    factors = np.empty(num_bands * size, np.uint64)
    fill_factors(factors, 1000)
    bands = np.empty((len(grams), num_bands), np.uint32)
    write_bands(grams.values, grams.offsets, factors.astype(np.uint32), bands)
    return bands


def _num_bands_for(threshold: float) -> int:
    """Stored bands that a search needs: few find what is very alike, and fewer of what is not."""
    for num in range(1, NUM_BANDS):
        if (1 - threshold**_BAND_SIZE) ** num <= (1 - _CANDIDATE_RECALL) / 10:
            return num
    return NUM_BANDS


def _pairs_of_band(keys: UInt32s) -> Iterator[Int64s]:
    """Pairs that share a key, as ``later * rows + earlier``."""
    num = len(keys)
    places = np.arange(num, dtype=np.uint64)
    ordered = np.sort((keys.astype(np.uint64) << np.uint64(32)) | places)
    ordered = ordered[np.searchsorted(ordered, np.uint64(1 << 32)) :]
    own, rows = ordered >> np.uint64(32), (ordered & np.uint64(0xFFFFFFFF)).astype(np.int64)
    for step in range(1, _WINDOW + 1):
        same = np.flatnonzero(own[step:] == own[:-step])
        yield rows[same + step] * num + rows[same]
    is_first = np.concatenate([[True], own[1:] != own[:-1]])[: len(own)]
    firsts = np.maximum.accumulate(np.where(is_first, np.arange(len(own)), 0))
    others = np.flatnonzero(~is_first)
    yield rows[others] * num + rows[firsts[others]]


class _Search:
    """Finds which of some rows repeat earlier ones, in ranges of rows whose pairs fit in memory."""

    def __init__(
        self,
        num: int,
        read_grams: Callable[[Int64s], GramSets],
        threshold: float,
        memory: int,
    ) -> None:
        self._num = num
        self._read_grams = read_grams
        self._threshold = threshold
        self._most_now = max(1, memory // _BYTES_PER_PAIR)
        self._most_candidates = max(1000, memory // _BYTES_PER_CANDIDATE)
        self._kept_of = np.full(num, -1, np.int64)
        self._jaccards = np.zeros(num, np.float32)
        self._slots = np.zeros(num, np.int64)

    def run(self, read_bands: Callable[[int, int], UInt32s], num_bands: int, step: int) -> NearRows:
        """Decide on all rows; so many bands are read at once."""
        low = 0
        while low < self._num:
            pairs, high = np.empty(0, np.int64), self._num
            for first in range(0, num_bands, step):
                bands = read_bands(first, min(first + step, num_bands))
                for band in range(bands.shape[1]):
                    pairs = self._collect(pairs, bands[:, band], low, high)
                    pairs, high = self._shorten(pairs, low, high)
            self._decide(pairs)
            low = high
        removed = np.flatnonzero(self._kept_of >= 0)
        return NearRows(removed, self._kept_of[removed], self._jaccards[removed])

    def _collect(self, pairs: Int64s, keys: UInt32s, low: int, high: int) -> Int64s:
        """Pairs and those of one more band whose later row lies from ``low`` to ``high``."""
        new = [pairs]
        for some in _pairs_of_band(keys):
            new.append(some[(some >= low * self._num) & (some < high * self._num)])
        return np.unique(np.concatenate(new))

    def _shorten(self, pairs: Int64s, low: int, high: int) -> tuple[Int64s, int]:
        """Leave the last rows to another round when there are too many pairs."""
        if len(pairs) <= self._most_candidates:
            return pairs, high
        high = max(low + 1, int(pairs[len(pairs) // 2]) // self._num)
        return pairs[: np.searchsorted(pairs, high * self._num)].copy(), high

    def _decide(self, pairs: Int64s) -> None:
        """Decide row by row, against earlier rows that stay."""
        from pipeline.kernels.sketches import decide

        start = 0
        while start < len(pairs):
            # All pairs of one row stay together.
            end = min(start + self._most_now, len(pairs))
            end = int(np.searchsorted(pairs, (pairs[end - 1] // self._num + 1) * self._num))
            now = np.stack(np.divmod(pairs[start:end], self._num), axis=1)
            standing = self._kept_of[now[:, 1]]
            needed = np.unique([now[:, 0], np.where(standing >= 0, standing, now[:, 1])])
            grams = _sort_sets(self._read_grams(needed))
            self._slots[needed] = np.arange(len(needed))
            labels = np.zeros(len(needed), np.uint32) if grams.labels is None else grams.labels
            sets = (grams.values, grams.offsets, self._slots, labels)
            decide(now, sets, self._kept_of, self._jaccards, self._threshold)
            start = end


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    rows = iter(texts)
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        yield chunk


def _pick(texts: Iterable[str], rows: Int64s) -> Iterator[str]:
    """Texts of some rows, ascending."""
    wanted = iter(rows.tolist())
    following = next(wanted, None)
    for row, text in enumerate(texts):
        if row == following:
            yield text
            following = next(wanted, None)


def _join(sets: list[GramSets]) -> GramSets:
    sizes = np.concatenate([np.diff(one.offsets) for one in sets])
    return GramSets(np.concatenate([one.values for one in sets]), offsets_of(sizes))


def _reorder(sets: GramSets, places: Int64s) -> GramSets:
    """The sets in another order."""
    sizes = np.diff(sets.offsets)[places]
    offsets = offsets_of(sizes)
    shift = np.repeat(sets.offsets[:-1][places] - offsets[:-1], sizes)
    labels = None if sets.labels is None else sets.labels[places]
    return GramSets(sets.values[np.arange(offsets[-1]) + shift], offsets, labels)
