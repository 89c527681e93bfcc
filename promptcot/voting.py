"""Majority voting over the final answers of one problem's samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from promptcot.verification.math_answers import normalise_answer

Grade = Callable[[Sequence[tuple[str, str]]], list[bool]]
"""(gold, predicted) answer texts → equal; the signature of ``MathGrader.grade``."""


@dataclass(frozen=True, slots=True)
class Vote:
    """How one problem's samples voted."""

    clusters: tuple[tuple[int, ...], ...]
    """Positions of samples with equal answers, largest cluster first."""

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


def count_votes(questions: Sequence[Sequence[str | None]], grade: Grade) -> list[Vote]:
    """Group equal answers of each problem's samples.

    All problems' comparisons go to ``grade`` in one call, so that its workers stay busy. Answers
    whose texts agree are not compared again.

    Args:
        questions: For each problem, its samples' answers; none where a sample has none.
        grade: Compares pairs of answers.
    """
    texts = [
        sorted({normalise_answer(a) for a in answers if a is not None}) for answers in questions
    ]
    pairs = [(q, a, b) for q, distinct in enumerate(texts) for a, b in combinations(distinct, 2)]
    equal = grade([(a, b) for _, a, b in pairs])
    roots: list[dict[str, str]] = [{text: text for text in distinct} for distinct in texts]
    for (question, a, b), same in zip(pairs, equal, strict=True):
        if same:
            _join(roots[question], a, b)
    return [_group(answers, roots[q]) for q, answers in enumerate(questions)]


def _find(roots: dict[str, str], text: str) -> str:
    while roots[text] != text:
        text = roots[text]
    return text


def _join(roots: dict[str, str], a: str, b: str) -> None:
    first, second = sorted((_find(roots, a), _find(roots, b)))
    roots[second] = first


def _group(answers: Sequence[str | None], roots: dict[str, str]) -> Vote:
    groups: dict[str, list[int]] = {}
    for position, answer in enumerate(answers):
        if answer is not None:
            groups.setdefault(_find(roots, normalise_answer(answer)), []).append(position)
    ordered = sorted(groups.values(), key=lambda group: (-len(group), group[0]))
    return Vote(clusters=tuple(tuple(group) for group in ordered))
