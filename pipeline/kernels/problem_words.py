"""What every word of a problem means: its form, its feature, and what it is in a formula.

A text comes as word hashes. Each word is looked up once: its *form* is what n-grams see, its
*feature* what likens rewordings. :mod:`pipeline.kernels.benchmark_items` searches the result.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.kernels.compiling import borrowing, compiled

UInt8s = npt.NDArray[np.uint8]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

WEIGHTLESS, UNKNOWN = -1, -2
"""Features of stop words, and of words that neither the items nor ordinary problems hold."""
SAYS = 2
"""Part of a word that says something in a formula; more: so many variables besides."""
MOST_VARIABLES = 3
_WORD, _NUMBER, _SIGN = 0, 1, 2
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FRONT_BITS = 15
_LOW = np.uint64(0xFFFFFFFF)

Table = tuple[UInt64s, Int32s]
"""Open addressing: keys (0 where free) and values; a power of two long."""
Front = tuple[UInt64s, UInt64s, Int32s, UInt8s]
"""Words met last: hash, form, feature and part. Texts say the same few thousand words again and
again, and these 700 kB stay in the processor's cache, which the table of a million does not. Kept
from one call to the next; a front goes with one set of words."""


def make_front() -> Front:
    """An empty front."""
    size = 1 << _FRONT_BITS
    return (
        np.zeros(size, np.uint64),
        np.zeros(size, np.uint64),
        np.zeros(size, np.int32),
        np.zeros(size, np.uint8),
    )


class Words(NamedTuple):
    """All words that mean something."""

    cells: UInt64s
    """Open addressing, a power of two of rows: a word's hash (0 where free), its form, and its
    feature (32 bits) and part together, side by side, so that a word is one look into memory. The
    part is whether it may stand in a formula (1), says something there (2), or is so many variables
    written together."""
    triple_keys: UInt64s
    """Table from three forms to a feature."""
    triples: Int32s


class Levelled(NamedTuple):
    """Words of many texts, one text after another."""

    forms: UInt64s
    features: Int32s
    ends: Int32s
    """The triple, as a feature, that ends at a place."""
    grams: UInt64s
    """Hash of the n-gram that begins at a place; nothing where none fits."""
    offsets: Int64s
    """Where each text begins, and where the last ends."""


@borrowing
def mix(value: np.uint64) -> np.uint64:
    """The finaliser of splitmix64."""
    value += np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@borrowing
def fill(table: Table, keys: UInt64s, values: Int32s) -> None:
    """Put hashes into an empty table; the first of equal ones stays."""
    mask = np.uint64(len(table[0]) - 1)
    for index in range(len(keys)):
        key = keys[index] | np.uint64(1)
        place = (key >> np.uint64(1)) & mask
        while table[0][place] != np.uint64(0) and table[0][place] != key:
            place = (place + np.uint64(1)) & mask
        if table[0][place] == np.uint64(0):
            table[0][place] = key
            table[1][place] = values[index]


@borrowing
def fill_words(
    cells: UInt64s, hashes: UInt64s, forms: UInt64s, features: Int32s, parts: UInt8s
) -> None:
    """Put words into empty cells; the first of equal ones stays."""
    mask = np.uint64(len(cells) - 1)
    for index in range(len(hashes)):
        key = hashes[index] | np.uint64(1)
        place = (key >> np.uint64(1)) & mask
        while cells[place, 0] != np.uint64(0) and cells[place, 0] != key:
            place = (place + np.uint64(1)) & mask
        if cells[place, 0] == np.uint64(0):
            cells[place, 0], cells[place, 1] = key, forms[index]
            feature = np.uint64(features[index]) & _LOW
            cells[place, 2] = feature | (np.uint64(parts[index]) << np.uint64(32))


@borrowing
def _look_up(table: Table, key: np.uint64) -> int:
    """The value of a hash, or -1."""
    mask = np.uint64(len(table[0]) - 1)
    key |= np.uint64(1)
    place = (key >> np.uint64(1)) & mask
    while table[0][place] != np.uint64(0):
        if table[0][place] == key:
            return int(table[1][place])
        place = (place + np.uint64(1)) & mask
    return -1


@borrowing
def join(forms: UInt64s, start: int, n: int) -> np.uint64:
    """Hash of the n forms from a place: a polynomial of them, so that it can roll, then mixed."""
    value = np.uint64(0)
    for index in range(start, start + n):
        value = value * _MULTIPLIER + forms[index]
    return mix(value)


@borrowing
def write_grams(forms: UInt64s, n: int, out: UInt64s) -> None:
    """Hashes of all n-grams of a text: :func:`join` of each place."""
    value, leaving = np.uint64(0), np.uint64(1)
    for index in range(min(n, len(forms) + 1) - 1):
        value = value * _MULTIPLIER + forms[index]
        leaving *= _MULTIPLIER
    for index in range(len(forms) - n + 1):
        value = value * _MULTIPLIER + forms[index + n - 1]
        out[index] = mix(value)
        value -= forms[index] * leaving


@borrowing
def _fetch(word: np.uint64, kind: int, words: Words, front: Front, place: int) -> None:
    """Read what a word means from the table to its place in the front."""
    mask = np.uint64(len(words.cells) - 1)
    wanted = word | np.uint64(1)
    cell = (wanted >> np.uint64(1)) & mask
    while words.cells[cell, 0] != np.uint64(0) and words.cells[cell, 0] != wanted:
        cell = (cell + np.uint64(1)) & mask
    if words.cells[cell, 0] == np.uint64(0):
        front[1][place] = word
        front[2][place] = WEIGHTLESS if kind == _SIGN else UNKNOWN
        front[3][place] = 0 if kind == _WORD else SAYS
    else:
        front[1][place] = words.cells[cell, 1]
        front[2][place] = np.int32(words.cells[cell, 2] & _LOW)
        front[3][place] = np.uint8(words.cells[cell, 2] >> np.uint64(32))


@borrowing
def _level_text(
    hashes: UInt64s, kinds: UInt8s, words: Words, front: Front, out: tuple[UInt64s, Int32s, Int32s]
) -> int:
    """Forms, features and triples of one text; how many."""
    forms, features, ends = out
    count, run, says = 0, 0, -3
    for index in range(len(hashes)):
        word, kind = hashes[index], kinds[index]
        place = int(word >> np.uint64(64 - _FRONT_BITS))
        # A number and a word of equal hash mean different things when they are unknown.
        key = word ^ np.uint64(kind)
        if front[0][place] != key:
            _fetch(word, kind, words, front, place)
            front[0][place] = key
        form, feature, part = front[1][place], front[2][place], int(front[3][place])
        repeats = part - SAYS if part > SAYS else 1
        for _ in range(repeats):
            forms[count], features[count], ends[count] = form, feature, WEIGHTLESS
            run = run + 1 if part else 0
            if part == SAYS:
                says = count
            if run >= 3 and says > count - 3:
                triple = join(forms, count - 2, 3)
                found = _look_up((words.triple_keys, words.triples), triple)
                ends[count] = found if found >= 0 else UNKNOWN
            count += 1
    return count


@compiled
def level(texts: tuple[UInt64s, UInt8s, Int64s], words: Words, front: Front, n: int) -> Levelled:
    """What all words of all texts mean.

    Args:
        texts: Hashes of all words; whether each is a word, a number or an operator; where each text
            begins, and where the last ends.
        words: What is known.
        front: Of these words; written.
        n: Words of an n-gram.
    """
    hashes, kinds, offsets = texts
    room = MOST_VARIABLES * len(hashes)
    forms, grams = np.empty(room, np.uint64), np.empty(room, np.uint64)
    features, ends = np.empty(room, np.int32), np.empty(room, np.int32)
    starts = np.zeros(len(offsets), np.int64)
    for text in range(len(offsets) - 1):
        first, last, start = offsets[text], offsets[text + 1], starts[text]
        out = (forms[start:], features[start:], ends[start:])
        size = _level_text(hashes[first:last], kinds[first:last], words, front, out)
        starts[text + 1] = start + size
        write_grams(forms[start : start + size], n, grams[start:])
    return Levelled(forms, features, ends, grams, starts)
