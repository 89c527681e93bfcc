"""Majority voting over the final answers of one problem's samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from promptcot.verification.math_answers import normalise_answer, settle_normalised

Compare = Callable[[Sequence[tuple[str, str]]], Sequence[bool | None]]
"""Pairs of answer texts → equal, or none where nobody can tell: ``MathGrader.compare``."""


@dataclass(frozen=True, slots=True)
class Vote:
    """How one problem's samples voted."""

    clusters: tuple[tuple[int, ...], ...]
    """Positions of samples with equal answers, largest cluster first."""
    num_uncompared: int = 0
    """Pairs of answers whose comparison reached a limit; they count as different."""

    @property
    def num_votes(self) -> int:
        """Samples that have an answer."""
        return sum(len(cluster) for cluster in self.clusters)

    @property
    def winner(self) -> tuple[int, ...] | None:
        """The largest cluster; none when two are equally large or there is no answer."""
        if not self.clusters:
            return None
        if len(self.clusters) > 1 and len(self.clusters[0]) == len(self.clusters[1]):
            return None
        return self.clusters[0]

    def size_of(self, sample: int) -> int:
        """Samples that agree with this one, itself included."""
        return next((len(c) for c in self.clusters if sample in c), 0)


def count_votes(questions: Sequence[Sequence[str | None]], compare: Compare) -> list[Vote]:
    """Group equal answers of each problem's samples.

    What the texts decide is not compared. All other comparisons go out in one call, so that the
    workers stay busy.

    Args:
        questions: For each problem, its samples' answers; none where a sample has none.
        compare: Compares pairs of answers.
    """
    ballots = [_Ballot(answers) for answers in questions]
    open_pairs = [(ballot, pair) for ballot in ballots for pair in ballot.settle()]
    verdicts = compare([pair for _, pair in open_pairs]) if open_pairs else []
    for (ballot, (a, b)), equal in zip(open_pairs, verdicts, strict=True):
        if equal is None:
            ballot.num_uncompared += 1
        elif equal:
            ballot.join(a, b)
    return [ballot.count() for ballot in ballots]


class _Ballot:
    """The answers of one problem while they are grouped."""

    def __init__(self, answers: Sequence[str | None]) -> None:
        self._texts = [None if a is None else normalise_answer(a) for a in answers]
        self._roots = {text: text for text in self._texts if text is not None}
        self.num_uncompared = 0

    def settle(self) -> list[tuple[str, str]]:
        """Join what the texts show to be equal; the pairs that they leave open."""
        pairs = []
        for a, b in combinations(sorted(self._roots), 2):
            equal = settle_normalised(a, b)
            if equal is None:
                pairs.append((a, b))
            elif equal:
                self.join(a, b)
        return pairs

    def join(self, a: str, b: str) -> None:
        first, second = sorted((self._find(a), self._find(b)))
        self._roots[second] = first

    def count(self) -> Vote:
        groups: dict[str, list[int]] = {}
        for position, text in enumerate(self._texts):
            if text is not None:
                groups.setdefault(self._find(text), []).append(position)
        ordered = sorted(groups.values(), key=lambda group: (-len(group), group[0]))
        return Vote(tuple(tuple(group) for group in ordered), self.num_uncompared)

    def _find(self, text: str) -> str:
        while self._roots[text] != text:
            text = self._roots[text]
        return text
