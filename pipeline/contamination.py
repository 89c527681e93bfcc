"""Benchmark items in training rows: verbatim, embedded, edited or told in other words.

Texts are looked up in arrays first (:mod:`pipeline.contamination_index`, compiled); what may hold
an item is then read closely (:mod:`pipeline.contamination_rules`). A text that would match but for
its numbers, its final question or its marked words is a *template twin*: counted, and dropped only
when the recipe says so. Single shared n-grams decide nothing: on a quarter of all AIME problems
they hit stock phrases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from pipeline.contamination_rules import Entry, Finding, judge
from pipeline.item_texts import ItemText
from pipeline.matching import count_words
from pipeline.problem_features import FORMULA_WORDS, Reading, formula_part, read
from pipeline.settings.decontamination import DecontaminationSettings
from pipeline.word_forms import OPERATORS
from pipeline.word_hashes import WordHashes, hash_texts, hash_words

__all__ = ["STAGE", "BenchmarkIndex", "ItemText", "Match", "RowFinding", "find_in_row"]

STAGE = "decontaminate"
_MOST_READ = 256
_CLEAN_SLOTS = 1 << 16
"""Texts without candidates that are remembered by their hashes; later ones displace others."""
_PARTS = ("user turn", "question", "reasoning")


@dataclass(frozen=True, slots=True)
class Match:
    """One item found in one text."""

    benchmark: str
    item_id: str
    rule: str
    """``coverage``, ``short_item``, ``ratio``, ``rewording``, or ``twin`` for a template twin."""
    score: float
    span: str
    """The matched tokens of the text."""
    part: str = ""
    """Which text of the row: user turn, question or reasoning."""
    differs: str = ""
    """Twins: ``numbers``, ``words``, ``figure``, ``formula`` or ``question``."""

    @property
    def is_contamination(self) -> bool:
        """Whether the row must go; twins stay."""
        return self.rule != "twin"


@dataclass(frozen=True, slots=True)
class RowFinding:
    """What was found in a row: the best item, and the best template twin."""

    hit: Match | None = None
    twin: Match | None = None


NOTHING = RowFinding()


class _Entries(Sequence[Entry]):
    """Items' texts, each read closely when it is first needed: few of them ever are."""

    def __init__(
        self, texts: Sequence[tuple[ItemText, str]], settings: DecontaminationSettings
    ) -> None:
        self._texts, self._settings = texts, settings
        self._read: dict[int, Entry] = {}
        self._most = len(texts)

    def keep_few(self) -> None:
        """From now on keep the last few that were read closely: each takes 30 kB."""
        self._read.clear()
        self._most = _MOST_READ

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, number: int) -> Entry: ...
    @overload
    def __getitem__(self, number: slice) -> list[Entry]: ...
    def __getitem__(self, number: int | slice) -> Entry | list[Entry]:
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        if number not in self._read:
            if len(self._read) >= self._most:
                self._read.clear()
            self._read[number] = self._make(*self._texts[number])
        return self._read[number]

    def _make(self, item: ItemText, text: str) -> Entry:
        n, reading = self._settings.ngram, read(text)
        is_short = count_words(text) < self._settings.short_words or len(reading.tokens) < n
        return Entry(item.benchmark, item.item_id, reading, n, is_short, item.is_code)


class BenchmarkIndex:
    """All items of all benchmarks, ready to be searched for in texts."""

    def __init__(
        self,
        items: Iterable[ItemText],
        settings: DecontaminationSettings,
        stored: Path | None = None,
    ) -> None:
        """Make the index, which takes seconds and 100 MB, or read what :meth:`store` wrote.

        Args:
            items: What to search for.
            settings: How.
            stored: Tables of an index of the same items and settings.
        """
        self._settings = settings
        self._items: Counter[str] = Counter()
        told = [(item, text) for item in items for text in item.texts()]
        has_words = np.diff(hash_words([text for _, text in told]).offsets) > 0
        texts = [own for own, has in zip(told, has_words.tolist(), strict=True) if has]
        self._items.update(dict.fromkeys((item.benchmark for item, _ in told), 0))
        for benchmark, _ in dict.fromkeys((item.benchmark, item.item_id) for item, _ in texts):
            self._items[benchmark] += 1
        self._entries = _Entries(texts, settings)
        from pipeline.contamination_index import Scanner, make_tables, read_tables

        tables = make_tables(self._entries, settings) if stored is None else read_tables(stored)
        self._scanner = Scanner(tables)
        self._entries.keep_few()
        self._clean = np.zeros(_CLEAN_SLOTS, np.uint64)

    def store(self, path: Path) -> None:
        """Write the tables to a file, for other processes."""
        self._scanner.store(path)

    def __len__(self) -> int:
        return self._items.total()

    def items_per_benchmark(self) -> dict[str, int]:
        """How many items of each benchmark are searched for."""
        return dict(self._items)

    def find(self, text: str, part: str = "") -> list[Match]:
        """All items in a text, contaminations before twins, best first."""
        (matches,) = self.find_in_texts([text])
        return [replace(match, part=part) for match in matches]

    def find_in_texts(
        self, texts: Sequence[str], hashed: tuple[WordHashes, Sequence[int]] | None = None
    ) -> list[list[Match]]:
        """All items in each text, contaminations before twins, best first.

        Args:
            texts: The texts.
            hashed: Words that were hashed before, and of each text its place there, or -1.
        """
        keys = hash_texts(texts)
        slots = (keys & np.uint64(_CLEAN_SLOTS - 1)).astype(np.int64)
        # Sources have dozens of rows to a question: what was clean is clean.
        unread = np.flatnonzero(self._clean[slots] != keys).tolist()
        found: list[list[Match]] = [[] for _ in texts]
        if hashed is not None:
            hashed = (hashed[0], [hashed[1][place] for place in unread])
        candidates = self._scanner.scan([texts[place] for place in unread], hashed)
        for place, numbers in zip(unread, candidates, strict=True):
            if numbers:
                found[place] = self._judge(texts[place], numbers)
            else:
                self._clean[slots[place]] = keys[place]
        return found

    def find_in_rows(
        self,
        user_texts: Sequence[str],
        questions: Sequence[str],
        thinkings: Sequence[str],
        words: WordHashes | None = None,
    ) -> list[RowFinding]:
        """The best contamination and the best twin of each row.

        Args:
            user_texts: The users' turns.
            questions: The problems; searched where the turn does not hold them.
            thinkings: The parts of the reasonings that are searched. Reasoning restates the
                problem it solves, so twins there are no news.
            words: The questions', if they are hashed already.
        """
        texts: list[str] = []
        places: list[tuple[int, int]] = []
        hashed: list[int] = []
        rows = zip(user_texts, questions, thinkings, strict=True)
        for row, (user_text, question, thinking) in enumerate(rows):
            # Looking for a text in itself takes as long as in another.
            is_held = question is user_text or question in user_text
            wanted = (user_text, "" if is_held else question, thinking)
            for part, text in enumerate(wanted):
                if text:
                    texts.append(text)
                    places.append((row, part))
                    hashed.append(row if text is question else -1)
        found = [NOTHING] * len(user_texts)
        known = None if words is None else (words, hashed)
        for (row, part), matches in zip(places, self.find_in_texts(texts, known), strict=True):
            if matches:
                found[row] = _add_matches(found[row], matches, part)
        return found

    def _judge(self, text: str, numbers: Sequence[int]) -> list[Match]:
        row = read(text)
        best: dict[tuple[str, str], Match] = {}
        for number in numbers:
            entry = self._entries[number]
            found = _find_whole(entry, row) if entry.is_short else None
            found = found or judge(entry, row, self._settings)
            if found is not None:
                match = _match(entry, row, found)
                key = (entry.benchmark, entry.item_id)
                if key not in best or _rank(match) < _rank(best[key]):
                    best[key] = match
        return sorted(best.values(), key=_rank)


def find_in_row(
    index: BenchmarkIndex, *, user_text: str, question: str, thinking: str
) -> tuple[Match | None, Match | None]:
    """The best contamination and the best twin of a row.

    Args:
        index: The benchmarks.
        user_text: The user's turn.
        question: The problem, where it differs from the turn.
        thinking: The part of the reasoning that is searched.
    """
    (found,) = index.find_in_rows([user_text], [question], [thinking])
    return found.hit, found.twin


def _add_matches(found: RowFinding, matches: Sequence[Match], part: int) -> RowFinding:
    hit = next((m for m in matches if m.is_contamination), None)
    twin = next((m for m in matches if not m.is_contamination), None)
    if found.hit is None and hit is not None:
        found = replace(found, hit=replace(hit, part=_PARTS[part]))
    if found.twin is None and twin is not None and part < 2:
        found = replace(found, twin=replace(twin, part=_PARTS[part]))
    return found


def _rank(match: Match) -> tuple[bool, float, str, str]:
    return (not match.is_contamination, -match.score, match.benchmark, match.item_id)


def _match(entry: Entry, row: Reading, found: Finding) -> Match:
    return Match(
        benchmark=entry.benchmark,
        item_id=entry.item_id,
        rule=found.rule,
        score=found.score,
        span=" ".join(row.tokens[found.start : found.end]),
        differs=found.differs,
    )


def _find_whole(entry: Entry, row: Reading) -> Finding | None:
    """A short item that stands in the text word by word, and whose formula does not go on."""
    item, tokens = list(entry.reading.tokens), list(row.tokens)
    for start in range(len(tokens) - len(item) + 1):
        end = start + len(item)
        if tokens[start:end] != item:
            continue
        before = start > 0 and bool(formula_part(item[0])) and _goes_on(tokens[start - 1])
        after = end < len(tokens) and bool(formula_part(item[-1])) and _goes_on(tokens[end])
        if not before and not after:
            return Finding("short_item", 1.0, start, end)
    return None


def _goes_on(token: str) -> bool:
    """Whether a formula's neighbour belongs to it; a number may count sentences."""
    return token in OPERATORS or token in FORMULA_WORDS
