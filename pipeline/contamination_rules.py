"""Whether a text poses a benchmark item's problem: one candidate pair, looked at closely.

Three ways in which a text may hold an item, tried in this order:

* *coverage*: most of the item's n-grams stand in one window of about the item's length;
* *rewording*: both share most of their features by weight (:func:`similarity`), the more so the
  less there is in common: a long story may change much, "Find the area of the triangle" is no
  evidence at all. A longer text must hold the item nearly whole in one window;
* *ratio*: text and item are nearly equal by characters, with the same numbers and last sentence.

A pair that passes but differs in what :mod:`pipeline.contamination_twins` compares is a template
twin, another problem of the same making.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from rapidfuzz import fuzz

from pipeline.contamination_twins import Pair, what_differs
from pipeline.matching import last_sentence
from pipeline.problem_features import Reading, is_number, weight_of
from pipeline.settings.decontamination import DecontaminationSettings

_WINDOW_SLACK = 1.25
"""A window of n-grams may be so much longer than the item: edits insert words."""
_SAYS_LITTLE, _FULL_COVERAGE = 20.0, 0.9
"""Items of less weight must be covered nearly whole where a longer text holds them."""
_LOOSE_SLACK, _LOOSE_EXTRA = 1.5, 12
"""A rewording may be so much longer."""
_RATIO_CANDIDATE_COVERAGE = 0.1
"""Items with less in common are not compared by characters (a ratio of 90 shares far more)."""
EVIDENCE = ((7.0, 0.93), (12.0, 0.78), (16.0, 0.74), (20.0, 0.71), (25.0, 0.68), (35.0, 0.64))
"""Weight in common, and the similarity that it takes to be called a rewording."""
CODE_EVIDENCE = ((8.0, 0.80), (13.0, 0.72), (20.0, 0.64), (25.0, 0.60), (40.0, 0.57))
"""The same for programming tasks, whose statements leave more freedom."""
EVIDENCE_INSIDE = ((25.0, 0.85), (50.0, 0.72))
"""The same for a window of a longer text."""
_LEAST_WORDS_INSIDE = 25.0
"""Weight of words and numbers that a window of a longer text must share: triples alone may come
from indices that count up."""
_TELLING, _WITHOUT_TELLING = 3.3, 0.9
"""Texts without a feature of this weight in common must be this similar: families of problems
("Let a, b and c be positive real numbers ...") have only such features."""
_MUCH_CODE = 25.0
_SOME_WORDS, _WORDS_ALIKE = 15.0, 0.5
"""Where an item has words of this weight, they must be so alike by themselves."""
_CODE_WORDS = (
    "function return returns print output program implement python code string strings list lists "
    "array arrays def class input"
)
"""One of them stands in any programming task."""
_ANY_TASK = frozenset(["function", "integer"])
"""Features that say nothing there."""


@dataclass(frozen=True)
class Entry:
    """A text of a benchmark item, ready to be compared."""

    benchmark: str
    item_id: str
    reading: Reading
    ngram: int
    is_short: bool
    is_code: bool

    @cached_property
    def grams(self) -> frozenset[tuple[str, ...]]:
        """The item's distinct n-grams of forms."""
        return frozenset(grams_of(self.reading.forms, self.ngram))

    def is_compared(self, feature: str) -> bool:
        """Whether a feature tells rewordings: of programming tasks, only the words do."""
        if not self.is_code:
            return True
        return not (" " in feature or is_number(feature) or feature in _ANY_TASK)

    @cached_property
    def weight(self) -> float:
        """Of all features that are compared."""
        return sum(weight_of(f) for f in self.reading.counts if self.is_compared(f))

    @cached_property
    def words_weight(self) -> float:
        """Of those that are no triples."""
        compared = (f for f in self.reading.counts if self.is_compared(f))
        return sum(weight_of(f) for f in compared if " " not in f)


@dataclass(frozen=True, slots=True)
class Finding:
    """How a text holds an item."""

    rule: str
    """``coverage``, ``short_item``, ``ratio`` or ``rewording``; ``twin`` for a template twin."""
    score: float
    start: int
    end: int
    """The tokens that match best."""
    differs: str = ""
    """What makes a twin."""


def judge(entry: Entry, row: Reading, settings: DecontaminationSettings) -> Finding | None:
    """Compare a text with an item that it may hold."""
    n = entry.ngram
    start, end, coverage = _best_cover(entry, row)
    if coverage >= _needed_coverage(entry, row, settings) and not entry.is_short:
        # Grams that the item repeats are counted once, so that the window may end too soon.
        stop = max(end + 2 * n, start + len(entry.reading.tokens) + n)
        window = (max(0, start - n), min(len(row.tokens), stop))
        return _found("coverage", coverage, (start, end + n), _compare(entry, row, window))
    found = _judge_rewording(entry, row) if settings.find_rewordings else None
    if found is None and coverage >= _RATIO_CANDIDATE_COVERAGE:
        found = _judge_ratio(entry, row, settings.min_ratio)
    return found


def _needed_coverage(entry: Entry, row: Reading, settings: DecontaminationSettings) -> float:
    """More for a part of a text where the item says little: "In the diagram, what is the area"."""
    is_part = len(row.tokens) > 2 * len(entry.reading.tokens) + 2 * entry.ngram
    lacks_figure = bool(entry.reading.figure_numbers) and not row.figure_numbers
    says_little = entry.reading.weight < _SAYS_LITTLE and (is_part or lacks_figure)
    return max(settings.min_coverage, _FULL_COVERAGE if says_little else 0.0)


def grams_of(forms: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    """All n-grams, in order."""
    return zip(*(forms[offset:] for offset in range(n)), strict=False)


def similarity(shared: float, item: float, window: float) -> float:
    """Weight in common against the weight of both: the harmonic mean of the two shares."""
    return 2 * shared / (item + window) if item + window else 0.0


def needed_similarity(shared: float, marks: Sequence[tuple[float, float]]) -> float:
    """The similarity from which texts with this weight in common pose the same problem."""
    if shared < marks[0][0]:
        return math.inf
    for (low, high_mark), (high, low_mark) in pairwise(marks):
        if shared < high:
            return high_mark + (low_mark - high_mark) * (shared - low) / (high - low)
    return marks[-1][1]


def _found(rule: str, score: float, span: tuple[int, int], differs: str) -> Finding:
    return Finding("twin" if differs else rule, round(score, 3), *span, differs)


def _compare(
    entry: Entry, row: Reading, window: tuple[int, int], *, similar: float | None = None
) -> str:
    pair = Pair(entry.reading, row, window, is_code=entry.is_code, similarity=similar)
    return what_differs(pair)


def _judge_ratio(entry: Entry, row: Reading, min_ratio: float) -> Finding | None:
    item = entry.reading
    ratio = fuzz.ratio(" ".join(row.tokens), " ".join(item.tokens), score_cutoff=min_ratio)
    if ratio < min_ratio:
        return None
    whole = (0, len(row.tokens))
    is_same_end = last_sentence(row.text) == last_sentence(item.text)
    has_same_numbers = row.numbers == item.numbers
    differs = "numbers" if not has_same_numbers else "" if is_same_end else "question"
    return _found("ratio", ratio / 100, whole, differs or _compare(entry, row, whole))


def _best_cover(entry: Entry, row: Reading) -> tuple[int, int, float]:
    """First and last position of the window with most of the item's n-grams, and their share."""
    width = int(len(entry.reading.tokens) * _WINDOW_SLACK) + entry.ngram
    places = [
        (place, gram)
        for place, gram in enumerate(grams_of(row.forms, entry.ngram))
        if gram in entry.grams
    ]
    inside: Counter[tuple[str, ...]] = Counter()
    best = (0, 0, 0)
    left = 0
    for place, gram in places:
        inside[gram] += 1
        while place - places[left][0] >= width:
            old = places[left][1]
            inside[old] -= 1
            if not inside[old]:
                del inside[old]
            left += 1
        if len(inside) > best[2]:
            best = (places[left][0], place, len(inside))
    return best[0], best[1], best[2] / max(1, len(entry.grams))


def _judge_rewording(entry: Entry, row: Reading) -> Finding | None:
    """As a whole, and in the window that shares most."""
    window = (0, len(row.tokens))
    score = _liken(entry, row, window, is_inside=False)
    if not score and len(row.tokens) > _window_width(entry):
        window = _best_bag(entry, row)
        score = _liken(entry, row, window, is_inside=True)
    if not score or _is_elsewhere(entry, row, window):
        return None
    around = (window[0], min(len(row.tokens), window[1] + 2))
    differs = _compare(entry, row, around, similar=score)
    return _found("rewording", score, window, differs)


def _is_elsewhere(entry: Entry, row: Reading, window: tuple[int, int]) -> bool:
    """Whether a text that says little of a programming task is none itself."""
    if not entry.is_code or not frozenset(_CODE_WORDS.split()).isdisjoint(row.tokens):
        return False
    inside = {f for here in row.features[slice(*window)] for f in here if entry.is_compared(f)}
    return sum(weight_of(f) for f in inside if f in entry.reading.counts) < _MUCH_CODE


def _liken(entry: Entry, row: Reading, window: tuple[int, int], *, is_inside: bool) -> float:
    """Similarity of a window if it is enough, else nothing."""
    inside = {f for here in row.features[slice(*window)] for f in here if entry.is_compared(f)}
    weights = [weight_of(f) for f in inside if f in entry.reading.counts]
    shared = sum(weights)
    score = similarity(shared, entry.weight, sum(map(weight_of, inside)))
    marks = EVIDENCE_INSIDE if is_inside else CODE_EVIDENCE if entry.is_code else EVIDENCE
    needed = needed_similarity(shared, marks)
    is_family = max(weights, default=0.0) < _TELLING and not _agree_in_numbers(entry, inside)
    if not entry.is_code and is_family:
        needed = max(needed, _WITHOUT_TELLING)
    words = {f for f in inside if " " not in f}
    shared_words = sum(weight_of(f) for f in words if f in entry.reading.counts)
    if is_inside and shared_words < _LEAST_WORDS_INSIDE:
        return 0.0
    if entry.words_weight >= _SOME_WORDS:
        alike = similarity(shared_words, entry.words_weight, sum(map(weight_of, words)))
        if alike < _WORDS_ALIKE:
            return 0.0
    return score if score >= needed else 0.0


def _agree_in_numbers(entry: Entry, inside: set[str]) -> bool:
    """Whether a window has the item's numbers, two at least, and no others."""
    numbers = {feature for feature in inside if is_number(feature)}
    return len(numbers) > 1 and numbers == set(entry.reading.numbers)


def _window_width(entry: Entry) -> int:
    return int(len(entry.reading.tokens) * _LOOSE_SLACK) + _LOOSE_EXTRA


def _best_bag(entry: Entry, row: Reading) -> tuple[int, int]:
    """The window that shares most with the item, from its first hit to its last."""
    width, wanted = _window_width(entry), entry.reading.counts
    places = [
        (place, [f for f in here if f in wanted])
        for place, here in enumerate(row.features)
        if any(f in wanted for f in here)
    ]
    inside: Counter[str] = Counter()
    weight, best, window = 0.0, 0.0, (0, 0)
    left = 0
    for place, here in places:
        for feature in here:
            weight += 0.0 if inside[feature] else weight_of(feature)
            inside[feature] += 1
        while place - places[left][0] >= width:
            for feature in places[left][1]:
                inside[feature] -= 1
                weight -= 0.0 if inside[feature] else weight_of(feature)
            left += 1
        if weight > best + 1e-9:
            best, window = weight, (places[left][0], place + 1)
    return window
