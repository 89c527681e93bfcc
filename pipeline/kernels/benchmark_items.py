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
Grams = tuple[UInt64s, UInt64s, Int32s]
"""A filter of keys, see :func:`fill_filter`, and their table."""
Lists = tuple[Int64s, Int32s]
"""Posting lists: where each begins, and all of them."""
State = tuple[Int64s, Int32s, int]
"""What was seen in which text, room for the items that are touched, and the text's number."""
Front = tuple[UInt64s, UInt64s, Int32s, UInt8s]
"""Words met last: hash, form, feature and part. Texts say the same few thousand words again and
again, and these arrays stay in the processor's cache, which the table of a million does not."""
_FRONT = 1 << 12


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
    """Hash of the n forms from a place: a polynomial of them, so that it can roll, then mixed."""
    value = np.uint64(0)
    for index in range(start, start + n):
        value = value * _MULTIPLIER + forms[index]
    return mix(value)


@compiled
def _make_front() -> Front:
    """Room for the words met last, empty."""
    return (
        np.zeros(_FRONT, np.uint64),
        np.zeros(_FRONT, np.uint64),
        np.zeros(_FRONT, np.int32),
        np.zeros(_FRONT, np.uint8),
    )


@compiled
def _fetch(
    word: np.uint64,
    kind: int,
    words: tuple[UInt64s, Int32s, UInt64s, Int32s, UInt8s],
    front: Front,
) -> int:
    """Place in the front of what a word means, read from the table if it is not there."""
    place = int(word >> np.uint64(52))
    # Of one hash, two kinds of words would be mistaken for each other.
    key = word ^ np.uint64(kind)
    if front[0][place] == key:
        return place
    entry = look_up((words[0], words[1]), word)
    if entry < 0:
        front[1][place] = word
        front[2][place] = WEIGHTLESS if kind == _SIGN else UNKNOWN
        front[3][place] = 0 if kind == _WORD else SAYS
    else:
        front[1][place] = words[2][entry]
        front[2][place] = words[3][entry]
        front[3][place] = words[4][entry]
    front[0][place] = key
    return place


@compiled
def level(
    hashes: UInt64s,
    kinds: UInt8s,
    words: tuple[UInt64s, Int32s, UInt64s, Int32s, UInt8s],
    triples: Table,
    out: tuple[UInt64s, Int32s, Int32s],
    front: Front,
) -> int:
    """Forms, features and triples (the feature that ends at a place) of one text; how many.

    Args:
        hashes: Of the text's words.
        kinds: Word, number or operator.
        words: Table from word to entry; each entry's form, feature, and part: whether it may stand
            in a formula (1), says something there (2), or is so many variables written together.
        triples: Table from three forms to a feature.
        out: Room for forms, features and triples, :data:`MOST_VARIABLES` a word.
        front: Words met before; more are added.
    """
    forms, features, ends = out
    count, run, says = 0, 0, -3
    for index in range(len(hashes)):
        place = _fetch(hashes[index], kinds[index], words, front)
        form, feature, part = front[1][place], front[2][place], int(front[3][place])
        repeats = part - SAYS if part > SAYS else 1
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
def level_one(
    hashes: UInt64s,
    kinds: UInt8s,
    words: tuple[UInt64s, Int32s, UInt64s, Int32s, UInt8s],
    triples: Table,
    out: tuple[UInt64s, Int32s, Int32s],
) -> int:
    """As :func:`level`, of a single text."""
    return level(hashes, kinds, words, triples, out, _make_front())


@compiled
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


@compiled
def fill_filter(bits: UInt64s, keys: UInt64s) -> None:
    """Mark keys in a bit a key; what has no mark is none of them."""
    mask = np.uint64(64 * len(bits) - 1)
    for index in range(len(keys)):
        bit = keys[index] & mask
        bits[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))


@compiled
def _count_grams(grams: UInt64s, known: Grams, postings: Lists, hits: Int32s, state: State) -> int:
    """Count how many of each item's distinct n-grams the text has; how many items are touched."""
    bits, table = known[0], (known[1], known[2])
    seen, touched, stamp = state[0], state[1], state[2]
    mask, num = np.uint64(64 * len(bits) - 1), 0
    for index in range(len(grams)):
        bit = grams[index] & mask
        # Nearly every n-gram ends here, without a look into a table that no cache holds.
        if not (bits[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1):
            continue
        gram = look_up(table, grams[index])
        if gram < 0 or seen[gram] == stamp:
            continue
        seen[gram] = stamp
        for place in range(postings[0][gram], postings[0][gram + 1]):
            item = postings[1][place]
            if hits[item] == 0:
                touched[num] = item
                num += 1
            hits[item] += 1
    return num


@compiled
def _add_features(
    features: Int32s,
    weights: Float32s,
    postings: Lists,
    shared: Float32s,
    state: State,
    num: int,
) -> tuple[float, int]:
    """Add the weight of each feature not seen yet to the items that hold it as a rare one.

    Returns the weight of all these features, and how many items are touched.
    """
    seen, touched, stamp = state[0], state[1], state[2]
    total = 0.0
    for index in range(len(features)):
        feature = features[index]
        if feature < 0 or seen[feature] == stamp:
            continue
        seen[feature] = stamp
        total += weights[feature]
        for place in range(postings[0][feature], postings[0][feature + 1]):
            item = postings[1][place]
            if shared[item] == 0.0:
                touched[num] = item
                num += 1
            shared[item] += weights[feature]
    return total, num


@compiled
def _weigh_shared(item: int, features: Lists, weights: Float32s, seen: Int64s, stamp: int) -> float:
    """Weight of an item's features that the text has."""
    shared = np.float32(0.0)
    for place in range(features[0][item], features[0][item + 1]):
        feature = features[1][place]
        if seen[feature] == stamp:
            shared += weights[feature]
    return float(shared)


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
    words: UInt64s, starts: Grams, nexts: Int32s, items: tuple[UInt64s, Int64s], found: Int32s
) -> int:
    """List the short items that a text holds word by word; how many."""
    bits, table = starts[0], (starts[1], starts[2])
    mask, num = np.uint64(64 * len(bits) - 1), 0
    for place in range(len(words)):
        bit = words[place] & mask
        if not (bits[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1):
            continue
        item = look_up(table, words[place])
        while item >= 0:
            first, end = items[1][item], items[1][item + 1]
            index = 0
            while index < end - first and place + index < len(words):
                if words[place + index] != items[0][first + index]:
                    break
                index += 1
            if index == end - first:
                is_new = True
                for before in range(num):
                    is_new = is_new and found[before] != item
                if is_new:
                    found[num] = item
                    num += 1
            item = nexts[item]
    return num


@compiled
def scan(
    texts: tuple[UInt64s, UInt8s, Int64s],
    words: tuple[UInt64s, Int32s, UInt64s, Int32s, UInt8s],
    tables: tuple[UInt64s, Int32s, UInt64s, UInt64s, Int32s, UInt64s, UInt64s, Int32s],
    lists: tuple[
        Int64s, Int32s, Int64s, Int32s, Int64s, Int32s, Int64s, Int32s, Int32s, UInt64s, Int64s
    ],
    rules: tuple[
        int,
        float,
        float,
        Float32s,
        Float32s,
        Float32s,
        Float32s,
        Float32s,
        UInt8s,
        Int32s,
        Float32s,
    ],
) -> tuple[Int64s, Int32s]:
    """Texts and the items that each may hold, as pairs.

    Args:
        texts: Word hashes and kinds of all texts, and where each text begins.
        words: As :func:`level` takes them.
        tables: The table of triples; filter and table of n-grams; filter and table of the first
            words of short items.
        lists: Items by n-gram; items by rare feature (what is left out of an item weighs less than
            a rewording of it must share); features by item; numbers by item; next short item with
            the same first word; words of all items and where each item's begin.
        rules: Words of an n-gram, least coverage, weight of numbers that may be missing, marks for
            whole texts, for those of programming tasks and for windows, weights of features and of
            items, which items are programming tasks, how many n-grams each item has, and the
            weight of rare features that it must share.
    """
    hashes, kinds, offsets = texts
    n, least, missing, whole, tasks, inside, weights, item_weights, is_task, sizes = rules[:10]
    least_rare = rules[10]
    num_items = len(sizes)
    hits, shared = np.zeros(num_items, np.int32), np.zeros(num_items, np.float32)
    seen_grams = np.zeros(max(len(lists[0]), num_items), np.int64)
    seen_items = np.zeros(num_items, np.int64)
    seen = np.zeros(len(weights), np.int64)
    covered, touched = np.empty(num_items, np.int32), np.empty(num_items, np.int32)
    longest = 1
    for text in range(len(offsets) - 1):
        longest = max(longest, MOST_VARIABLES * (offsets[text + 1] - offsets[text]))
    forms, features = np.empty(longest, np.uint64), np.empty(longest, np.int32)
    ends, grams = np.empty(longest, np.int32), np.empty(longest, np.uint64)
    front = _make_front()
    found_texts, found_items = [np.int64(0)], [np.int32(0)]
    for text in range(len(offsets) - 1):
        start, end = offsets[text], offsets[text + 1]
        stamp, triples = text + 1, (tables[0], tables[1])
        size = level(
            hashes[start:end], kinds[start:end], words, triples, (forms, features, ends), front
        )
        first_words = (tables[5], tables[6], tables[7])
        num = _find_short(hashes[start:end], first_words, lists[8], (lists[9], lists[10]), covered)
        for index in range(num):
            found_texts.append(np.int64(text))
            found_items.append(covered[index])
            seen_items[covered[index]] = stamp
        num_grams = max(0, size - n + 1)
        write_grams(forms[:size], n, grams)
        known = (tables[2], tables[3], tables[4])
        state = (seen_grams, touched, stamp)
        num = _count_grams(grams[:num_grams], known, (lists[0], lists[1]), hits, state)
        for index in range(num):
            item = touched[index]
            if seen_items[item] != stamp and hits[item] >= least * sizes[item]:
                found_texts.append(np.int64(text))
                found_items.append(item)
                seen_items[item] = stamp
            hits[item] = 0
        if whole[0] == np.inf:
            continue
        rare, of_item = (lists[2], lists[3]), (lists[4], lists[5])
        state = (seen, touched, stamp)
        words_weight, num = _add_features(features[:size], weights, rare, shared, state, 0)
        ends_weight, num = _add_features(ends[:size], weights, rare, shared, state, num)
        all_weight = words_weight + ends_weight
        for index in range(num):
            item = touched[index]
            most = shared[item]
            shared[item] = 0.0
            if most < least_rare[item] or seen_items[item] == stamp:
                continue
            most = _weigh_shared(item, of_item, weights, seen, stamp)
            if most < whole[0]:
                continue
            marks = (tasks, inside) if is_task[item] else (whole, inside)
            weight = words_weight if is_task[item] else all_weight
            if not _is_reworded(most, item_weights[item], weight, marks):
                continue
            if _lacks_numbers(item, (lists[6], lists[7]), weights, (seen, stamp), missing):
                continue
            found_texts.append(np.int64(text))
            found_items.append(item)
    return np.array(found_texts[1:]), np.array(found_items[1:])
