"""Majority@k of mathematics: the commonest answer, equal answers counted together.

Answers vote under the grader's equivalence (1/2 votes with 0.5), not by their text. Most of that is
known already: answers that were graded correct equal the gold, thus each other; and an answer that
is correct never equals one that is wrong. Only whether wrong answers are one another's equals has
to be asked, and only where that could change who leads. What it may cost is bounded per problem.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from promptcot.verification.math_answers import normalise_answer, settle_by_text

Pairs = Sequence[tuple[str, str]]
Compare = Callable[[Pairs], Sequence[bool | None]]
"""Whether the answers of each pair are equal; none where that could not be found out."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """One problem's votes."""

    right: int
    """Answers that were graded correct: one group, however they are written."""
    wrong: tuple[tuple[str, int], ...]
    """Wrong answers by their normalised text, the commonest first."""

    @property
    def num_wrong(self) -> int:
        """Wrong answers that vote."""
        return sum(count for _, count in self.wrong)


@dataclass(frozen=True, slots=True)
class Majority:
    """What the votes of some problems came to."""

    credits: tuple[float, ...]
    """Per problem: 1 when the largest group is correct, 0 when it is not, shared in a tie."""
    num_unsettled: int
    """Problems in which comparisons that were not made, or not finished, could change the credit.
    Their answers count as unequal."""


def settle_pairs(pairs: Pairs) -> list[bool | None]:
    """The comparison that needs no processes: what the grader's rules decide by themselves."""
    return [settle_by_text(left, right) for left, right in pairs]


def read_ballot(answers: Sequence[tuple[str | None, bool]]) -> Ballot:
    """Votes of one problem.

    Args:
        answers: (extracted, correct) of its samples. Answers without a result do not vote.
    """
    voting = [(text, correct) for text, correct in answers if text is not None]
    wrong = Counter(normalise_answer(text) for text, correct in voting if not correct)
    ordered = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
    return Ballot(sum(correct for _, correct in voting), tuple(ordered))


def count_majorities(
    ballots: Sequence[Ballot], compare: Compare = settle_pairs, *, most_comparisons: int = 32
) -> Majority:
    """The credit of each problem's largest group of equal answers.

    Args:
        ballots: One per problem.
        compare: The grader's equality of two answer texts, asked about many pairs at once.
        most_comparisons: Pairs asked about in one problem; those of common answers come first.
    """
    wanted = [_pairs_that_matter(ballot) for ballot in ballots]
    asked = [pairs[:most_comparisons] for pairs in wanted]
    flat = [pair for pairs in asked for pair in pairs]
    verdicts = iter(compare(flat) if flat else ())
    credits, num_unsettled = [], 0
    for ballot, pairs, all_pairs in zip(ballots, asked, wanted, strict=True):
        answers = {pair: next(verdicts) for pair in pairs}
        credit = _credit(ballot, _group(ballot, answers))
        is_open = len(all_pairs) > len(pairs) or None in answers.values()
        num_unsettled += is_open and _could_change(ballot, credit)
        credits.append(credit)
    return Majority(tuple(credits), num_unsettled)


def _pairs_that_matter(ballot: Ballot) -> list[tuple[str, str]]:
    """Pairs of wrong answers whose equality could change who leads; the commonest first."""
    largest = ballot.wrong[0][1] if ballot.wrong else 0
    # The correct answers lead whatever is equal, or some wrong answer does already.
    if ballot.num_wrong < ballot.right or largest > ballot.right:
        return []
    texts = [text for text, _ in ballot.wrong]
    pairs = [(first, second) for second in range(len(texts)) for first in range(second)]
    return [(texts[first], texts[second]) for first, second in pairs]


def _group(ballot: Ballot, verdicts: dict[tuple[str, str], bool | None]) -> list[int]:
    """Sizes of the groups of equal wrong answers."""
    groups: list[list[tuple[str, int]]] = []
    for text, count in ballot.wrong:
        for group in groups:
            if any(verdicts.get((other, text)) is True for other, _ in group):
                group.append((text, count))
                break
        else:
            groups.append([(text, count)])
    return [sum(count for _, count in group) for group in groups]


def _credit(ballot: Ballot, groups: Sequence[int]) -> float:
    most = max([ballot.right, *groups])
    if most == 0 or ballot.right < most:
        return 0.0
    return 1.0 / (1 + sum(size == most for size in groups))


def _could_change(ballot: Ballot, credit: float) -> bool:
    """Whether some way of grouping the wrong answers would give another credit."""
    worst = _credit(ballot, [ballot.num_wrong] if ballot.wrong else [])
    return credit != worst
