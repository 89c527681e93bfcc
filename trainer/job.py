"""What determines one phase's training, found and checked before any work, and its rows."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.hashing import code_version, content_hash
from pipeline.manifest import Version
from pipeline.settings.recipe import Recipe
from pipeline.store import read_rows
from trainer.data import DataSettings, PhaseData, data_settings, open_dataset, prepare_rows
from trainer.memory import Shape, make_shape
from trainer.model import Init, count_parameters, resolve_init
from trainer.processes import Processes, find_processes
from trainer.recipe import determining_settings, phase_settings, refuse_unsupported

PACKAGES = ("pipeline", "trainer")
"""Packages whose source is part of a checkpoint's key."""
MIN_PAD_MULTIPLE = 128
"""Row lengths that the kernels are compiled for."""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that determines one phase's checkpoint."""

    recipe: Recipe
    phase: str
    root: Path
    """``<out>/checkpoints``."""
    dataset: Version
    init: Init

    @property
    def key(self) -> str:
        """The checkpoint's identity: equal keys mean equal weights on one machine."""
        return content_hash(
            {
                "phase": self.phase,
                "dataset": self.dataset.name,
                "settings": determining_settings(self.recipe, self.phase),
                "init": self.init.identity,
                "code": code_version(*PACKAGES),
            }
        )

    @property
    def staging(self) -> Path:
        """Where the run keeps its work until it is published."""
        return self.root / f".staging-phase-{self.phase}-{self.key}"

    @property
    def tokens(self) -> Path:
        """Where tokenised datasets are kept for all runs of this folder."""
        return self.root.parent / "tokens"

    def shape(self, backend: str) -> Shape:
        """What the memory of a step depends on."""
        return step_shape(self.recipe, self.phase, backend)


def step_shape(recipe: Recipe, phase: str, backend: str) -> Shape:
    """What the memory of a step depends on, which is the recipe and nothing of its data."""
    settings = recipe.settings
    alone = make_shape(
        settings.model,
        settings.training,
        phase_settings(recipe, phase),
        num_parameters=count_parameters(settings.model),
        backend=backend,
    )
    return replace(alone, world_size=find_processes().world_size)


def check_settings(recipe: Recipe, phase: str) -> None:
    """Hold a phase's settings against this trainer and this machine.

    Raises:
        ConfigError: The recipe lacks the phase or asks for what is refused here.
    """
    phase_settings(recipe, phase)
    refuse_unsupported(recipe.settings.training)


def open_job(recipe: Recipe, phase: str, out: Path, dataset: Path | None) -> Job:
    """Find and check everything a phase needs, before any work.

    Raises:
        ConfigError: The recipe lacks the phase or asks for what is refused here.
        SourceError: No dataset, or nothing to start from.
    """
    check_settings(recipe, phase)
    return Job(
        recipe=recipe,
        phase=phase,
        root=out / "checkpoints",
        dataset=open_dataset(out, phase, dataset),
        init=resolve_init(recipe, phase, out),
    )


def prepare_job_data(job: Job, processes: Processes, backend: str) -> PhaseData:
    """Rows of a phase for this number of processes."""
    training = job.recipe.settings.training
    workers = training.tokenise_workers or min(8, os.cpu_count() or 1)
    settings = job_data_settings(job, processes, backend)
    return prepare_rows(job.dataset, settings, cache=job.tokens, num_workers=workers)


def job_data_settings(job: Job, processes: Processes, backend: str) -> DataSettings:
    """What decides the rows; a plan and the training that it tells of share it."""
    training, phase = job.recipe.settings.training, phase_settings(job.recipe, job.phase)
    chunk = job.recipe.settings.model.chunk_size
    return data_settings(
        phase,
        training,
        num_processes=processes.world_size,
        pad_multiple=chunk if backend == "torch" else max(MIN_PAD_MULTIPLE, chunk),
    )


def ids_of_step(version: Version, data: PhaseData, step: int) -> list[str]:
    """Ids of the dataset's rows in an optimiser step, counted from 0; reads the shards."""
    rows = data.dataset
    places = rows.files.places(rows.kept[rows.schedule.step(step)].tolist())
    paths = version.shard_paths()
    ids = {shard: [row["id"] for row in read_rows(paths[shard], ["id"])] for shard, _ in places}
    return [ids[shard][row] for shard, row in places]
