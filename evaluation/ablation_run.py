"""Run ablations: datasets, both phases of training, evaluation, for every variant and seed.

    <out>/datasets/phase-N-<variant>/        built once for all seeds
    <out>/ablations/<label>/<seed>/          a run folder: checkpoints, evaluation, logs
    <out>/ablations/<label>/<seed>/run.json  written last: what the tables are made of

Every part resumes by itself and is not done again when it is finished. A phase that another run of
the same seed has trained from the same start on the same rows is the same checkpoint: it is linked,
not trained again. Leaving out phase 2 thus costs one evaluation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.ablation_plan import (
    Arm,
    PhasePlan,
    build_datasets,
    plan_arm,
    seed_recipe,
    set_steps,
)
from evaluation.ablation_results import RUN
from evaluation.run import evaluate_checkpoint
from pipeline import console
from pipeline.manifest import Version
from pipeline.settings.recipe import Recipe
from pipeline.store import exclusive_lock, write_json
from trainer.checkpoints import read_key, read_training
from trainer.job import open_job
from trainer.sft import train_phase


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationRun:
    """One variant with one seed."""

    arm: Arm
    seed: int
    recipe: Recipe
    """With the seed, and the steps that matching asks for."""
    datasets: Mapping[str, Version]
    folder: Path

    @property
    def title(self) -> str:
        """E.g. ``no-open-thoughts2, seed 1``."""
        return f"{self.arm.label}, seed {self.seed}"

    def checkpoint(self, phase: str) -> Path:
        """Where a phase's checkpoint is, or will be."""
        return self.folder / "checkpoints" / f"phase-{phase}"


def run_folder(out: Path, arm: Arm, seed: int) -> Path:
    """Where one variant with one seed keeps its checkpoints and scores."""
    return out / "ablations" / arm.label / str(seed)


def run_ablations(
    recipe: Recipe, arms: Sequence[Arm], seeds: Sequence[int], out: Path
) -> list[Path]:
    """Run what is missing, seed by seed, so that whole comparisons are there early.

    Args:
        recipe: The experiment.
        arms: The recipe itself first, then its variants.
        seeds: Seeds of each.
        out: The run folder.

    Returns:
        The folders, each with its ``run.json``.

    Raises:
        PipelineError: A part cannot be done; what was finished before it stays.
    """
    with exclusive_lock(out / "ablations" / ".lock", "the ablations of this run folder"):
        runs = prepare_runs(recipe, arms, seeds, out)
        for number, run in enumerate(runs, start=1):
            console.heading(f"{number}/{len(runs)} {run.title}")
            _run_one(run, out)
    return [run.folder for run in runs]


def prepare_runs(
    recipe: Recipe, arms: Sequence[Arm], seeds: Sequence[int], out: Path
) -> list[AblationRun]:
    """Build every dataset, and settle every run's steps, before the first one trains."""
    plans: dict[str, dict[str, PhasePlan]] = {}
    datasets: dict[str, dict[str, Version]] = {}
    for arm in arms:
        datasets[arm.label] = build_datasets(recipe, arm, out)
        full = plans.get(arms[0].label, {})
        plans[arm.label] = plan_arm(recipe, arm, datasets[arm.label], full)
    runs = []
    for seed in seeds:
        for arm in arms:
            steps = {p: plan.max_steps for p, plan in plans[arm.label].items() if plan.max_steps}
            run = AblationRun(
                arm=arm,
                seed=seed,
                recipe=set_steps(seed_recipe(recipe, seed), steps),
                datasets=datasets[arm.label],
                folder=run_folder(out, arm, seed),
            )
            runs.append(run)
    return runs


def _run_one(run: AblationRun, out: Path) -> None:
    _share_tokens(run.folder, out)
    for phase in run.arm.phases:
        _train(run, phase, out)
    name = f"phase-{run.arm.last_phase}"
    checkpoint = run.checkpoint(run.arm.last_phase)
    version = evaluate_checkpoint(run.recipe, checkpoint, run.folder, name)
    scores = ", ".join(
        f"{score['benchmark']} {score['avg_at_k']:.1%}"
        for score in version.manifest.extra["scores"]
    )
    console.say(f"{run.title}: {scores}")
    write_json(run.folder / RUN, _describe(run, version))


def _train(run: AblationRun, phase: str, out: Path) -> None:
    """Train a phase, or take the same checkpoint from another run."""
    dataset = run.datasets[phase].folder
    own = run.checkpoint(phase)
    key = open_job(run.recipe, phase, run.folder, dataset).key
    if read_key(own) == key:
        console.say(f"phase {phase}: finished before")
        return
    twin = next((path for path in _siblings(run, phase, out) if read_key(path) == key), None)
    if twin is not None and _link(own, twin):
        console.say(f"phase {phase}: the same as {twin.relative_to(out)}, which is used")
        return
    if own.is_symlink():
        own.unlink()  # What it leads to was replaced by other weights.
    result = train_phase(run.recipe, phase, run.folder, dataset)
    console.say(
        f"phase {phase}: loss {result.first_loss:.3f} → {result.last_loss:.3f} in "
        f"{result.num_steps:,} steps on {result.num_rows:,} rows"
    )


def _siblings(run: AblationRun, phase: str, out: Path) -> Iterator[Path]:
    """Where the same checkpoint may be: the recipe's own run, then other variants."""
    yield out / "checkpoints" / f"phase-{phase}"
    for folder in sorted((out / "ablations").glob(f"*/{run.seed}")):
        path = folder / "checkpoints" / f"phase-{phase}"
        if folder != run.folder and not path.is_symlink():
            yield path


def _link(own: Path, twin: Path) -> bool:
    """Point to the twin; a real folder of other weights that is in the way stays."""
    if own.is_symlink():
        own.unlink()
    if own.exists():
        return False
    own.parent.mkdir(parents=True, exist_ok=True)
    own.symlink_to(os.path.relpath(twin, own.parent), target_is_directory=True)
    return True


def _share_tokens(folder: Path, out: Path) -> None:
    """Tokenised datasets are named by content: all runs use one cache."""
    cache, own = out / "tokens", folder / "tokens"
    cache.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    if not own.is_symlink() and not own.exists():
        own.symlink_to(os.path.relpath(cache, folder), target_is_directory=True)


def _describe(run: AblationRun, version: Version) -> dict[str, Any]:
    """What the tables need, named without this machine's paths."""
    training = {phase: read_training(run.checkpoint(phase)) for phase in run.arm.phases}
    variant = run.recipe.settings.ablations.variants.get(run.arm.name)
    return {
        "name": run.arm.name,
        "title": run.arm.title,
        "matching": run.arm.matching,
        "paper": variant.paper if variant is not None else "",
        "seed": run.seed,
        "evaluation": f"evaluation/phase-{run.arm.last_phase}/{version.name}",
        "phases": {
            phase: {
                "dataset": run.datasets[phase].name,
                "variant": run.arm.data.get(phase),
                "checkpoint": values["key"],
                "num_rows": values["num_rows"],
                "num_steps": values["num_steps"],
                "num_tokens": values["tokens_seen"],
            }
            for phase, values in training.items()
        },
    }
