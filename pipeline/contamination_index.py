"""Arrays in which texts are looked up: words, n-grams and features of all benchmark items.

Memory: about 1 KB an item, besides 2 MB for the words of ordinary problems.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.contamination_rules import CODE_EVIDENCE, EVIDENCE, EVIDENCE_INSIDE, Entry
from pipeline.contamination_twins import MANY_RARE_NUMBERS
from pipeline.machine_cache import write_arrays
from pipeline.ordinary_words import WEIGHTLESS, describe_words, is_run, ordinary_words, spell
from pipeline.problem_features import open_fractions, shares, weight_of
from pipeline.settings.decontamination import DecontaminationSettings
from pipeline.word_forms import VARIABLE, content_form, stop_words, variables
from pipeline.word_hashes import WordHashes, hash_tokens, hash_words

if TYPE_CHECKING:
    from pipeline.kernels.problem_words import Table

UInt8s = npt.NDArray[np.uint8]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Float32s = npt.NDArray[np.float32]
Postings = tuple[Int64s, Int32s]
"""Where each list begins, and all of them."""

_COVERAGE_SLACK = 0.75
"""Candidates have this part of what the rule asks for: the exact reading sets more notation
apart."""
_SLACK = 0.9
"""And this part of the similarity that the rule asks for."""
_FUZZ = 0.999
"""For sums of float32 in another order."""
_LEFT_OUT = 0.85
"""Part of what a rewording must share that common features may make up."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What the kernel looks up: arrays and a few numbers, see ``scan`` of the kernel."""

    words: tuple[Any, ...]
    tables: tuple[Any, ...]
    lists: tuple[Any, ...]
    rules: tuple[Any, ...]


def make_tables(entries: Sequence[Entry], settings: DecontaminationSettings) -> Tables:
    """Index items: seconds for thousands of them."""
    ngram = settings.ngram
    hashes = hash_words([open_fractions(entry.reading.text) for entry in entries])
    vocabulary = _Vocabulary(entries)
    words = (vocabulary.words(), *_make_table(*vocabulary.triple_keys()))
    grams, gram_lists, sizes = _index_grams(hashes, words, ngram)
    starts, nexts = _index_short(entries, hashes)
    features = [vocabulary.compared(entry) for entry in entries]
    numbers = [vocabulary.numbers(entry) for entry in entries]
    weights = vocabulary.weights()
    rare, least_rare = _leave_out_common(features, entries, weights, len(vocabulary))
    lists = (
        *gram_lists,
        *_invert(rare, len(vocabulary)),
        *_concatenate(features),
        *_concatenate(numbers),
        nexts,
        hashes.hashes,
        hashes.offsets,
    )
    marks = _SLACK if settings.find_rewordings else np.inf
    rules = (
        ngram,
        _COVERAGE_SLACK * settings.min_coverage,
        MANY_RARE_NUMBERS / _SLACK,
        _flatten(EVIDENCE, marks),
        _flatten(CODE_EVIDENCE, marks),
        _flatten(EVIDENCE_INSIDE, marks),
        weights,
        np.array([entry.weight for entry in entries], np.float32),
        np.array([entry.is_code for entry in entries], np.uint8),
        sizes,
        least_rare,
    )
    return Tables(words, (*grams, *starts), lists, rules)


def read_tables(path: Path) -> Tables:
    """What :meth:`Scanner.store` wrote."""
    with np.load(path) as stored:
        parts = {
            field.name: tuple(
                array if array.ndim else array.item()
                for array in (stored[f"{field.name}-{n}"] for n in range(int(stored[field.name])))
            )
            for field in fields(Tables)
        }
    return Tables(**parts)


class Scanner:
    """Finds the items that texts may hold."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        # Written by every scan, so each thread has its own.
        self._own = threading.local()

    def store(self, path: Path) -> None:
        """Write the tables to a file."""
        arrays: dict[str, Any] = {}
        for field in fields(Tables):
            values = getattr(self._tables, field.name)
            arrays[field.name] = len(values)
            arrays |= {f"{field.name}-{n}": value for n, value in enumerate(values)}
        write_arrays(path, arrays)

    def scan(
        self, texts: Sequence[str], hashed: tuple[WordHashes, Sequence[int]] | None = None
    ) -> list[list[int]]:
        """Numbers of the entries that each text may hold.

        Args:
            texts: The texts.
            hashed: Words that were hashed before, and of each text its place there, or -1.
        """
        found: list[list[int]] = [[] for _ in texts]
        opened = [open_fractions(text) for text in texts]
        new = list(range(len(texts)))
        if hashed is not None:
            words, places = hashed
            is_known = [
                place >= 0 and own == text
                for place, own, text in zip(places, opened, texts, strict=True)
            ]
            known = [number for number in new if is_known[number]]
            new = [number for number in new if not is_known[number]]
            self._scan(words.take([places[number] for number in known]), known, found)
        self._scan(hash_words([opened[number] for number in new]), new, found)
        return found

    def _scan(self, words: WordHashes, numbers: Sequence[int], found: list[list[int]]) -> None:
        """Write what the texts of these numbers may hold."""
        from pipeline.kernels import benchmark_items as items
        from pipeline.kernels.problem_words import Words, level, make_front

        tables = self._tables
        rules = items.Rules(*tables.rules)
        known = Words(*tables.words)
        text = (words.hashes, words.kinds, words.offsets)
        lists = items.Lists(*tables.lists)
        if not hasattr(self._own, "room"):
            self._own.room = (make_front(), items.make_work(lists, rules))
        front, work = self._own.room
        levelled = level(text, known, front, rules.ngram)
        index = (items.Tables(*tables.tables), lists)
        places, entries = items.scan((words.hashes, words.offsets), levelled, index, rules, work)
        for place, entry in zip(places.tolist(), entries.tolist(), strict=True):
            found[numbers[place]].append(entry)


def _leave_out_common(
    features: Sequence[Sequence[int]], entries: Sequence[Entry], weights: Float32s, size: int
) -> tuple[list[list[int]], Float32s]:
    """Of each item the features that a rewording cannot do without, and their least weight.

    The commonest features are left out, as long as all of them together weigh less than a
    rewording of the item has to share. So the long lists of items that say "find" are never read.
    """
    frequency = np.zeros(size, np.int64)
    for numbers in features:
        frequency[list(numbers)] += 1
    rare: list[list[int]] = []
    least = np.empty(len(entries), np.float32)
    for place, (numbers, entry) in enumerate(zip(features, entries, strict=True)):
        marks = CODE_EVIDENCE if entry.is_code else EVIDENCE
        needed = _FUZZ * min(_least_shared(entry.weight, m) for m in (marks, EVIDENCE_INSIDE))
        ordered = sorted(numbers, key=lambda number: (-frequency[number], number))
        sums = np.cumsum(weights[ordered], dtype=np.float64)
        num_common = int((sums < _LEFT_OUT * needed).sum())
        rare.append(ordered[num_common:])
        least[place] = needed - (sums[num_common - 1] if num_common else 0.0)
    return rare, least


def _least_shared(weight: float, marks: Sequence[tuple[float, float]]) -> float:
    """Least weight that a text can share with an item of this weight and be called a rewording.

    A text weighs at least what it shares, so that ``2 shared >= mark (weight + shared)``; marks
    fall as more is shared, and no more than the item's weight can be.
    """
    needed = _SLACK * marks[-1][1]
    for (low, high_mark), (high, low_mark) in pairwise(marks):
        if weight / _SLACK <= high:
            part = max(0.0, weight / _SLACK - low) / (high - low)
            needed = _SLACK * (high_mark + (low_mark - high_mark) * part)
            break
    return max(_SLACK * marks[0][0], needed * weight / (2 - needed))


def _index_grams(
    hashes: WordHashes, known: tuple[Any, ...], ngram: int
) -> tuple[tuple[Any, ...], Postings, Int32s]:
    from pipeline.kernels.problem_words import Words, level, make_front

    numbers: dict[int, int] = {}
    by_entry: list[list[int]] = []
    text = (hashes.hashes, hashes.kinds, hashes.offsets)
    levelled = level(text, Words(*known), make_front(), ngram)
    for start, end in pairwise(levelled.offsets.tolist()):
        grams = levelled.grams[start : max(start, end - ngram + 1)]
        distinct = dict.fromkeys(grams.tolist())
        by_entry.append([numbers.setdefault(gram, len(numbers)) for gram in distinct])
    keys = np.array(list(numbers), np.uint64)
    table = _make_table(keys, np.arange(len(keys), dtype=np.int32))
    sizes = np.array([len(grams) for grams in by_entry], np.int32)
    return (_make_filter(keys), *table), _invert(by_entry, len(keys)), sizes


class _Vocabulary:
    """Numbers of features, and what every known word means."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        known = dict.fromkeys(shares())
        for entry in entries:
            known.update(dict.fromkeys(entry.reading.counts))
        self._numbers = {feature: number for number, feature in enumerate(known)}
        self._tokens = dict.fromkeys(token for entry in entries for token in entry.reading.tokens)

    def __len__(self) -> int:
        return len(self._numbers)

    def weights(self) -> Float32s:
        """Of all features, by number."""
        return np.array([weight_of(feature) for feature in self._numbers], np.float32)

    def compared(self, entry: Entry) -> list[int]:
        """Numbers of the features that tell an entry's rewordings."""
        return [self._numbers[f] for f in entry.reading.counts if entry.is_compared(f)]

    def numbers(self, entry: Entry) -> list[int]:
        """Features of an entry that are numbers."""
        return [self._numbers[f] for f in entry.reading.numbers]

    def words(self) -> UInt64s:
        """What every known word means, as cells of the kernel's table."""
        from pipeline.kernels.problem_words import SAYS, fill_words

        ordinary = ordinary_words()
        tokens = [*stop_words(), *variables(), *self._tokens]
        # In this order: a token's own form is what it means.
        words = spell(feature for feature in self._numbers if feature not in shares())
        words |= {token: content_form(token) for token in tokens if not is_run(token)}
        own = describe_words(words, self._numbers)
        # What is no word must be two or three variables: the exact reading looks at the formula.
        glued = _written_together()
        hashes = hash_tokens(glued)
        is_word = np.isin(hashes, own.hashes) | np.isin(hashes, ordinary.hashes)
        glued = [w for w, known in zip(glued, is_word.tolist(), strict=True) if not known]
        forms = np.repeat(hash_tokens([VARIABLE]), len(glued))
        all_hashes = np.concatenate([own.hashes, ordinary.hashes, hash_tokens(glued)])
        nothing = np.full(len(glued), WEIGHTLESS, np.int32)
        says = np.array([SAYS + len(word) for word in glued], np.uint8)
        cells = np.zeros((_table_size(len(all_hashes)), 3), np.uint64)
        fill_words(
            cells,
            all_hashes,
            np.concatenate([own.forms, ordinary.forms, forms]),
            np.concatenate([own.features, ordinary.features, nothing]),
            np.concatenate([own.parts, ordinary.parts, says]),
        )
        return cells

    def triple_keys(self) -> tuple[UInt64s, Int32s]:
        """Hashes of the triples, and their numbers."""
        from pipeline.kernels.problem_words import write_grams

        triples = [feature for feature in self._numbers if " " in feature]
        keys = np.empty(len(triples), np.uint64)
        for place, triple in enumerate(triples):
            write_grams(hash_tokens(triple.split()), 3, keys[place : place + 1])
        return keys, np.array([self._numbers[triple] for triple in triples], np.int32)


def _written_together() -> list[str]:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pairs = [a + b for a in letters for b in letters if a != b]
    return [*pairs, *(pair + c for pair in pairs for c in letters if c not in pair)]


def _make_table(keys: UInt64s, values: Int32s) -> Table:
    from pipeline.kernels.problem_words import fill

    size = _table_size(len(keys))
    table = (np.zeros(size, np.uint64), np.full(size, -1, np.int32))
    fill(table, keys, values)
    return table


def _table_size(num_keys: int) -> int:
    """A power of two that leaves half of the table free."""
    return 1 << max(4, (2 * num_keys).bit_length())


def _make_filter(keys: UInt64s) -> UInt64s:
    """See :func:`pipeline.kernels.benchmark_items.fill_filter`: sixteen bits a key or more."""
    from pipeline.kernels.benchmark_items import fill_filter

    bits = np.zeros(max(1, (1 << (16 * len(keys)).bit_length()) >> 6), np.uint64)
    fill_filter(bits, keys)
    return bits


def _invert(lists: Sequence[Sequence[int]], size: int) -> Postings:
    """For each number, the places of the lists that hold it."""
    offsets, numbers = _concatenate(lists)
    places = np.repeat(np.arange(len(lists), dtype=np.int32), np.diff(offsets))
    begins = np.zeros(size + 1, np.int64)
    np.cumsum(np.bincount(numbers, minlength=size), out=begins[1:])
    return begins, places[np.argsort(numbers, kind="stable")]


def _concatenate(lists: Sequence[Sequence[int]]) -> Postings:
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(numbers) for numbers in lists], out=offsets[1:])
    return offsets, np.fromiter(chain.from_iterable(lists), np.int32, offsets[-1])


def _index_short(entries: Sequence[Entry], hashes: WordHashes) -> tuple[tuple[Any, ...], Int32s]:
    """Table from a short item's first word to the item, and the next item that begins with it."""
    heads: dict[int, int] = {}
    nexts = np.full(len(entries), -1, np.int32)
    for place, entry in enumerate(entries):
        words = hashes.of(place)
        if entry.is_short and len(words):
            nexts[place] = heads.get(int(words[0]), -1)
            heads[int(words[0])] = place
    keys = np.array(list(heads), np.uint64)
    table = _make_table(keys, np.array(list(heads.values()), np.int32))
    return (_make_filter(keys), *table), nexts


def _flatten(marks: Sequence[tuple[float, float]], factor: float) -> Float32s:
    flat: list[float] = []
    for weight, needed in marks:
        flat.extend((weight * factor, needed * factor))
    return np.array(flat, np.float32)
