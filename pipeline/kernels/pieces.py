"""Numbers of a tokenizer's ids: byte-pair merging of the student's vocabulary, compiled.

A text is cut where two neighbouring characters occur in no piece of the vocabulary: no merge ever
crosses there, so the chunks between are independent and their counts can be kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.kernels.compiling import compiled

UInt8s = npt.NDArray[np.uint8]
UInt16s = npt.NDArray[np.uint16]
UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

MAX_CHUNK = 512
"""Characters of one chunk; merging takes quadratic time, so longer ones are left to others."""
KEY_BYTES = 16
"""Longest chunk whose count is kept: it is its own key, so that nothing is ever mistaken."""
TOO_LONG = -1
_NONE = 2**31 - 1

Vocabulary = tuple[UInt16s, UInt8s, UInt64s, Int32s, Int32s]
"""Place of every code point in the alphabet (0 outside); bits of the pairs of the alphabet that
occur in pieces; pairs of symbols that merge, by hash; the symbol that each makes; rank of every
symbol (lower merges first), -1 for one that is no piece. The alphabet's characters are the first
symbols, in their order."""

Kept = tuple[UInt64s, UInt16s, Int64s]
"""Chunks and their counts, by hash, and how many there are."""


@compiled
def _mix(value: np.uint64) -> np.uint64:
    """The finaliser of splitmix64."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def find_pair(pairs: UInt64s, left: int, right: int) -> int:
    """Slot of a pair of symbols, or the free one where it belongs."""
    key = (np.uint64(left) << np.uint64(32)) | np.uint64(right)
    mask = np.uint64(len(pairs) - 1)
    slot = _mix(key) & mask
    while pairs[slot] != key and pairs[slot] != np.uint64(0):
        slot = (slot + np.uint64(1)) & mask
    return int(slot)


@compiled
def fill_pairs(pairs: UInt64s, merged: Int32s, merges: Int32s) -> None:
    """Put rows of (left, right, merged) symbols into the table."""
    for row in range(len(merges)):
        slot = find_pair(pairs, merges[row, 0], merges[row, 1])
        pairs[slot] = (np.uint64(merges[row, 0]) << np.uint64(32)) | np.uint64(merges[row, 1])
        merged[slot] = merges[row, 2]


@compiled
def _width(byte: int) -> int:
    """Bytes of the UTF-8 character that begins with this one."""
    if byte < 0x80:
        return 1
    if byte < 0xE0:
        return 2
    return 3 if byte < 0xF0 else 4


@compiled
def _letter(data: UInt8s, place: int, width: int, alphabet: UInt16s) -> int:
    """Place in the alphabet of the character that begins here."""
    if width == 1:
        return int(alphabet[data[place]])
    code = np.int64(data[place]) & (0x7F >> width)
    for index in range(1, width):
        code = (code << 6) | (np.int64(data[place + index]) & 0x3F)
    return int(alphabet[code])


@compiled
def _merge_result(vocabulary: Vocabulary, left: int, right: int) -> tuple[int, int]:
    """The symbol that two make, and its rank."""
    pairs, merged, ranks = vocabulary[2], vocabulary[3], vocabulary[4]
    slot = find_pair(pairs, left, right)
    if pairs[slot] == np.uint64(0):
        return 0, _NONE
    symbol = merged[slot]
    return int(symbol), int(ranks[symbol])


@compiled
def _read_symbols(data: UInt8s, start: int, end: int, alphabet: UInt16s, work: Int32s) -> int:
    """Write the characters of a chunk as symbols, and their widths; returns how many."""
    num = 0
    while start < end:
        width = _width(data[start])
        work[0, num] = _letter(data, start, width, alphabet)
        work[3, num] = width
        start += width
        num += 1
    return num


@compiled
def _merge_chunk(data: UInt8s, start: int, end: int, vocabulary: Vocabulary, work: Int32s) -> int:
    """Number of ids of one chunk.

    Always the best pair of neighbours is merged, the left one of equals: what the reference's queue
    does. ``work`` has rows for symbols, for what each makes with the next, its rank, and widths.
    """
    num = _read_symbols(data, start, end, vocabulary[0], work)
    for place in range(num - 1):
        work[1, place], work[2, place] = _merge_result(
            vocabulary, work[0, place], work[0, place + 1]
        )
    while num > 1:
        best = 0
        for place in range(1, num - 1):
            if work[2, place] < work[2, best]:
                best = place
        if work[2, best] == _NONE:
            break
        work[0, best] = work[1, best]
        num -= 1
        for place in range(best + 1, num):
            work[0, place] = work[0, place + 1]
            work[1, place] = work[1, place + 1]
            work[2, place] = work[2, place + 1]
            work[3, place] = work[3, place + 1]
        if best + 1 < num:
            work[1, best], work[2, best] = _merge_result(
                vocabulary, work[0, best], work[0, best + 1]
            )
        if best > 0:
            work[1, best - 1], work[2, best - 1] = _merge_result(
                vocabulary, work[0, best - 1], work[0, best]
            )
    count = 0
    for place in range(num):
        # What is no piece is spelled in bytes; only a single character can be.
        count += 1 if vocabulary[4][work[0, place]] >= 0 else work[3, place]
    return count


@compiled
def _find_kept(keys: UInt64s, low: np.uint64, high: np.uint64) -> int:
    """Slot of a chunk, or the free one where it belongs; no chunk is empty."""
    mask = np.uint64(len(keys) - 1)
    slot = _mix(low ^ (_mix(high) + high)) & mask
    while keys[slot, 0] != np.uint64(0) and (keys[slot, 0] != low or keys[slot, 1] != high):
        slot = (slot + np.uint64(1)) & mask
    return int(slot)


@compiled
def _next_chunk(
    data: UInt8s, place: int, end: int, vocabulary: Vocabulary
) -> tuple[int, int, np.uint64, np.uint64]:
    """Where the chunk that begins here ends, its characters, and its first 16 bytes as numbers."""
    alphabet, joined = vocabulary[0], vocabulary[1]
    low, high = np.uint64(0), np.uint64(0)
    start, num, before = place, 0, 0
    while place < end:
        width = _width(data[place])
        letter = _letter(data, place, width, alphabet)
        if num:
            bit = joined[before, letter >> 3] >> np.uint8(letter & 7)
            if not bit & np.uint8(1):
                break
        for _ in range(width):
            offset = place - start
            if offset < 8:
                low |= np.uint64(data[place]) << np.uint64(8 * offset)
            elif offset < KEY_BYTES:
                high |= np.uint64(data[place]) << np.uint64(8 * (offset - 8))
            place += 1
        before = letter
        num += 1
    return place, num, low, high


@compiled
def _count_chunk(
    data: UInt8s,
    span: tuple[int, int, np.uint64, np.uint64],
    vocabulary: Vocabulary,
    kept: Kept,
    work: Int32s,
) -> int:
    """Number of ids of a chunk from ``span[0]`` to ``span[1]``, looked up where it is short."""
    start, end, low, high = span
    if end - start > KEY_BYTES:
        return _merge_chunk(data, start, end, vocabulary, work)
    keys, counts, used = kept
    slot = _find_kept(keys, low, high)
    if keys[slot, 0] != np.uint64(0):
        return int(counts[slot])
    count = _merge_chunk(data, start, end, vocabulary, work)
    if used[0] * 2 > len(keys):
        keys[:] = np.uint64(0)
        used[0] = 0
        slot = _find_kept(keys, low, high)
    keys[slot, 0], keys[slot, 1] = low, high
    counts[slot] = count
    used[0] += 1
    return count


@compiled
def count_ids(
    data: UInt8s, spans: Int64s, vocabulary: Vocabulary, kept: Kept, counts: Int64s
) -> None:
    """Number of ids of every text, or :data:`TOO_LONG` where a chunk is.

    Args:
        data: UTF-8 of all texts.
        spans: Where each text begins and ends.
        vocabulary: What is merged.
        kept: Counts of chunks met before; more are added.
        counts: Written, one of each text.
    """
    work = np.zeros((4, MAX_CHUNK + 1), np.int32)
    for text in range(len(spans)):
        place, end, total = spans[text, 0], spans[text, 1], 0
        while place < end:
            start = place
            place, num, low, high = _next_chunk(data, start, end, vocabulary)
            if num == 1:
                width = place - start
                letter = _letter(data, start, width, vocabulary[0])
                total += 1 if vocabulary[4][letter] >= 0 else width
            elif num <= MAX_CHUNK:
                total += _count_chunk(data, (start, place, low, high), vocabulary, kept, work)
            else:
                total = TOO_LONG
                break
        counts[text] = total
