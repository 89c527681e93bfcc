"""Which benchmark items a text may hold: n-grams and shared features of all texts in one pass.

A text comes as word hashes. Each word is looked up once: its *form* (what n-grams see), its
feature (what likens rewordings), and whether it may stand in a formula. Everything an item is found
by lies in posting lists; an item becomes a candidate when enough of it was seen. What is decided
here only has to miss nothing that :mod:`pipeline.contamination_rules` would find.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.kernels.compiling import compiled

UInt8s = npt.NDArray[np.uint8]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Float32s = npt.NDArray[np.float32]

WEIGHTLESS, UNKNOWN = -1, -2
"""Features of stop words, and of words that neither the items nor ordinary problems hold."""
SAYS = 2
"""Part of a word that says something in a formula; more: so many variables besides."""
MOST_VARIABLES = 3
_WORD, _NUMBER, _SIGN = 0, 1, 2
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

Table = tuple[UInt64s, Int32s]
"""Open addressing: keys (0 where free) and values; a power of two long."""
Lists = tuple[Int64s, Int32s]
"""Posting lists: where each begins, and all of them."""


@compiled
def mix(value: np.uint64) -> np.uint64:
    """The finaliser of splitmix64."""
    value += np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def fill(table: Table, keys: UInt64s, values: Int32s) -> None:
    """Put keys into an empty table; the first of equal keys stays."""
    mask = np.uint64(len(table[0]) - 1)
    for index in range(len(keys)):
        key = keys[index] | np.uint64(1)
        place = mix(key) & mask
        while table[0][place] != np.uint64(0) and table[0][place] != key:
            place = (place + np.uint64(1)) & mask
        if table[0][place] == np.uint64(0):
            table[0][place] = key
            table[1][place] = values[index]


@compiled
def look_up(table: Table, key: np.uint64) -> int:
    """The value of a key, or -1."""
    mask = np.uint64(len(table[0]) - 1)
    key |= np.uint64(1)
    place = mix(key) & mask
    while table[0][place] != np.uint64(0):
        if table[0][place] == key:
            return int(table[1][place])
        place = (place + np.uint64(1)) & mask
    return -1


@compiled
def join(forms: UInt64s, start: int, n: int) -> np.uint64:
    """Hash of the n forms from a place."""
    value = np.uint64(0)
    for index in range(start, start + n):
        value = (value ^ forms[index]) * _MULTIPLIER
        value ^= value >> np.uint64(29)
    return mix(value)


@compiled
def level(
    hashes: UInt64s,
    kinds: UInt8s,
    words: tuple[UInt64s, Int32s, UInt64s, Int32s, UInt8s],
    triples: Table,
    out: tuple[UInt64s, Int32s, Int32s],
) -> int:
    """Forms, features and triples (the feature that ends at a place) of one text; how many.

    Args:
        hashes: Of the text's words.
        kinds: Word, number or operator.
        words: Table from word to entry; each entry's form, feature, and part: whether it may stand
            in a formula (1), says something there (2), or is so many variables written together.
        triples: Table from three forms to a feature.
        out: Room for forms, features and triples, :data:`MOST_VARIABLES` a word.
    """
    forms, features, ends = out
    table = (words[0], words[1])
    count, run, says = 0, 0, -3
    for index in range(len(hashes)):
        entry = look_up(table, hashes[index])
        repeats = 1
        if entry < 0:
            form = hashes[index]
            feature = WEIGHTLESS if kinds[index] == _SIGN else UNKNOWN
            part = 0 if kinds[index] == _WORD else SAYS
        else:
            form, feature, part = words[2][entry], words[3][entry], int(words[4][entry])
            if part > SAYS:
                repeats = part - SAYS
        for _ in range(repeats):
            forms[count], features[count], ends[count] = form, feature, WEIGHTLESS
            run = run + 1 if part else 0
            if part == SAYS:
                says = count
            if run >= 3 and says > count - 3:
                found = look_up(triples, join(forms, count - 2, 3))
                ends[count] = found if found >= 0 else UNKNOWN
            count += 1
    return count


@compiled
def write_grams(forms: UInt64s, n: int, out: UInt64s) -> None:
    """Hashes of all n-grams of a text."""
    for index in range(len(forms) - n + 1):
        out[index] = join(forms, index, n)


@compiled
def _count_grams(
    forms: UInt64s, n: int, grams: Table, postings: Lists, state: tuple[Int32s, Int64s, int]
) -> None:
    """How many of each item's distinct n-grams the text has."""
    hits, seen, stamp = state
    for index in range(len(forms) - n + 1):
        gram = look_up(grams, join(forms, index, n))
        if gram < 0 or seen[gram] == stamp:
            continue
        seen[gram] = stamp
        for place in range(postings[0][gram], postings[0][gram + 1]):
            hits[postings[1][place]] += 1


@compiled
def _add_features(
    features: Int32s, weights: Float32s, postings: Lists, state: tuple[Float32s, Int64s, int]
) -> float:
    """Add each distinct feature's weight to the items that have it; the weight of all of them."""
    shared, seen, stamp = state
    total = 0.0
    for index in range(len(features)):
        feature = features[index]
        if feature < 0 or seen[feature] == stamp:
            continue
        seen[feature] = stamp
        total += weights[feature]
        for place in range(postings[0][feature], postings[0][feature + 1]):
            shared[postings[1][place]] += weights[feature]
    return total


@compiled
def _is_reworded(
    shared: float, weight: float, text_weight: float, marks: tuple[Float32s, Float32s]
) -> bool:
    """Whether so much in common is enough, for a whole text or at best for a window of it."""
    if shared < marks[0][0]:
        return False
    if 2 * shared >= _mark(shared, marks[0]) * (weight + text_weight):
        return True
    return shared >= marks[1][0] and 2 * shared >= _mark(shared, marks[1]) * (weight + shared)


@compiled
def _mark(shared: float, marks: Float32s) -> float:
    """Value between pairs of weight and similarity."""
    for index in range(2, len(marks), 2):
        if shared < marks[index]:
            part = (shared - marks[index - 2]) / (marks[index] - marks[index - 2])
            return float(marks[index - 1] + (marks[index + 1] - marks[index - 1]) * part)
    return float(marks[len(marks) - 1])


@compiled
def _lacks_numbers(
    item: int, numbers: Lists, weights: Float32s, state: tuple[Int64s, int], most: float
) -> bool:
    """Whether an item's numbers of more than this weight are missing."""
    seen, stamp = state
    missing = 0.0
    for place in range(numbers[0][item], numbers[0][item + 1]):
        feature = numbers[1][place]
        if seen[feature] != stamp:
            missing += weights[feature]
    return missing > most


@compiled
def _find_short(
    words: UInt64s, starts: Table, nexts: Int32s, items: tuple[UInt64s, Int64s], hits: Int32s
) -> None:
    """Mark the short items that a text holds word by word."""
    for place in range(len(words)):
        item = look_up(starts, words[place])
        while item >= 0:
            first, end = items[1][item], items[1][item + 1]
            index = 0
            while index < end - first and place + index < len(words):
                if words[place + index] != items[0][first + index]:
                    break
                index += 1
            if index == end - first:
                hits[item] = -1
            item = nexts[item]


@compiled
def scan(
    texts: tuple[UInt64s, UInt8s, Int64s],
    words: tuple[UInt64s, Int32s, UInt64s, Int32s, UInt8s],
    tables: tuple[UInt64s, Int32s, UInt64s, Int32s, UInt64s, Int32s],
    lists: tuple[Int64s, Int32s, Int64s, Int32s, Int64s, Int32s, Int32s, UInt64s, Int64s],
    rules: tuple[
        int, float, float, Float32s, Float32s, Float32s, Float32s, Float32s, UInt8s, Int32s
    ],
) -> tuple[Int64s, Int32s]:
    """Texts and the items that each may hold, as pairs.

    Args:
        texts: Word hashes and kinds of all texts, and where each text begins.
        words: As :func:`level` takes them.
        tables: Three tables: triples, n-grams, first words of short items.
        lists: Items by n-gram and by feature, numbers by item; next short item with the same first
            word; words of all items and where each item's begin.
        rules: Words of an n-gram, least coverage, weight of numbers that may be missing, marks for
            whole texts, for those of programming tasks and for windows, weights of features and of
            items, which items are programming tasks, and how many n-grams each item has.
    """
    hashes, kinds, offsets = texts
    n, least, missing, whole, tasks, inside, weights, item_weights, is_task, sizes = rules
    num_items = len(sizes)
    hits, shared = np.zeros(num_items, np.int32), np.zeros(num_items, np.float32)
    seen_grams = np.zeros(len(lists[0]), np.int64)
    seen = np.zeros(len(weights), np.int64)
    longest = 1
    for text in range(len(offsets) - 1):
        longest = max(longest, MOST_VARIABLES * (offsets[text + 1] - offsets[text]))
    forms, features = np.empty(longest, np.uint64), np.empty(longest, np.int32)
    ends = np.empty(longest, np.int32)
    found_texts, found_items = [np.int64(0)], [np.int32(0)]
    for text in range(len(offsets) - 1):
        start, end = offsets[text], offsets[text + 1]
        stamp, triples = text + 1, (tables[0], tables[1])
        room = (forms, features, ends)
        size = level(hashes[start:end], kinds[start:end], words, triples, room)
        here = (forms[:size], features[:size], ends[:size])
        hits[:], shared[:] = 0, 0.0
        _find_short(hashes[start:end], (tables[4], tables[5]), lists[6], (lists[7], lists[8]), hits)
        grams = (lists[0], lists[1])
        _count_grams(here[0], n, (tables[2], tables[3]), grams, (hits, seen_grams, stamp))
        postings = (lists[2], lists[3])
        words_weight = _add_features(here[1], weights, postings, (shared, seen, stamp))
        all_weight = words_weight + _add_features(here[2], weights, postings, (shared, seen, stamp))
        for item in range(num_items):
            is_covered = hits[item] < 0 or (sizes[item] > 0 and hits[item] >= least * sizes[item])
            if not is_covered:
                if shared[item] < whole[0]:
                    continue
                marks = (tasks, inside) if is_task[item] else (whole, inside)
                weight = words_weight if is_task[item] else all_weight
                if not _is_reworded(shared[item], item_weights[item], weight, marks):
                    continue
                if _lacks_numbers(item, (lists[4], lists[5]), weights, (seen, stamp), missing):
                    continue
            found_texts.append(np.int64(text))
            found_items.append(np.int32(item))
    return np.array(found_texts[1:]), np.array(found_items[1:])
