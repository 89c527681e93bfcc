"""Compiled look-up of the chunks of a text, and the copying of their ids.

A chunk is what lies between two places where no piece of the vocabulary could reach across. Which
ids it has is not decided here: whoever calls asks the tokenizer itself, once for each new chunk.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.kernels.compiling import compiled

UInt8s = npt.NDArray[np.uint8]
UInt16s = npt.NDArray[np.uint16]
UInt64s = npt.NDArray[np.uint64]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

FULL = -1

Entries = tuple[Int32s, UInt64s, Int64s, UInt8s, Int64s]
"""Known chunks: entry of each slot of the hash table (-1 where free); hash of each entry; where its
bytes begin, with the end of the last; the bytes; and how many entries there are."""


@compiled
def _find_or_add(data: UInt8s, start: int, end: int, digest: np.uint64, entries: Entries) -> int:
    """The entry of a chunk, new if need be, or ``FULL``; equal bytes decide, not equal hashes."""
    slots, digests, starts, known, num = entries
    mask = np.uint64(len(slots) - 1)
    slot = (digest ^ (digest >> np.uint64(32))) & mask
    size = end - start
    while slots[slot] >= 0:
        entry = slots[slot]
        if digests[entry] == digest and starts[entry + 1] - starts[entry] == size:
            first, place = starts[entry], 0
            while place < size and known[first + place] == data[start + place]:
                place += 1
            if place == size:
                return int(entry)
        slot = (slot + np.uint64(1)) & mask
    entry = num[0]
    first = starts[entry]
    if entry + 2 > len(starts) or 2 * entry > len(slots) or first + size > len(known):
        return FULL
    slots[slot] = entry
    digests[entry] = digest
    known[first : first + size] = data[start:end]
    starts[entry + 1] = first + size
    num[0] = entry + 1
    return int(entry)


@compiled
def find_chunks(data: UInt8s, spans: Int64s, cuts: UInt8s, entries: Entries, found: Int32s) -> int:
    """Write the entry of every chunk of all texts; returns how many, or ``FULL``.

    Args:
        data: UTF-8 of all texts.
        spans: Where each text begins and ends (texts, 2); written: how many chunks the texts have
            up to and with this one, in a third column.
        cuts: Whether two bytes that follow each other are in different chunks, by ``b1 << 8 | b2``.
        entries: Known chunks; new ones are added.
        found: Written; as long as ``data``.
    """
    total = 0
    for text in range(len(spans)):
        start, end = spans[text, 0], spans[text, 1]
        digest = np.uint64(0xCBF29CE484222325)
        for place in range(start, end):
            byte = data[place]
            digest = (digest ^ np.uint64(byte)) * np.uint64(0x100000001B3)
            if place + 1 == end or cuts[int(byte) << 8 | int(data[place + 1])]:
                entry = _find_or_add(data, start, place + 1, digest, entries)
                if entry < 0:
                    return FULL
                found[total] = entry
                total += 1
                start = place + 1
                digest = np.uint64(0xCBF29CE484222325)
        spans[text, 2] = total
    return total


@compiled
def copy_ids(found: Int32s, starts: Int64s, ids: UInt16s, spans: Int64s, out: UInt16s) -> None:
    """Write the ids of all chunks one after the other; those of text ``t`` end at ``spans[t, 2]``.

    Args:
        found: Entries of the chunks.
        starts: Where the ids of each entry begin, with the end of the last.
        ids: Ids of all entries.
        spans: As :func:`find_chunks` left them; its third column becomes the number of ids up to
            and with each text.
        out: Written; long enough.
    """
    chunk, total = 0, 0
    for text in range(len(spans)):
        while chunk < spans[text, 2]:
            entry = found[chunk]
            for place in range(starts[entry], starts[entry + 1]):
                out[total] = ids[place]
                total += 1
            chunk += 1
        spans[text, 2] = total
