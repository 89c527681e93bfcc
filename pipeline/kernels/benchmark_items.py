"""Which benchmark items a text may hold: n-grams and shared features of all texts in one pass.

Everything an item is found by lies in posting lists; an item becomes a candidate when enough of it
was seen. What is decided here only has to miss nothing that :mod:`pipeline.contamination_rules`
would find.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.kernels.compiling import borrowing, compiled
from pipeline.kernels.problem_words import Levelled

UInt8s = npt.NDArray[np.uint8]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Float32s = npt.NDArray[np.float32]


class Tables(NamedTuple):
    """Tables of hashes, each behind a filter: what has no mark there is in no table."""

    gram_bits: UInt64s
    gram_keys: UInt64s
    grams: Int32s
    """Number of each n-gram."""
    first_bits: UInt64s
    first_keys: UInt64s
    firsts: Int32s
    """The short item that each first word begins."""


class Lists(NamedTuple):
    """Posting lists, each with where its lists begin in front."""

    of_gram: Int64s
    gram_items: Int32s
    of_rare: Int64s
    rare_items: Int32s
    """Items by rare feature: what is left out weighs less than a rewording must share."""
    of_item: Int64s
    features: Int32s
    of_numbers: Int64s
    numbers: Int32s
    """The features of each item that are numbers."""
    next_short: Int32s
    """The next short item with the same first word."""
    words: UInt64s
    of_words: Int64s
    """Word hashes of each item."""


class Rules(NamedTuple):
    """What makes a candidate."""

    ngram: int
    least_coverage: float
    most_missing: float
    """Weight of numbers that may be missing."""
    whole: Float32s
    """Pairs of shared weight and the likeness that it takes, for whole texts."""
    tasks: Float32s
    """The same for programming tasks."""
    inside: Float32s
    """The same for windows."""
    weights: Float32s
    """Of features."""
    item_weights: Float32s
    is_task: UInt8s
    num_grams: Int32s
    """Of each item."""
    least_rare: Float32s
    """Weight of rare features that a rewording of each item shares."""


class Work(NamedTuple):
    """Room for what one text has of every item; 2 MB for 3,000 items, hence kept between calls."""

    hits: Int32s
    shared: Float32s
    touched: Int32s
    """Items that have any, in the order of their first."""
    seen_grams: Int64s
    """The text that each n-gram was last seen in, from 1; the same for features and items."""
    seen_features: Int64s
    seen_items: Int64s
    found: Int32s
    num_texts: Int64s
    """One number: texts searched so far."""


def make_work(lists: Lists, rules: Rules) -> Work:
    """Empty room for the items of an index."""
    num_items = len(rules.num_grams)
    return Work(
        np.zeros(num_items, np.int32),
        np.zeros(num_items, np.float32),
        np.empty(num_items, np.int32),
        np.zeros(len(lists.of_gram), np.int64),
        np.zeros(len(rules.weights), np.int64),
        np.zeros(num_items, np.int64),
        np.empty(num_items, np.int32),
        np.zeros(1, np.int64),
    )


@borrowing
def fill_filter(bits: UInt64s, keys: UInt64s) -> None:
    """Mark keys in a bit a key."""
    mask = np.uint64(64 * len(bits) - 1)
    for index in range(len(keys)):
        bit = keys[index] & mask
        bits[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))


@borrowing
def _is_marked(bits: UInt64s, key: np.uint64) -> bool:
    bit = key & np.uint64(64 * len(bits) - 1)
    return bool((bits[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1))


@borrowing
def _look_up(keys: UInt64s, values: Int32s, key: np.uint64) -> int:
    """The value of a hash, or -1; filled by :func:`pipeline.kernels.problem_words.fill`."""
    mask = np.uint64(len(keys) - 1)
    key |= np.uint64(1)
    place = (key >> np.uint64(1)) & mask
    while keys[place] != np.uint64(0):
        if keys[place] == key:
            return int(values[place])
        place = (place + np.uint64(1)) & mask
    return -1


@borrowing
def _find_short(words: UInt64s, tables: Tables, lists: Lists, work: Work, stamp: int) -> int:
    """List the short items that a text holds word by word; how many."""
    num = 0
    for place in range(len(words)):
        if not _is_marked(tables.first_bits, words[place]):
            continue
        item = _look_up(tables.first_keys, tables.firsts, words[place])
        while item >= 0:
            first, end = lists.of_words[item], lists.of_words[item + 1]
            index = 0
            while index < end - first and place + index < len(words):
                if words[place + index] != lists.words[first + index]:
                    break
                index += 1
            if index == end - first and work.seen_items[item] != stamp:
                work.seen_items[item] = stamp
                work.found[num] = item
                num += 1
            item = lists.next_short[item]
    return num


@borrowing
def _count_grams(grams: UInt64s, tables: Tables, lists: Lists, work: Work, stamp: int) -> int:
    """Count how many of each item's distinct n-grams the text has; how many items are touched."""
    num = 0
    for index in range(len(grams)):
        # Nearly every n-gram ends here, without a look into a table that no cache holds.
        if not _is_marked(tables.gram_bits, grams[index]):
            continue
        gram = _look_up(tables.gram_keys, tables.grams, grams[index])
        if gram < 0 or work.seen_grams[gram] == stamp:
            continue
        work.seen_grams[gram] = stamp
        for place in range(lists.of_gram[gram], lists.of_gram[gram + 1]):
            item = lists.gram_items[place]
            if work.hits[item] == 0:
                work.touched[num] = item
                num += 1
            work.hits[item] += 1
    return num


@borrowing
def _find_covered(num_touched: int, rules: Rules, work: Work, stamp: int, num: int) -> int:
    """Add the items of which enough n-grams were seen to those found; how many there are."""
    for index in range(num_touched):
        item = work.touched[index]
        needed = rules.least_coverage * rules.num_grams[item]
        if work.seen_items[item] != stamp and work.hits[item] >= needed:
            work.seen_items[item] = stamp
            work.found[num] = item
            num += 1
        work.hits[item] = 0
    return num


@borrowing
def _add_features(
    features: Int32s, lists: Lists, weights: Float32s, work: Work, state: tuple[int, int]
) -> tuple[float, int]:
    """Add the weight of each feature not seen yet to the items that hold it as a rare one.

    Returns the weight of all these features, and how many items are touched.
    """
    stamp, num = state
    total = 0.0
    for index in range(len(features)):
        feature = features[index]
        if feature < 0 or work.seen_features[feature] == stamp:
            continue
        work.seen_features[feature] = stamp
        total += weights[feature]
        for place in range(lists.of_rare[feature], lists.of_rare[feature + 1]):
            item = lists.rare_items[place]
            if work.shared[item] == 0.0:
                work.touched[num] = item
                num += 1
            work.shared[item] += weights[feature]
    return total, num


@borrowing
def _weigh_shared(item: int, lists: Lists, weights: Float32s, work: Work, stamp: int) -> float:
    """Weight of an item's features that the text has."""
    shared = np.float32(0.0)
    for place in range(lists.of_item[item], lists.of_item[item + 1]):
        feature = lists.features[place]
        if work.seen_features[feature] == stamp:
            shared += weights[feature]
    return float(shared)


@borrowing
def _mark(shared: float, marks: Float32s) -> float:
    """Value between pairs of weight and similarity."""
    for index in range(2, len(marks), 2):
        if shared < marks[index]:
            part = (shared - marks[index - 2]) / (marks[index] - marks[index - 2])
            return float(marks[index - 1] + (marks[index + 1] - marks[index - 1]) * part)
    return float(marks[len(marks) - 1])


@borrowing
def _is_reworded(
    shared: float, weight: float, text_weight: float, whole: Float32s, inside: Float32s
) -> bool:
    """Whether so much in common is enough, for a whole text or at best for a window of it."""
    if shared < whole[0]:
        return False
    if 2 * shared >= _mark(shared, whole) * (weight + text_weight):
        return True
    return shared >= inside[0] and 2 * shared >= _mark(shared, inside) * (weight + shared)


@borrowing
def _lacks_numbers(item: int, lists: Lists, rules: Rules, work: Work, stamp: int) -> bool:
    """Whether an item's numbers of more weight than may be missing are."""
    missing = 0.0
    for place in range(lists.of_numbers[item], lists.of_numbers[item + 1]):
        feature = lists.numbers[place]
        if work.seen_features[feature] != stamp:
            missing += rules.weights[feature]
    return missing > rules.most_missing


@borrowing
def _find_reworded(
    text: tuple[Int32s, Int32s], lists: Lists, rules: Rules, work: Work, state: tuple[int, int]
) -> int:
    """Add the items that share enough features to those found; how many there are."""
    stamp, num = state
    weights = rules.weights
    words_weight, touched = _add_features(text[0], lists, weights, work, (stamp, 0))
    ends_weight, touched = _add_features(text[1], lists, weights, work, (stamp, touched))
    for index in range(touched):
        item = work.touched[index]
        rare = work.shared[item]
        work.shared[item] = 0.0
        if rare < rules.least_rare[item] or work.seen_items[item] == stamp:
            continue
        shared = _weigh_shared(item, lists, weights, work, stamp)
        if shared < rules.whole[0]:
            continue
        marks = rules.tasks if rules.is_task[item] else rules.whole
        weight = words_weight if rules.is_task[item] else words_weight + ends_weight
        if not _is_reworded(shared, rules.item_weights[item], weight, marks, rules.inside):
            continue
        if not _lacks_numbers(item, lists, rules, work, stamp):
            work.found[num] = item
            num += 1
    return num


@compiled
def scan(
    words: tuple[UInt64s, Int64s],
    texts: Levelled,
    index: tuple[Tables, Lists],
    rules: Rules,
    work: Work,
) -> tuple[Int64s, Int32s]:
    """Texts and the items that each may hold, as pairs.

    Args:
        words: Word hashes of all texts, and where each text begins.
        texts: What they mean.
        index: Tables of n-grams and of the first words of short items; lists of the items.
        rules: What makes a candidate.
        work: Of this index; written.
    """
    tables, lists = index
    found_texts, found_items = [np.int64(0)], [np.int32(0)]
    for text in range(len(words[1]) - 1):
        work.num_texts[0] += 1
        stamp, start, end = work.num_texts[0], texts.offsets[text], texts.offsets[text + 1]
        own = words[0][words[1][text] : words[1][text + 1]]
        num = _find_short(own, tables, lists, work, stamp)
        last = max(start, end - rules.ngram + 1)
        touched = _count_grams(texts.grams[start:last], tables, lists, work, stamp)
        num = _find_covered(touched, rules, work, stamp, num)
        if rules.whole[0] != np.inf:
            here = (texts.features[start:end], texts.ends[start:end])
            num = _find_reworded(here, lists, rules, work, (stamp, num))
        for place in range(num):
            found_texts.append(np.int64(text))
            found_items.append(work.found[place])
    return np.array(found_texts[1:]), np.array(found_items[1:])
