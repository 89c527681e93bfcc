"""Numbers of a tokenizer's ids: byte-pair merging of the student's vocabulary, compiled.

A text is cut where two neighbouring characters occur in no piece of the vocabulary: no merge ever
crosses there, so the chunks between are independent and their counts can be kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.kernels.compiling import borrowing, compiled
from pipeline.kernels.memory import load_eight, load_two, prefetch

UInt8s = npt.NDArray[np.uint8]
UInt16s = npt.NDArray[np.uint16]
UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

MAX_CHUNK = 512
"""Characters of one chunk; merging takes quadratic time, so longer ones are left to others."""
KEY_BYTES, LONG_KEY_BYTES = 15, 31
"""Longest chunks whose counts are kept in the two tables: each is its own key, so that nothing is
ever mistaken."""
TOO_LONG = -1
_NONE = 2**31 - 1
_ALL = np.uint64(2**64 - 1)
_KEY_PART = np.uint64(2**56 - 1)
_BLOCK = np.uint64(64)
_BEGINS_SYMBOL = np.uint8(4)
"""Beside a cut: a symbol that the tokenizer never splits may begin with the two bytes."""
_CHUNKS_AT_ONCE = 256
"""Chunks whose slots are fetched together; what they are looked up by takes 6 kB."""

Vocabulary = tuple[UInt16s, UInt8s, UInt64s, Int32s, UInt8s]
"""Place of every code point in the alphabet (0 outside); bits of the pairs of the alphabet that
occur in pieces; pairs of symbols that merge, by hash, each beside the symbol that it makes and
(32 bits) that one's rank, so that a pair is one look into memory; rank of every symbol (lower
merges first), -1 for one that is no piece; whether two bytes are cut apart, see :func:`find_cuts`.
The alphabet's characters are the first symbols, in their order."""

Kept = tuple[UInt64s, UInt64s, Int64s]
"""Chunks by hash, each with its count in the sixteenth byte; longer ones, each with its count in
the thirty-second byte; and how many there are of both."""


@borrowing
def _mix(value: np.uint64) -> np.uint64:
    """The finaliser of splitmix64."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@borrowing
def find_pair(pairs: UInt64s, left: int, right: int) -> int:
    """Slot of a pair of symbols, or the free one where it belongs."""
    key = (np.uint64(left) << np.uint64(32)) | np.uint64(right)
    mask = np.uint64(len(pairs) - 1)
    slot = _mix(key) & mask
    while pairs[slot, 0] != key and pairs[slot, 0] != np.uint64(0):
        slot = (slot + np.uint64(1)) & mask
    return int(slot)


@borrowing
def fill_pairs(pairs: UInt64s, merges: Int32s, ranks: Int32s) -> None:
    """Put rows of (left, right, merged) symbols into the table."""
    for row in range(len(merges)):
        slot = find_pair(pairs, merges[row, 0], merges[row, 1])
        pairs[slot, 0] = (np.uint64(merges[row, 0]) << np.uint64(32)) | np.uint64(merges[row, 1])
        symbol, rank = np.uint64(merges[row, 2]), np.uint64(ranks[merges[row, 2]])
        pairs[slot, 1] = (symbol << np.uint64(32)) | rank


@borrowing
def _width(byte: int) -> int:
    """Bytes of the UTF-8 character that begins with this one."""
    if byte < 0x80:
        return 1
    if byte < 0xE0:
        return 2
    return 3 if byte < 0xF0 else 4


@borrowing
def _letter(data: UInt8s, place: int, width: int, alphabet: UInt16s) -> int:
    """Place in the alphabet of the character that begins here."""
    if width == 1:
        return int(alphabet[data[place]])
    code = int(data[place]) & (0x7F >> width)
    for index in range(1, width):
        code = (code << 6) | (int(data[place + index]) & 0x3F)
    return int(alphabet[code])


@borrowing
def _merge_result(vocabulary: Vocabulary, left: int, right: int) -> tuple[int, int]:
    """The symbol that two make, and its rank."""
    pairs = vocabulary[2]
    slot = find_pair(pairs, left, right)
    if pairs[slot, 0] == np.uint64(0):
        return 0, _NONE
    found = pairs[slot, 1]
    return int(np.int64(found >> np.uint64(32))), int(np.int64(found & np.uint64(2**32 - 1)))


@borrowing
def _read_symbols(data: UInt8s, start: int, end: int, alphabet: UInt16s, work: Int32s) -> int:
    """Write a chunk's characters as symbols, and their widths; how many, or ``TOO_LONG``."""
    num = 0
    while start < end:
        width = _width(data[start])
        if num == MAX_CHUNK:
            return TOO_LONG
        work[0, num] = _letter(data, start, width, alphabet)
        work[3, num] = width
        start += width
        num += 1
    return num


@borrowing
def _merge_chunk(data: UInt8s, start: int, end: int, vocabulary: Vocabulary, work: Int32s) -> int:
    """Number of ids of one chunk.

    Always the best pair of neighbours is merged, the left one of equals: what the reference's queue
    does. ``work`` has rows for symbols, for what each makes with the next, its rank, and widths.
    """
    num = _read_symbols(data, start, end, vocabulary[0], work)
    if num < 0:
        return TOO_LONG
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
        count += 1 if vocabulary[3][work[0, place]] >= 0 else work[3, place]
    return count


@borrowing
def _hash_key(low: np.uint64, high: np.uint64) -> np.uint64:
    """Where a chunk is looked for; the lower bits are used."""
    product = (low * np.uint64(0x9E3779B97F4A7C15)) ^ (high * np.uint64(0xC2B2AE3D27D4EB4F))
    return product ^ (product >> np.uint64(29))


@borrowing
def _find_kept(keys: UInt64s, low: np.uint64, high: np.uint64) -> int:
    """Slot of a chunk, or the free one where it belongs; no chunk is empty."""
    mask = np.uint64(len(keys) - 1)
    slot = _hash_key(low, high) & mask
    while keys[slot, 0] != np.uint64(0) and (
        keys[slot, 0] != low or keys[slot, 1] & _KEY_PART != high
    ):
        slot = (slot + np.uint64(1)) & mask
    return int(slot)


@borrowing
def _is_cut(data: UInt8s, place: int, alphabet: UInt16s, joined: UInt8s) -> bool:
    """Whether no piece holds the character that begins here after the one before it."""
    start = place - 1
    while data[start] & 0xC0 == 0x80:
        start -= 1
    before = _letter(data, start, _width(data[start]), alphabet)
    letter = _letter(data, place, _width(data[place]), alphabet)
    return not (joined[before, letter >> 3] >> (letter & 7)) & 1


@borrowing
def find_cuts(alphabet: UInt16s, joined: UInt8s, symbol: int, cuts: UInt8s) -> None:
    """Fill the table of two bytes: 0 no cut between them, 1 a cut, 2 look at the characters.

    Two bytes as memory holds them: the second is the higher one. ``symbol`` are the two that begin
    what the tokenizer never splits, which have :data:`_BEGINS_SYMBOL` besides.
    """
    for before in range(256):
        for byte in range(256):
            if 0x80 <= byte < 0xC0:
                cuts[byte << 8 | before] = 0
            elif before >= 0x80 or byte >= 0x80:
                cuts[byte << 8 | before] = 2
            else:
                left, right = int(alphabet[before]), int(alphabet[byte])
                is_joined = (joined[left, right >> 3] >> (right & 7)) & 1
                cuts[byte << 8 | before] = 1 - is_joined
    cuts[symbol] |= _BEGINS_SYMBOL


@borrowing
def _cut_text(
    data: UInt8s, span: Int64s, vocabulary: Vocabulary, stops: Int32s
) -> tuple[int, np.uint8]:
    """Write where the chunks of a text end; how many there are, and what its cuts were.

    Every place is written and then kept or not, and whether characters have to be looked at is
    asked once a block: without a branch that guesses byte by byte, and with places that cannot be
    negative, which would be asked of each.
    """
    alphabet, joined, cuts = vocabulary[0], vocabulary[1], vocabulary[4]
    one, num, end = np.uint64(1), np.uint64(0), np.uint64(span[1])
    block, all_seen = np.uint64(span[0]) + one, np.uint8(0)
    while block < end:
        stop, first, seen = min(block + _BLOCK, end), num, np.uint8(0)
        for place in range(block, stop):
            cut = cuts[np.uint64(load_two(data, np.int64(place - one)))]
            stops[num] = place
            num += np.uint64(cut & np.uint8(1))
            seen |= cut
        if seen & np.uint8(2):
            num = first
            for place in range(block, stop):
                cut = cuts[np.uint64(load_two(data, np.int64(place - one)))]
                if cut == 2:
                    cut = np.uint8(_is_cut(data, int(np.int64(place)), alphabet, joined))
                stops[num] = place
                num += np.uint64(cut & np.uint8(1))
        block = stop
        all_seen |= seen
    stops[num] = end
    return int(np.int64(num)) + 1, all_seen


@borrowing
def _key_of(data: UInt8s, start: Any, end: Any) -> tuple[np.uint64, np.uint64]:
    """The bytes of a chunk of at most 15 as two numbers; 32 bytes must follow the last chunk."""
    eight, size = np.uint64(8), np.uint64(end - start)
    # A shift by 64 is none: the first half is never shifted out whole, the second never in.
    low = _ALL >> (eight * (eight - min(size, eight)))
    high = (np.uint64(1) << (eight * (max(size, eight) - eight))) - np.uint64(1)
    return load_eight(data, np.int64(start)) & low, load_eight(data, np.int64(start) + 8) & high


@borrowing
def _count_long(
    data: UInt8s, span: tuple[int, int], vocabulary: Vocabulary, kept: Kept, work: Int32s
) -> int:
    """Number of ids of a chunk of 16 bytes or more, kept if it has a key."""
    start, end = span
    if end - start > LONG_KEY_BYTES or data[start] == 0:
        return _merge_chunk(data, start, end, vocabulary, work)
    keys, used = kept[1], kept[2]
    if used[1] * 2 > len(keys):
        keys[:], used[1] = np.uint64(0), 0
    first, second = load_eight(data, start), load_eight(data, start + 8)
    low, high = _key_of(data, start + 16, end)
    mask = np.uint64(len(keys) - 1)
    slot = (_hash_key(first, second) + _hash_key(low, high)) & mask
    while keys[slot, 0] != np.uint64(0):
        if (
            keys[slot, 0] == first
            and keys[slot, 1] == second
            and keys[slot, 2] == low
            and keys[slot, 3] & _KEY_PART == high
        ):
            return int(np.int64(keys[slot, 3] >> np.uint64(56)))
        slot = (slot + np.uint64(1)) & mask
    count = _merge_chunk(data, start, end, vocabulary, work)
    keys[slot, 0], keys[slot, 1], keys[slot, 2] = first, second, low
    keys[slot, 3] = high | (np.uint64(count) << np.uint64(56))
    used[1] += 1
    return count


@borrowing
def _count_short(
    data: UInt8s, span: tuple[int, int], vocabulary: Vocabulary, kept: Kept, work: Int32s
) -> int:
    """Number of ids of a chunk of at most 15 bytes that was not kept; it is now."""
    start, end = span
    count = _merge_chunk(data, start, end, vocabulary, work)
    if data[start] != 0:
        keys, used = kept[0], kept[2]
        if used[0] * 2 > len(keys):
            keys[:], used[0] = np.uint64(0), 0
        low, high = _key_of(data, start, end)
        slot = _find_kept(keys, low, high)
        keys[slot, 0], keys[slot, 1] = low, high | (np.uint64(count) << np.uint64(56))
        used[0] += 1
    return count


@borrowing
def _list_looks(
    data: UInt8s, start: np.uint64, stops: Int32s, keys: UInt64s, looks: UInt64s
) -> None:
    """Write both halves and the slot of each of the next chunks, if it is a short one."""
    mask, longest = np.uint64(len(keys) - 1), np.uint64(KEY_BYTES)
    for place in range(np.uint64(len(stops))):
        stop = np.uint64(stops[place])
        low, high = _key_of(data, start, min(stop, start + longest))
        slot = _hash_key(low, high) & mask
        looks[place, 0], looks[place, 1], looks[place, 2] = low, high, slot
        # The table does not stay near while other work is done on a slice of rows.
        prefetch(keys, slot)
        start = stop


@compiled
def count_ids(
    data: UInt8s,
    spans: Int64s,
    vocabulary: Vocabulary,
    kept: Kept,
    found: tuple[Int64s, UInt8s],
) -> None:
    """Number of ids of every text, or :data:`TOO_LONG` where a chunk is.

    Args:
        data: UTF-8 of all texts.
        spans: Where each text begins and ends.
        vocabulary: What is merged.
        kept: Counts of chunks met before; more are added.
        found: Written for each text: its number, and whether it may hold a symbol that the
            tokenizer never splits, whose text has another number.
    """
    keys, (totals, may_hold_symbols) = kept[0], found
    mask = np.uint64(len(keys) - 1)
    longest = 1
    for text in range(len(spans)):
        longest = max(longest, spans[text, 1] - spans[text, 0])
    stops = np.empty(longest, np.int32)
    work = np.empty((4, MAX_CHUNK + 1), np.int32)
    looks = np.empty((_CHUNKS_AT_ONCE, 3), np.uint64)
    for text in range(len(spans)):
        start, total, count, num = np.uint64(spans[text, 0]), 0, 0, 0
        if spans[text, 0] < spans[text, 1]:
            num, seen = _cut_text(data, spans[text], vocabulary, stops)
            may_hold_symbols[text] = seen & _BEGINS_SYMBOL
        for first in range(np.uint64(0), np.uint64(num), np.uint64(_CHUNKS_AT_ONCE)):
            size = min(np.uint64(_CHUNKS_AT_ONCE), np.uint64(num) - first)
            _list_looks(data, start, stops[first : first + size], keys, looks)
            for place in range(size):
                stop = np.uint64(stops[first + place])
                here = (int(np.int64(start)), int(np.int64(stop)))
                if stop - start <= np.uint64(KEY_BYTES):
                    low, high, slot = looks[place, 0], looks[place, 1], looks[place, 2]
                    beside = (slot + np.uint64(1)) & mask
                    is_here = (keys[slot, 0] == low) & (keys[slot, 1] & _KEY_PART == high)
                    is_beside = (keys[beside, 0] == low) & (keys[beside, 1] & _KEY_PART == high)
                    value = keys[slot, 1] if is_here else keys[beside, 1]
                    # A tenth of the chunks lie one slot on, which no branch can guess.
                    if not (is_here | is_beside):
                        value = keys[_find_kept(keys, low, high), 1]
                    # 0 where there is none: that is what a free slot holds.
                    count = int(np.int64(value >> np.uint64(56)))
                    if count == 0:
                        count = _count_short(data, here, vocabulary, kept, work)
                else:
                    count = _count_long(data, here, vocabulary, kept, work)
                    if count < 0:
                        break
                total += count
                start = stop
            if count < 0:
                total = TOO_LONG
                break
        totals[text] = total
