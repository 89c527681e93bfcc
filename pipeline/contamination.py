"""Benchmark items in training rows: found by coverage, whole strings or similarity.

A text holds an item when, after levelling notation (:mod:`pipeline.matching`),

* at least ``min_coverage`` of the item's n-grams lie in one window of the item's length and the
  window has all of the item's numbers, or
* an item under ``short_words`` words occurs whole, or
* text and item are ``min_ratio`` alike by characters with equal numbers and last sentence.

A text that would match but for its numbers, or but for the words that it sets in capitals or in
quotes ("arrange the letters of RADII"), is a *template twin*: counted, never dropped. Single
shared n-grams decide nothing: on a quarter of all AIME problems they hit stock phrases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rapidfuzz import fuzz
from xxhash import xxh3_64_intdigest

from pipeline.matching import count_words, last_sentence, marked_words, numbers_of, tokenize
from pipeline.settings.decontamination import DecontaminationSettings

STAGE = "decontaminate"
_WINDOW_SLACK = 1.25
"""A window may be so much longer than the item: edits insert words."""
_RATIO_CANDIDATE_COVERAGE = 0.1
"""Items with less in common are not compared by characters (a ratio of 90 shares far more)."""


@dataclass(frozen=True, slots=True)
class ItemText:
    """A benchmark item as decontamination sees it."""

    benchmark: str
    item_id: str
    question: str


@dataclass(frozen=True, slots=True)
class Match:
    """One item found in one text."""

    benchmark: str
    item_id: str
    rule: str
    """``coverage``, ``short_item``, ``ratio``, or ``twin`` for a template twin."""
    score: float
    span: str
    """The matched tokens of the text."""
    part: str = ""
    """Which text of the row: user turn, question or reasoning."""

    @property
    def is_contamination(self) -> bool:
        """Whether the row must go; twins stay."""
        return self.rule != "twin"


@dataclass(frozen=True, slots=True)
class _Indexed:
    item: ItemText
    tokens: list[str]
    grams: frozenset[int]
    numbers: Counter[str]
    marked: frozenset[str]
    last: list[str]
    is_short: bool


class BenchmarkIndex:
    """All items of all benchmarks, ready to be searched for in texts."""

    def __init__(self, items: Iterable[ItemText], settings: DecontaminationSettings) -> None:
        self._settings = settings
        self._items: list[_Indexed] = []
        self._by_gram: dict[int, list[int]] = {}
        self._short_by_gram: dict[int, list[int]] = {}
        for item in items:
            self._add(item)

    def __len__(self) -> int:
        return len(self._items)

    def items_per_benchmark(self) -> dict[str, int]:
        """How many items of each benchmark are searched for."""
        return dict(Counter(entry.item.benchmark for entry in self._items))

    def _add(self, item: ItemText) -> None:
        tokens = tokenize(item.question)
        if not tokens:
            return
        n = self._settings.ngram
        is_short = count_words(item.question) < self._settings.short_words or len(tokens) < n
        grams = frozenset(_hash_grams(tokens, n))
        number = len(self._items)
        self._items.append(
            _Indexed(
                item=item,
                tokens=tokens,
                grams=grams,
                numbers=Counter(numbers_of(tokens)),
                marked=marked_words(item.question) & frozenset(tokens),
                last=last_sentence(item.question),
                is_short=is_short,
            )
        )
        if is_short:
            size = min(2, len(tokens))
            self._short_by_gram.setdefault(_hash_grams(tokens, size)[0], []).append(number)
        for gram in grams:
            self._by_gram.setdefault(gram, []).append(number)

    def find(self, text: str, part: str = "") -> list[Match]:
        """All items in a text, contaminations before twins, best first."""
        tokens = tokenize(text)
        short = self._find_short(tokens, part)
        found = list(short.values())
        hits: dict[int, list[tuple[int, int]]] = {}
        for position, gram in enumerate(_hash_grams(tokens, self._settings.ngram)):
            for number in self._by_gram.get(gram, ()):
                hits.setdefault(number, []).append((position, gram))
        for number in hits.keys() - short.keys():
            places = hits[number]
            match = self._judge(self._items[number], text, tokens, places)
            if match is not None:
                found.append(replace(match, part=part))
        return sorted(
            found, key=lambda m: (not m.is_contamination, -m.score, m.benchmark, m.item_id)
        )

    def _find_short(self, tokens: list[str], part: str) -> dict[int, Match]:
        found: dict[int, Match] = {}
        for size in (1, 2):
            for start, gram in enumerate(_hash_grams(tokens, size)):
                for number in self._short_by_gram.get(gram, ()):
                    entry = self._items[number]
                    piece = tokens[start : start + len(entry.tokens)]
                    if piece == entry.tokens and number not in found:
                        item = entry.item
                        found[number] = Match(
                            item.benchmark, item.item_id, "short_item", 1.0, " ".join(piece), part
                        )
        return found

    def _judge(
        self, entry: _Indexed, text: str, tokens: list[str], places: list[tuple[int, int]]
    ) -> Match | None:
        """Coverage in the best window, then character similarity."""
        n = self._settings.ngram
        width = int(len(entry.tokens) * _WINDOW_SLACK) + n
        start, end, count = _best_window(places, width)
        coverage = count / len(entry.grams)
        first, last = max(0, start - n), min(len(tokens), end + 2 * n)
        has_numbers = _contains(Counter(numbers_of(tokens[first:last])), entry.numbers)
        span = " ".join(tokens[start : end + n])
        item = entry.item
        if coverage >= self._settings.min_coverage and not entry.is_short:
            is_same = has_numbers and not _has_other_words(entry, text, tokens[first:last])
            rule = "coverage" if is_same else "twin"
            return Match(item.benchmark, item.item_id, rule, round(coverage, 3), span)
        if coverage < _RATIO_CANDIDATE_COVERAGE:
            return None
        ratio = fuzz.ratio(
            " ".join(tokens), " ".join(entry.tokens), score_cutoff=self._settings.min_ratio
        )
        if ratio < self._settings.min_ratio:
            return None
        is_same = Counter(numbers_of(tokens)) == entry.numbers and last_sentence(text) == entry.last
        rule = "ratio" if is_same else "twin"
        return Match(item.benchmark, item.item_id, rule, round(ratio / 100, 3), span)


def _hash_grams(tokens: Sequence[str], n: int) -> list[int]:
    return [
        xxh3_64_intdigest("\x1f".join(tokens[i : i + n]).encode())
        for i in range(len(tokens) - n + 1)
    ]


def _best_window(places: list[tuple[int, int]], width: int) -> tuple[int, int, int]:
    """First and last position and distinct grams of the fullest window; earliest on a tie."""
    inside: Counter[int] = Counter()
    best = (places[0][0], places[0][0], 0)
    left = 0
    for position, gram in places:
        inside[gram] += 1
        while position - places[left][0] >= width:
            old = places[left][1]
            inside[old] -= 1
            if not inside[old]:
                del inside[old]
            left += 1
        if len(inside) > best[2]:
            best = (places[left][0], position, len(inside))
    return best


def _has_other_words(entry: _Indexed, text: str, window: Sequence[str]) -> bool:
    """Whether marked words of the item are replaced by other marked words of the text.

    A word that is only missing, or renamed letter by letter (triangle PQR for ABC), is no other
    word: rows with paraphrased items must go.
    """
    missing = entry.marked.difference(window)
    if not missing:
        return False
    others = (marked_words(text) & frozenset(window)).difference(entry.tokens)
    return bool(others) and Counter(map(_pattern, missing)) != Counter(map(_pattern, others))


def _pattern(word: str) -> tuple[int, ...]:
    """Which letters of a word are equal: the same for words renamed letter by letter."""
    return tuple(word.index(letter) for letter in word)


def _contains(whole: Counter[str], part: Counter[str]) -> bool:
    return all(whole[number] >= count for number, count in part.items())


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
    matches = index.find(user_text, "user turn")
    if question != user_text:
        matches += index.find(question, "question")
    if thinking:
        # Reasoning restates the problem it solves, so twins there are no news.
        matches += [m for m in index.find(thinking, "reasoning") if m.is_contamination]
    hit = next((m for m in matches if m.is_contamination), None)
    twin = next((m for m in matches if not m.is_contamination), None)
    return hit, twin
