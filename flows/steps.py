"""The steps of the whole loop, as data: the plain driver and the Prefect flows run the same ones.

Nothing here imports Prefect, and every stage is imported only when its step runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline import events
from pipeline.manifest import Version
from pipeline.settings.recipe import Recipe
from promptcot.stage_names import BANK, SEED_STAGES, STAGES, TITLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one step came to."""

    line: str
    """Counts in one line, for a log."""
    path: Path
    """What was written: a version, a checkpoint or a page."""
    reused: bool = False
    """It existed already, and nothing was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: its name, the report's stages it fills, and what runs it."""

    key: str
    title: str
    stages: tuple[str, ...]
    """Keys of the report's stages (``evaluation.report_view``) whose counts belong to it."""
    run: Callable[[Recipe, Path], Outcome]
    is_wanted: Callable[[Recipe], bool] = lambda recipe: True
    """Whether a recipe has this step at all."""
    part: str = ""
    """What of the run folder it has to itself (``pipeline.claims``); its key if empty."""

    @property
    def claim(self) -> str:
        """The part of the run folder that no other run may work on meanwhile."""
        return self.part or self.key


def run_recorded(step: Step, recipe: Recipe, out: Path) -> Outcome:
    """Run a step; the event log tells that it began, and what it came to.

    Raises:
        PipelineError: It cannot be done; what was finished before it stays.
    """
    with events.step(step.key, step.title) as result:
        outcome = step.run(recipe, out)
        result.update(line=outcome.line, path=str(outcome.path), reused=outcome.reused)
    return outcome


def synthesize(recipe: Recipe, out: Path) -> Outcome:
    """Concept combinations to verified traces."""
    from promptcot import synthesis

    return _describe_version(synthesis.synthesize(recipe, out))


def synthesize_stage(recipe: Recipe, out: Path, *, stage: str) -> Outcome:
    """One stage of synthesis, on the newest version of the stage before it."""
    from promptcot import synthesis

    return _describe_version(synthesis.run_one_stage(recipe, out, stage))


def build_dataset(recipe: Recipe, out: Path, *, phase: str) -> Outcome:
    """Sources to a phase version."""
    from curriculum.build import build_phase

    return _describe_version(build_phase(recipe, phase, out))


def train(recipe: Recipe, out: Path, *, phase: str) -> Outcome:
    """A phase version to a checkpoint."""
    from trainer.sft import train_phase

    result = train_phase(recipe, phase, out)
    dropped = sum(result.num_dropped.values())
    line = (
        f"loss {result.first_loss:.3f} → {result.last_loss:.3f} in {result.num_steps:,} steps on "
        f"{result.num_rows:,} rows" + (f", {dropped:,} rows left out" if dropped else "")
    )
    return Outcome(line=line, path=result.checkpoint, reused=result.reused)


def evaluate(recipe: Recipe, out: Path) -> Outcome:
    """All checkpoints that the recipe names, one after the other."""
    outcomes = [
        evaluate_one(recipe, out, name=name) for name in recipe.settings.evaluation.checkpoints
    ]
    return Outcome(
        line="; ".join(outcome.line for outcome in outcomes) or "the recipe names no checkpoint",
        path=outcomes[-1].path if outcomes else out / "evaluation",
        reused=all(outcome.reused for outcome in outcomes),
    )


def evaluate_one(recipe: Recipe, out: Path, *, name: str) -> Outcome:
    """Score one checkpoint: a name under ``checkpoints/``, or any model folder."""
    from evaluation.run import evaluate_checkpoint

    checkpoint = Path(name) if "/" in name else out / "checkpoints" / name
    label = checkpoint.name
    version = evaluate_checkpoint(recipe, checkpoint, out, label)
    scores = ", ".join(
        f"{score['benchmark']} {score['avg_at_k']:.1%}"
        for score in version.manifest.extra["scores"]
    )
    return Outcome(line=f"{label}: {scores}", path=version.folder, reused=version.reused)


def report(recipe: Recipe, out: Path) -> Outcome:
    """Everything the run left on disk to one page, and its synthesis to one of its own."""
    from evaluation.report import write_report
    from promptcot.costs import newest_versions
    from promptcot.report import write_synthesis_report

    path = write_report(recipe, out)
    if STAGES[0] in newest_versions(out):
        write_synthesis_report(recipe, out)
    return Outcome(line=f"{path.stat().st_size / 1024:,.0f} KiB, one file", path=path)


def makes_its_bank(recipe: Recipe) -> bool:
    """Whether the recipe names seed problems instead of a finished bank."""
    return bool(recipe.settings.synthesis.seeds)


def _stage_step(stage: str, is_wanted: Callable[[Recipe], bool] = lambda recipe: True) -> Step:
    return Step(
        key=stage,
        title=TITLES[stage].lower(),
        stages=SEED_STAGES if stage == BANK else (stage,),
        run=partial(synthesize_stage, stage=stage),
        is_wanted=is_wanted,
        part="synthesis",
    )


SYNTHESIS = Step(key="synthesis", title="synthesis", stages=(*SEED_STAGES, *STAGES), run=synthesize)
SYNTHESIS_STAGES = (
    _stage_step(BANK, makes_its_bank),
    *(_stage_step(stage) for stage in STAGES),
)
"""The same work as :data:`SYNTHESIS`, stage by stage: a bar each on a run's page."""
DATASETS = {
    phase: Step(
        key=f"data-{phase}",
        title=f"phase {phase} dataset",
        stages=(f"dataset-{phase}",),
        run=partial(build_dataset, phase=phase),
    )
    for phase in ("1", "2")
}
TRAINING = {
    phase: Step(
        key=f"sft-{phase}",
        title=f"SFT phase {phase}",
        stages=(f"training-{phase}",),
        run=partial(train, phase=phase),
    )
    for phase in ("1", "2")
}
EVALUATION = Step(
    key="evaluation",
    title="evaluation of the checkpoints",
    stages=("evaluation-phase-1", "evaluation-phase-2"),
    run=evaluate,
)


def evaluation_of(checkpoint: str) -> Step:
    """The step that scores one checkpoint."""
    label = Path(checkpoint).name
    return Step(
        key=f"evaluation-{label}",
        title=f"evaluation of {label}",
        stages=(f"evaluation-{label}",),
        run=partial(evaluate_one, name=checkpoint),
    )


REPORT = Step(key="report", title="report", stages=(), run=report)

_AFTER_SYNTHESIS = (*DATASETS.values(), *TRAINING.values(), EVALUATION, REPORT)
WHOLE_LOOP = (SYNTHESIS, *_AFTER_SYNTHESIS)
WHOLE_LOOP_BY_STAGE = (*SYNTHESIS_STAGES, *_AFTER_SYNTHESIS)


def stay_offline(recipe: Recipe) -> None:
    """Tell the hub's client so, when the recipe reads nothing from there.

    The variable is read once, when ``huggingface_hub`` is first imported.
    """
    settings = recipe.settings
    if settings.model.init_from is None and not any(s.hub_id for s in settings.curriculum.sources):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _describe_version(version: Version) -> Outcome:
    manifest = version.manifest
    counts = {
        reason: count for reasons in manifest.rejected.values() for reason, count in reasons.items()
    }
    line = (
        f"{manifest.rows_out:,} of {manifest.rows_in:,} {manifest.extra.get('unit', 'rows')} kept"
    )
    if counts:
        top = max(counts, key=lambda reason: (counts[reason], reason))
        line += f", {manifest.rows_rejected:,} rejected (most: {top.replace('_', ' ')})"
    return Outcome(line=line, path=version.folder, reused=version.reused)
