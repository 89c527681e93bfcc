"""What tells a template twin from the item itself: texts that are alike, problems that differ.

Benchmarks and training sets draw on the same books, which vary their problems: other numbers, the
same triangle but another side asked for, another word to arrange. None of that is contamination.
An edit or a rewording, on the other hand, may lose a number or swap a word. So something must be
*replaced*: what is only missing does not count, unless it carries the question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from rapidfuzz import fuzz

from pipeline.problem_features import Reading, formula_part, is_number, weight_of
from pipeline.word_forms import OPERATORS, is_variable

RARE_NUMBERS, MANY_RARE_NUMBERS, _SOME = 2.5, 4.0, 30.0
"""A rewording may leave out numbers of this weight in all, such as "two" in "two people"; where
this much is in common, the 90 degrees of a right angle."""
_SURE = 0.72
"""Similarity of rewordings that may miss a number."""
_LITTLE = 25.0
"""Weight in common that leaves doubt."""
_FEW_NUMBERS = 3
"""Of so many or more, half must be there."""
_EXTRA_NUMBERS, _MUCH = 1.1, 40.0
"""And add numbers of this weight, unless both texts have this much in common."""
_CHANGED_SHARE = 0.05
"""Of an item's numbers, so many may be others: long tables, samples of programming tasks."""
_LEAST_FORMULA, _LEAST_OPERATORS = 7, 2
"""Tokens, and operators among them, of a formula that must come back."""
_RICH_FORMULA_LIKENESS, _FORMULA_LIKENESS, _REWORDED_FORMULA_LIKENESS = 50.0, 75.0, 85.0
"""How alike (of 100), where much else is in common, and not: an edit may hit a formula, who
rewords leaves it whole."""
_LONGER, _SURPLUS = 1.5, 15.0
"""A formula that goes on for half its length is less alike by this."""
_LEAST_FIGURE_LIKENESS, _TOLD = 0.8, 2
"""Share of a figure's numbers in common, for items whose words hold fewer numbers than this."""
_QUESTION_SHARE, _REWORDED_QUESTION_SHARE = 0.5, 0.55
"""Of the last sentence's weight, so much must be in the text."""
_LITTLE_ASKED = 9.0
"""A last sentence of less weight ("How many good ones are there?") tells nothing where much else is
in common."""
_TAIL_EXTRA = 6
_LONG_QUESTION = 12
_EXTREMES = frozenset(["largest", "smallest"])
_QUANTITIES = """
area perimeter volume radius diameter height surfac hypotenus
sum product difference ratio average median mode probability remainder
sin cos tan cot sec csc arcsin arccos arctan
spherical cylindrical polar rectangle
even odd
"""
_ASKED = (_EXTREMES, *(frozenset(line.split()) for line in _QUANTITIES.strip().split("\n")))
"""What a problem may ask for: two of one group are two questions."""


@dataclass(frozen=True)
class Pair:
    """An item and the part of a text that is like it."""

    item: Reading
    row: Reading
    window: tuple[int, int]
    """The tokens of the text."""
    is_code: bool
    similarity: float | None = None
    """Of rewordings."""

    @property
    def is_reworded(self) -> bool:
        """Whether the texts were likened by their features only."""
        return self.similarity is not None

    @cached_property
    def inside(self) -> Counter[str]:
        """Features of the window."""
        return _count(self.row, *self.window)

    @cached_property
    def around(self) -> Counter[str]:
        """Features of the window and of half the item's length on both sides."""
        half = len(self.item.tokens) // 2
        return _count(self.row, max(0, self.window[0] - half), self.window[1] + half)

    @cached_property
    def shared(self) -> float:
        """Weight of the features in common."""
        return sum(weight_of(f) for f in self.inside if f in self.item.counts)

    @property
    def is_end(self) -> bool:
        """Whether the window reaches the end of the text."""
        return self.window[1] >= len(self.row.tokens)


def what_differs(pair: Pair) -> str:
    """The first difference that makes two problems of two texts; empty when there is none."""
    if _has_other_numbers(pair):
        return "numbers"
    if _has_other_words(pair):
        return "words"
    if pair.is_code:
        # Their last sentence asks for nothing, and what they compute stands in words.
        return ""
    if _has_other_figure(pair):
        return "figure"
    if _has_other_formula(pair):
        return "formula"
    return "question" if _has_other_question(pair) or _has_other_variable(pair) else ""


def _count(row: Reading, start: int, end: int) -> Counter[str]:
    return Counter(feature for here in row.features[start:end] for feature in here)


def _has_other_numbers(pair: Pair) -> bool:
    numbers = pair.item.numbers
    if pair.is_reworded:
        gone = [number for number in numbers if number not in pair.inside]
        most = RARE_NUMBERS if pair.shared < _SOME else MANY_RARE_NUMBERS
        is_most = len(numbers) >= _FEW_NUMBERS and len(gone) > len(numbers) / 2
        if (is_most and not pair.is_code) or sum(map(weight_of, gone)) > most:
            return True
        if pair.is_code:
            # Statements of programming tasks come with limits and samples, which add numbers.
            return False
        added = [f for f in pair.inside if is_number(f) and f not in numbers]
        if gone and (added or pair.shared < _LITTLE or (pair.similarity or 0.0) < _SURE):
            return True
        return sum(map(weight_of, added)) > _EXTRA_NUMBERS and pair.shared < _MUCH
    missing = numbers - pair.inside
    found = Counter({f: c for f, c in pair.around.items() if is_number(f)})
    changed = min(sum(missing.values()), sum((found - numbers).values()))
    return changed > int(_CHANGED_SHARE * sum(numbers.values()))


def _has_other_words(pair: Pair) -> bool:
    """Whether marked words of the item are replaced by other marked words of the text.

    A word that is only missing, or renamed letter by letter (triangle PQR for ABC), is no other
    word: rows with paraphrased items must go.
    """
    window = frozenset(pair.row.tokens[slice(*pair.window)])
    missing = pair.item.marked - window
    if not missing:
        return False
    others = (pair.row.marked & window).difference(pair.item.tokens)
    return bool(others) and Counter(map(_pattern, missing)) != Counter(map(_pattern, others))


def _pattern(word: str) -> tuple[int, ...]:
    """Which letters of a word are equal: the same for words renamed letter by letter."""
    return tuple(word.index(letter) for letter in word)


def _has_other_figure(pair: Pair) -> bool:
    """Whether both are drawn, differently: texts around figures are stock phrases."""
    ours, theirs = pair.item.figure_numbers, pair.row.figure_numbers
    if not ours or not theirs or len(pair.item.numbers) >= _TOLD:
        return False
    common = sum((ours & theirs).values())
    return common / max(sum(ours.values()), sum(theirs.values())) < _LEAST_FIGURE_LIKENESS


def _has_other_formula(pair: Pair) -> bool:
    """Whether the item's main formula has no likeness in the text, whatever the variables."""
    formula = max(filter(_is_computed, _formulas(pair.item.tokens)), key=len, default=[])
    if len(formula) < _LEAST_FORMULA:
        return False
    likeness = max((_liken(formula, other) for other in _formulas(pair.row.tokens)), default=0.0)
    if pair.shared >= _MUCH:
        return likeness < _RICH_FORMULA_LIKENESS
    is_strict = pair.is_reworded or pair.shared < _LITTLE
    return likeness < (_REWORDED_FORMULA_LIKENESS if is_strict else _FORMULA_LIKENESS)


def _is_computed(formula: Sequence[str]) -> bool:
    """Whether this is more than a list of numbers."""
    has_numbers = any(part[0].isdigit() for part in formula)
    return not has_numbers or sum(part in OPERATORS for part in formula) >= _LEAST_OPERATORS


def _liken(formula: list[str], other: list[str]) -> float:
    if len(other) <= len(formula):
        return float(fuzz.ratio(formula, other))
    surplus = len(other) > _LONGER * len(formula)
    return float(fuzz.partial_ratio(formula, other)) - (_SURPLUS if surplus else 0.0)


def _formulas(tokens: Sequence[str]) -> Iterator[list[str]]:
    """Runs of formula tokens."""
    run: list[str] = []
    for token in tokens:
        part = formula_part(token)
        if part:
            run.append(part)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _has_other_question(pair: Pair) -> bool:
    item, here = set(pair.item.counts), pair.inside.keys()
    last = pair.item.last
    wanted = set(last.counts)
    start = max(pair.window[0], pair.window[1] - len(last.tokens) - _TAIL_EXTRA)
    tail = _count(pair.row, start, pair.window[1]).keys()
    for group in _ASKED:
        if (item & group) - here and (here & group) - item:
            return True
        asked = wanted & group
        if asked - here and (tail & group) - asked:
            return True
        if group is _EXTREMES and asked and not here & group:
            return True
        if group is _EXTREMES and pair.is_reworded and tail & group and not item & group:
            return True
    if last.weight < _LITTLE_ASKED and pair.shared >= _SOME:
        return False
    found = sum(weight_of(feature) for feature in wanted if feature in here)
    share = _REWORDED_QUESTION_SHARE if pair.is_reworded else _QUESTION_SHARE
    return found < share * last.weight


def _has_other_variable(pair: Pair) -> bool:
    """Whether the same system is solved for another of its variables."""
    row = pair.row
    if not pair.is_end or len(row.last.tokens) > _LONG_QUESTION:
        return False
    wanted, asked = _variables(pair.item.last), _variables(row.last)
    is_same_naming = wanted <= _variables(row) and asked <= _variables(pair.item)
    return bool(wanted and asked) and is_same_naming and not wanted & asked


def _variables(reading: Reading) -> set[str]:
    return {token for token in reading.tokens if is_variable(token)} - {"a"}
