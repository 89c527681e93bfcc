"""Scores of judges against a person's labels, as JSON and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import console
from pipeline.records import Rating
from pipeline.settings.judging import JudgingSettings
from promptcot.agreement import Agreement, cohen_kappa, wilson_interval
from promptcot.panel import Opinion, Vote, combine, wanted_verdict
from promptcot.panel_counts import VERDICTS
from promptcot.parsing import Defect
from promptcot.ratings import VERDICT_ORDER

UNREADABLE = "unreadable"
"""Outcome of a problem without a verdict: a vote that nobody can read, or none asked for."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval (Wilson)."""

    hits: int
    total: int

    @property
    def value(self) -> float | None:
        """The share; none of nothing."""
        return self.hits / self.total if self.total else None

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self._interval[0]

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self._interval[1]

    @property
    def _interval(self) -> tuple[float, float]:
        return wilson_interval(self.hits / self.total, self.total) if self.total else (0.0, 1.0)

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "hits": self.hits,
            "total": self.total,
            "value": None if self.value is None else round(self.value, 6),
            "low": round(self.low, 6),
            "high": round(self.high, 6),
        }

    def describe(self) -> str:
        """The share in one cell."""
        if self.value is None:
            return "none of none"
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%}), {self.hits} of {self.total}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterScore:
    """One judge, or the panel as a whole, against the labels."""

    name: str
    num_ratings: int
    """Votes of a judge; problems for the panel."""
    confusion: Mapping[str, Mapping[str, int]]
    """Label → verdict (or ``unreadable``) → number."""
    precision: Share
    """Of what it let pass, the share that a person would let pass."""
    recall: Share
    """Of what a person would let pass, the share that it let pass."""
    kappa: Agreement
    """With the labels, over what could be read."""
    num_unreadable: int

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name,
            "num_ratings": self.num_ratings,
            "confusion": {label: dict(found) for label, found in self.confusion.items()},
            "precision": self.precision.as_json(),
            "recall": self.recall.as_json(),
            "kappa_with_labels": self.kappa.as_json(),
            "num_unreadable": self.num_unreadable,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport:
    """How far the recipe's judges can be trusted."""

    labels: str
    """The file's name, without its folder."""
    labels_sha256: str
    num_problems: int
    label_counts: Mapping[str, int]
    wanted: str
    """The verdict from which the recipe keeps a problem."""
    base_rate: Share
    """Labelled problems that deserve to be kept: the precision of judges who keep everything."""
    judges: tuple[RaterScore, ...]
    panel: RaterScore
    agreement: Mapping[str, Any]
    """Between the judges, as in the manifest of the stage ``judged``."""
    tokens: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """The report as one JSON-ready object, the same on every machine."""
        return {
            "labels": {"file": self.labels, "sha256": self.labels_sha256},
            "num_problems": self.num_problems,
            "label_counts": dict(self.label_counts),
            "wanted_verdict": self.wanted,
            "base_rate": self.base_rate.as_json(),
            "judges": [judge.as_json() for judge in self.judges],
            "panel": self.panel.as_json(),
            "agreement": dict(self.agreement),
            "tokens": dict(self.tokens),
        }

    def show(self) -> None:
        """Print scores and the panel's confusion matrix."""
        console.table(
            f"Judges on {self.num_problems} labelled problems ({self.labels})",
            ("judge", "precision", "recall", "with the labels", "unreadable"),
            [
                (
                    score.name,
                    score.precision.describe(),
                    score.recall.describe(),
                    score.kappa.describe(),
                    score.num_unreadable,
                )
                for score in (*self.judges, self.panel)
            ],
        )
        columns = [str(verdict) for verdict in VERDICTS] + [UNREADABLE]
        console.table(
            "The panel's verdict",
            ("label", *columns),
            [
                (label, *(found[c] for c in columns))
                for label, found in self.panel.confusion.items()
            ],
        )
        console.say(
            f'Judges are scored vote by vote at "perfect"; the panel by what it keeps '
            f'("{self.wanted}" or better). Intervals: 95 %. Judges who kept everything would '
            f"have a precision of {self.base_rate.value or 0.0:.1%}."
        )


def score_judge(judge: str, labels: Sequence[Rating], opinions: Sequence[Opinion]) -> RaterScore:
    """A judge's votes, each against the label, at the verdict "perfect"."""
    pairs = [
        (label, _verdict_of(vote))
        for label, opinion in zip(labels, opinions, strict=True)
        for vote in opinion.of(judge)
    ]
    passed = [verdict is Rating.PERFECT for _, verdict in pairs]
    return _score(judge, pairs, passed, Rating.PERFECT)


def score_panel(
    labels: Sequence[Rating], opinions: Sequence[Opinion], settings: JudgingSettings
) -> RaterScore:
    """What the panel keeps, against the labels that deserve to be kept."""
    pairs = []
    for label, opinion in zip(labels, opinions, strict=True):
        verdicts = [_verdict_of(vote) for vote in opinion.votes]
        readable = [verdict for verdict in verdicts if verdict is not None]
        whole = len(readable) == len(verdicts) > 0
        pairs.append((label, combine(readable, settings) if whole else None))
    passed = [opinion.defect is None for opinion in opinions]
    return _score("panel", pairs, passed, wanted_verdict(settings))


def _verdict_of(vote: Vote) -> Rating | None:
    return None if isinstance(vote.ratings, Defect) else vote.ratings.verdict


def _score(
    name: str,
    pairs: Sequence[tuple[Rating, Rating | None]],
    passed: Sequence[bool],
    wanted: Rating,
) -> RaterScore:
    good = [VERDICT_ORDER.index(label) >= VERDICT_ORDER.index(wanted) for label, _ in pairs]
    hits = sum(1 for is_good, is_passed in zip(good, passed, strict=True) if is_good and is_passed)
    found = Counter((label, verdict) for label, verdict in pairs)
    return RaterScore(
        name=name,
        num_ratings=len(pairs),
        confusion={
            str(label): {
                **{str(verdict): found[label, verdict] for verdict in VERDICTS},
                UNREADABLE: found[label, None],
            }
            for label in VERDICTS
        },
        precision=Share(hits, sum(passed)),
        recall=Share(hits, sum(good)),
        kappa=cohen_kappa([[found[label, verdict] for verdict in VERDICTS] for label in VERDICTS]),
        num_unreadable=sum(1 for _, verdict in pairs if verdict is None),
    )
