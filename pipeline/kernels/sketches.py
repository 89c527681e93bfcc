"""N-grams of word hashes, their MinHash bands, and the true likeness of two sets, compiled."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.kernels.compiling import borrowing, compiled

UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@borrowing
def _mix(value: np.uint64) -> np.uint64:
    """The finaliser of splitmix64: every bit of the input reaches every bit of the output."""
    value += _GOLDEN
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@borrowing
def fill_factors(factors: UInt64s, first: int) -> None:
    """Odd numbers to multiply hashes by, always the same ones."""
    for index in range(len(factors)):
        factors[index] = _mix(np.uint64(first + index)) | np.uint64(1)


@compiled
def write_grams(words: UInt64s, starts: Int64s, ngram: int, grams: UInt32s, offsets: Int64s) -> int:
    """Write every text's n-grams and where each text's begin; returns how many.

    A text shorter than an n-gram is one, filled up with zeros; a text without words has none.
    """
    factors = np.empty(ngram, np.uint64)
    fill_factors(factors, 1)
    count = 0
    offsets[0] = 0
    for text in range(len(starts) - 1):
        start, end = starts[text], starts[text + 1]
        last = max(start, end - ngram) + 1 if end > start else start
        for place in range(start, last):
            value = np.uint64(0)
            for index in range(min(ngram, end - place)):
                value += words[place + index] * factors[index]
            grams[count] = _mix(value) >> np.uint64(32)
            count += 1
        offsets[text + 1] = count
    return count


@compiled
def write_bands(grams: UInt32s, offsets: Int64s, factors: UInt32s, bands: UInt32s) -> None:
    """Write the band keys of every set of n-grams: of each, several minima in one number.

    A key is 0 for a set without n-grams, and for no other.
    """
    num_bands = bands.shape[1]
    size = len(factors) // num_bands
    minima = np.empty(len(factors), np.uint32)
    for text in range(len(offsets) - 1):
        bands[text, :] = 0
        if offsets[text] == offsets[text + 1]:
            continue
        minima[:] = np.uint32(0xFFFFFFFF)
        for place in range(offsets[text], offsets[text + 1]):
            gram = grams[place]
            for index in range(len(factors)):
                value = np.uint32(gram * factors[index])
                minima[index] = min(minima[index], value)
        for band in range(num_bands):
            key = np.uint64(0)
            for index in range(band * size, (band + 1) * size):
                key = _mix(key ^ np.uint64(minima[index]))
            bands[text, band] = max(np.uint32(1), np.uint32(key >> np.uint64(32)))


@borrowing
def _jaccard(one: UInt32s, other: UInt32s) -> float:
    """Likeness of two sorted sets."""
    i, j, shared = 0, 0, 0
    while i < len(one) and j < len(other):
        a, b = one[i], other[j]
        shared += a == b
        i += a <= b
        j += b <= a
    return shared / (len(one) + len(other) - shared)


@borrowing
def _sort_standing(kept_of: Int64s, candidates: Int64s, standing: Int64s) -> int:
    """Write the rows that stand for candidates, ascending; returns how many."""
    count = 0
    for candidate in candidates:
        # A candidate that was removed itself is represented by the row it repeats.
        row = kept_of[candidate] if kept_of[candidate] >= 0 else candidate
        place = count
        while place > 0 and standing[place - 1] > row:
            place -= 1
        if place > 0 and standing[place - 1] == row:
            continue
        for index in range(count, place, -1):
            standing[index] = standing[index - 1]
        standing[place] = row
        count += 1
    return count


@compiled
def decide(
    pairs: Int64s,
    grams: tuple[UInt32s, Int64s, Int64s, UInt32s],
    kept_of: Int64s,
    jaccards: Float32s,
    threshold: float,
) -> None:
    """Decide row by row whether it repeats an earlier row that stays, and which.

    Args:
        pairs: Rows of (later, earlier), ascending.
        grams: Sorted sets one after another; where each begins; the set of each row; the label of
            each set: sets of two labels that are not 0 are never alike.
        kept_of: The earlier row that each row repeats, or -1; written.
        jaccards: Likeness to it; written.
        threshold: Likeness from which a row repeats another.
    """
    values, offsets, slots, labels = grams
    start = 0
    standing = np.empty(1, np.int64)
    while start < len(pairs):
        later, end = pairs[start, 0], start
        while end < len(pairs) and pairs[end, 0] == later:
            end += 1
        if end - start > len(standing):
            standing = np.empty(end - start, np.int64)
        count = _sort_standing(kept_of, pairs[start:end, 1], standing)
        own = values[offsets[slots[later]] : offsets[slots[later] + 1]]
        for index in range(count):
            row = standing[index]
            other = values[offsets[slots[row]] : offsets[slots[row] + 1]]
            label = labels[slots[row]]
            if label != 0 and labels[slots[later]] != 0 and label != labels[slots[later]]:
                continue
            # No likeness is greater than the ratio of the sizes.
            if min(len(own), len(other)) < threshold * max(len(own), len(other)):
                continue
            jaccard = _jaccard(own, other)
            if jaccard >= threshold:
                kept_of[later] = row
                jaccards[later] = jaccard
                break
        start = end
