"""One phase's training from dataset version to published checkpoint."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.hashing import code_version, content_hash
from pipeline.manifest import Version
from pipeline.run_folder import append_log, prepare_run_folder
from pipeline.settings.recipe import Recipe
from pipeline.store import exclusive_lock, write_json
from trainer import checkpoints
from trainer.data import Counts, open_dataset, write_examples
from trainer.model import Init, load_model, resolve_init
from trainer.recipe import (
    build_sft_config,
    determining_settings,
    phase_settings,
    refuse_unsupported,
)
from trainer.sft import TrainingResult
from trainer.tokenizer import build_tokenizer

PACKAGES = ("pipeline", "trainer")
"""Packages whose source is part of a checkpoint's key."""


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


def open_job(recipe: Recipe, phase: str, out: Path, dataset: Path | None) -> Job:
    """Find and check everything a phase needs, before any work.

    Raises:
        ConfigError: The recipe lacks the phase or asks for what is refused here.
        SourceError: No dataset, or nothing to start from.
    """
    phase_settings(recipe, phase)
    refuse_unsupported(recipe.settings.training)
    return Job(
        recipe=recipe,
        phase=phase,
        root=out / "checkpoints",
        dataset=open_dataset(out, phase, dataset),
        init=resolve_init(recipe, phase, out),
    )


def run_phase(recipe: Recipe, phase: str, out: Path, dataset: Path | None) -> TrainingResult:
    """See :func:`trainer.sft.train_phase`."""
    job = open_job(recipe, phase, out, dataset)
    prepare_run_folder(recipe, out)
    with exclusive_lock(job.root / f".lock-phase-{phase}", f"training of phase {phase}"):
        finished = checkpoints.find_finished(job.root, phase, job.key)
        if finished is not None:
            return _read_result(finished, reused=True)
        model = job.staging / "model"
        # A training.json in the staging folder means that only the rename was cut off.
        if not (model / checkpoints.TRAINING).is_file():
            with checkpoints.explain_save_errors(job.staging):
                _train(job, model)
        final = checkpoints.publish(model, job.root, phase)
        shutil.rmtree(job.staging, ignore_errors=True)
    result = _read_result(final, reused=False)
    append_log(out, "training", {"phase": phase, "key": job.key, "loss": result.last_loss})
    return result


def _train(job: Job, target: Path) -> None:
    """Train from the newest intermediate checkpoint, or the start, and write the model folder."""
    training, phase = job.recipe.settings.training, phase_settings(job.recipe, job.phase)
    examples = job.staging / "examples.arrow"
    counts = write_examples(
        job.dataset,
        examples,
        max_length=phase.max_length,
        documents_per_step=training.documents_per_step,
    )
    with quiet_libraries(training.num_threads):
        trainer = _build_trainer(job, examples)
        log = job.staging / "train_log.jsonl"
        _run_trainer(job, trainer, counts, log)
        shutil.rmtree(target, ignore_errors=True)
        trainer.model.config.use_cache = True
        trainer.save_model(str(target))
    (target / "training_args.bin").unlink()
    shutil.copyfile(log, target / log.name)
    _write_summary(job, trainer, counts, target)


def _build_trainer(job: Job, examples: Path) -> Any:
    from datasets import Dataset
    from transformers import PrinterCallback

    from trainer.student_trainer import StudentTrainer

    training, phase = job.recipe.settings.training, phase_settings(job.recipe, job.phase)
    trainer = StudentTrainer(
        model=load_model(job.recipe.settings.model, job.init, training.seed),
        args=build_sft_config(training, phase, job.staging / "steps"),
        train_dataset=Dataset.from_file(str(examples)),
        processing_class=build_tokenizer(),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _run_trainer(job: Job, trainer: Any, counts: Counts, log: Path) -> None:
    from trainer.callbacks import TrainingLog
    from trainer.recipe import count_steps

    training, phase = job.recipe.settings.training, phase_settings(job.recipe, job.phase)
    resume = checkpoints.find_resumable(job.staging / "steps")
    if resume is not None:
        console.say(f"resuming phase {job.phase} from {resume.name}")
    total = count_steps(counts.num_rows, training, phase)
    with console.progress(f"train phase {job.phase}", total=total, unit="steps") as advance:
        trainer.add_callback(TrainingLog(log, counts.step_tokens, advance))
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))


def _write_summary(job: Job, trainer: Any, counts: Counts, target: Path) -> None:
    """Write ``training.json``, last of all files."""
    from trainer.callbacks import tokens_after

    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    num_steps = trainer.state.global_step
    write_json(
        target / checkpoints.TRAINING,
        {
            "phase": job.phase,
            "key": job.key,
            "dataset_version": job.dataset.name,
            "settings": determining_settings(job.recipe, job.phase),
            "code_version": code_version(*PACKAGES),
            "init": {"kind": job.init.kind, "identity": job.init.identity},
            "num_rows": counts.num_rows,
            "rejected": dict(sorted(counts.rejected.items())),
            "num_steps": num_steps,
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "num_parameters": sum(p.numel() for p in trainer.model.parameters()),
            "documents_per_step": job.recipe.settings.training.documents_per_step,
            "tokens_seen": tokens_after(num_steps, counts.step_tokens),
        },
    )


def _read_result(folder: Path, *, reused: bool) -> TrainingResult:
    values = checkpoints.read_training(folder)
    return TrainingResult(
        checkpoint=folder,
        first_loss=values["first_loss"],
        last_loss=values["last_loss"],
        num_steps=values["num_steps"],
        num_rows=values["num_rows"],
        num_dropped=values["rejected"],
        reused=reused,
    )


def show_result(result: TrainingResult, *, as_json: bool) -> None:
    """Print what a phase's training came to."""
    if as_json:
        console.print_json({**asdict(result), "checkpoint": str(result.checkpoint)})
        return
    console.say(
        f"{'finished before' if result.reused else 'trained'}: {result.num_rows} rows "
        f"({sum(result.num_dropped.values())} left out), {result.num_steps} steps, "
        f"loss {result.first_loss:.3f} → {result.last_loss:.3f}"
    )
    for reason, count in result.num_dropped.items():
        console.say(f"  left out: {count} {reason}")
    console.say(f"checkpoint: {result.checkpoint}")


@contextmanager
def quiet_libraries(num_threads: int) -> Iterator[None]:
    """Set PyTorch's threads; silence what libraries say that the user can do nothing about."""
    import torch
    from transformers.utils import logging

    before, verbosity = torch.get_num_threads(), logging.get_verbosity()
    if num_threads:
        torch.set_num_threads(num_threads)
    # "falling back to its reference PyTorch implementation": the documented path on a CPU.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(trl|transformers)\b")
        try:
            yield
        finally:
            torch.set_num_threads(before)
            logging.set_verbosity(verbosity)
            logging.enable_progress_bar()
