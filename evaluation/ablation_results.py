"""What finished ablations came to: means over seeds, and differences to the full recipe.

In: ``<out>/ablations/*/<seed>/run.json`` and the evaluations that they name. Out: a row per variant
with every benchmark's mean, interval, difference and p-value, corrected by Holm over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from evaluation.intervals import bootstrap_interval
from evaluation.item_scores import ItemScores, read_item_scores
from evaluation.paired import Estimate, compare_means, correct_holm, estimate_over_seeds
from pipeline.errors import StoreError
from pipeline.hashing import derive_seed
from pipeline.manifest import load_version
from pipeline.settings.ablations import FULL, Matching
from pipeline.settings.evaluation import EvaluationSettings

RUN = "run.json"
_OF_THE_SEED = frozenset({"seed"})
"""Settings of an evaluation that differ between seeds."""


class PhaseRecord(BaseModel):
    """One phase of one run."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    dataset: str
    variant: str | None
    checkpoint: str
    num_rows: int
    num_steps: int
    num_tokens: int


class RunRecord(BaseModel):
    """``run.json``: one variant with one seed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    title: str
    matching: Matching
    paper: str
    seed: int
    evaluation: str
    """Folder of its evaluation version, relative to the run's."""
    phases: dict[str, PhaseRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """One variant with one seed, and its problems' scores by benchmark."""

    record: RunRecord
    scores: Mapping[str, ItemScores]
    settings: Mapping[str, object]
    """Of its evaluation, without what a seed changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationScore:
    """One benchmark of one variant, over its seeds; shares between 0 and 1."""

    benchmark: str
    mean: Estimate
    difference: Estimate | None
    """To the full recipe; none for the full recipe itself."""
    p_holm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationRow:
    """One variant."""

    name: str
    title: str
    matching: Matching
    paper: str
    seeds: tuple[int, ...]
    num_rows: int
    """Rows of all its phases."""
    num_steps: int
    num_tokens: int
    scores: tuple[AblationScore, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationTable:
    """All variants, the full recipe first, and what limits them."""

    rows: tuple[AblationRow, ...]
    notes: tuple[str, ...]


def read_runs(out: Path) -> list[FinishedRun]:
    """Every finished run under a run folder, by variant and seed.

    Raises:
        StoreError: A run's record is not readable.
        SourceError: Its evaluation is gone.
    """
    runs = []
    for path in sorted((out / "ablations").glob(f"*/*/{RUN}")):
        try:
            record = RunRecord.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError) as exc:
            raise StoreError(
                f"{path} is not a valid record of an ablation: {str(exc).splitlines()[0]}",
                hint="run python -m evaluation ablation again: it writes this file anew",
            ) from exc
        version = load_version(path.parent / record.evaluation)
        settings = version.manifest.settings
        kept = {key: value for key, value in settings.items() if key not in _OF_THE_SEED}
        runs.append(FinishedRun(record=record, scores=read_item_scores(version), settings=kept))
    return sorted(runs, key=lambda run: (run.record.name, run.record.matching, run.record.seed))


def tabulate(runs: Sequence[FinishedRun], settings: EvaluationSettings) -> AblationTable | None:
    """Means and differences over seeds and problems; none when the full recipe has no run."""
    arms: dict[tuple[str, str], list[FinishedRun]] = {}
    for run in runs:
        arms.setdefault((run.record.name, run.record.matching), []).append(run)
    full = arms.pop((FULL, "none"), [])
    if not full:
        return None
    rows = [_make_row(full, None, settings)]
    rows += [_make_row(arm, full, settings) for arm in arms.values()]
    return AblationTable(rows=_correct(rows), notes=tuple(_describe(runs, rows)))


def _make_row(
    arm: Sequence[FinishedRun], full: Sequence[FinishedRun] | None, settings: EvaluationSettings
) -> AblationRow:
    first = arm[0].record
    names = [
        name for name in arm[0].scores if all(name in run.scores for run in [*arm, *(full or [])])
    ]
    phases = first.phases.values()
    return AblationRow(
        name=first.name,
        title=first.title,
        matching=first.matching,
        paper=first.paper,
        seeds=tuple(run.record.seed for run in arm),
        num_rows=sum(phase.num_rows for phase in phases),
        num_steps=sum(phase.num_steps for phase in phases),
        num_tokens=sum(phase.num_tokens for phase in phases),
        scores=tuple(_score(name, arm, full, settings) for name in names),
    )


def _score(
    name: str,
    arm: Sequence[FinishedRun],
    full: Sequence[FinishedRun] | None,
    settings: EvaluationSettings,
) -> AblationScore:
    sides = [run.scores[name] for run in [*arm, *(full or [])]]
    items = [item for item in sides[0].items if _is_common(item, sides)]
    own = _matrix(arm, name, items)
    if full is None:
        return AblationScore(
            benchmark=name, mean=_estimate(own, name, settings), difference=None, p_holm=None
        )
    difference = _estimate_difference(_matrix(full, name, items), own, name, settings)
    return AblationScore(
        benchmark=name,
        mean=_estimate(own, name, settings),
        difference=difference,
        p_holm=difference.p_value,
    )


def _is_common(item: str, sides: Sequence[ItemScores]) -> bool:
    """Whether all runs answered this very problem."""
    return len({side.items[item].content if item in side.items else "" for side in sides}) == 1


def _matrix(runs: Sequence[FinishedRun], name: str, items: Sequence[str]) -> NDArray[np.float64]:
    """Mean scores, (seeds, problems)."""
    return np.asarray(
        [[run.scores[name].items[item].mean for item in items] for run in runs], np.float64
    )


def _estimate(own: NDArray[np.float64], name: str, settings: EvaluationSettings) -> Estimate:
    """Over seeds and problems; over problems alone with one seed."""
    if len(own) > 1:
        return estimate_over_seeds(own, None, confidence=settings.confidence)
    interval = bootstrap_interval(
        own[0].tolist(),
        confidence=settings.confidence,
        num_resamples=settings.bootstrap_samples,
        seed=derive_seed(settings.seed, "ablation", name),
    )
    return Estimate(mean=float(own.mean()), interval=interval, p_value=None, seed_spread=None)


def _estimate_difference(
    full: NDArray[np.float64], own: NDArray[np.float64], name: str, settings: EvaluationSettings
) -> Estimate:
    """Own minus full; with one seed on a side, of these very runs: over problems alone."""
    if min(len(full), len(own)) > 1:
        found = estimate_over_seeds(full, own, confidence=settings.confidence)
        if found.seed_spread:
            return found
    paired = compare_means(
        full.mean(axis=0).tolist(),
        own.mean(axis=0).tolist(),
        confidence=settings.confidence,
        num_resamples=settings.bootstrap_samples,
        seed=derive_seed(settings.seed, "ablation", name),
    )
    return Estimate(
        mean=paired.mean, interval=paired.interval, p_value=paired.p_value, seed_spread=None
    )


def _correct(rows: Sequence[AblationRow]) -> tuple[AblationRow, ...]:
    """Holm's correction over all differences of the table."""
    p_values = {
        f"{number}/{score.benchmark}": score.p_holm
        for number, row in enumerate(rows)
        for score in row.scores
        if score.p_holm is not None
    }
    corrected = correct_holm(p_values)
    return tuple(
        replace(
            row,
            scores=tuple(
                replace(score, p_holm=corrected.get(f"{number}/{score.benchmark}"))
                for score in row.scores
            ),
        )
        for number, row in enumerate(rows)
    )


def _describe(runs: Sequence[FinishedRun], rows: Sequence[AblationRow]) -> list[str]:
    """What the numbers cannot say."""
    notes = []
    full = rows[0]
    unmatched = [row for row in rows[1:] if row.matching == "none"]
    if any(row.num_steps != full.num_steps for row in unmatched):
        notes.append(
            "Variants that are not matched train for fewer steps and on fewer tokens than the full "
            "recipe: their difference is of the data and of the training's length together."
        )
    if any(len(row.seeds) < 2 for row in rows):
        notes.append(
            "With one seed an interval is over problems alone: another run of the same recipe may "
            "differ by more than it says."
        )
    if any(row.seeds != full.seeds for row in rows):
        notes.append("Not all variants have been run with the same seeds.")
    if any(run.settings != runs[0].settings for run in runs):
        notes.append(
            "Not all runs were sampled and graded with the same settings: run the ablations again "
            "to bring the older ones up to date."
        )
    return notes
