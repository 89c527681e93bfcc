"""One phase's training from dataset version to published checkpoint."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.events import emit, recording
from pipeline.run_folder import append_log, prepare_run_folder
from pipeline.settings.recipe import Recipe
from pipeline.stage_events import Work
from pipeline.store import exclusive_lock
from trainer import checkpoints
from trainer.data import PhaseData
from trainer.failures import explain_memory, explain_save_errors
from trainer.job import Job, ids_of_step, open_job, prepare_job_data
from trainer.model import load_model
from trainer.processes import Processes, find_processes, join, note_unused_gpus
from trainer.recipe import build_sft_config, choose_backend, phase_settings
from trainer.run_log import RunLog
from trainer.sft import TrainingResult
from trainer.step_checkpoints import find_resumable
from trainer.stopping import StopSignal, tell_stopped
from trainer.tokenizer import build_tokenizer


def run_phase(recipe: Recipe, phase: str, out: Path, dataset: Path | None) -> TrainingResult:
    """See :func:`trainer.sft.train_phase`."""
    processes = find_processes()
    join(processes)
    job = open_job(recipe, phase, out, dataset)
    with ExitStack() as stack:
        finished = None
        if processes.is_main:
            prepare_run_folder(recipe, out)
            what = f"training of phase {phase}"
            stack.enter_context(recording(out, recipe.settings.events, what))
            lock = job.root / f".lock-phase-{phase}"
            stack.enter_context(exclusive_lock(lock, what))
            finished = checkpoints.find_finished(job.root, phase, job.key)
        finished = processes.share(finished)
        if finished is not None:
            emit("stage.reused", stage=f"training-{phase}", unit="steps")
            return read_result(finished, reused=True)
        model = job.staging / "model"
        # A training.json in the staging folder means that only the rename was cut off.
        if not processes.share((model / checkpoints.TRAINING).is_file()):
            with explain_save_errors(job.staging):
                _train(job, model, processes)
        final = job.root / f"phase-{phase}"
        if processes.is_main:
            checkpoints.publish(model, job.root, phase)
            shutil.rmtree(job.staging, ignore_errors=True)
        processes.wait()
    result = read_result(final, reused=False)
    if processes.is_main:
        append_log(out, "training", {"phase": phase, "key": job.key, **_read_speed(final)})
    return result


def _train(job: Job, target: Path, processes: Processes) -> None:
    """Train from the newest intermediate checkpoint, or the start, and write the model folder."""
    from trainer.publish import write_model_folder
    from trainer.start import check_leak
    from trainer.tile_choice import settle_tiles

    training = job.recipe.settings.training
    backend = choose_backend(training)
    _say_how(job, backend, processes)
    if backend == "triton":
        with processes.main_first():
            _compile_kernels(job)
        settle_tiles(job, processes)
    data = prepare_job_data(job, processes, backend)
    steps = job.staging / "steps"
    resume = processes.share(find_resumable(steps) if processes.is_main else None)
    log = RunLog(job.staging, writes=processes.is_main)
    log.start(resume)
    with quiet_libraries(training.num_threads), explain_memory(job.shape(backend)):
        trainer = build_trainer(job, data, backend, log)
        probe = check_leak(trainer)
        _run_trainer(job, trainer, resume)
        write_model_folder(job, trainer, target, {"backend": backend, "probe": probe})


def _compile_kernels(job: Job) -> None:
    """Once on a machine: all processor cores compile what the first step would wait for."""
    from trainer.kernels.precompile import compile_for_run
    from trainer.model import build_config

    settings = job.recipe.settings
    training = settings.training
    done = compile_for_run(build_config(settings.model), training.precision, training.micro_batch)
    if done.num_kernels:
        console.say(f"compiled {done.num_kernels} versions of kernels in {done.seconds:.0f} s")


def _say_how(job: Job, backend: str, processes: Processes) -> None:
    training = job.recipe.settings.training
    note = note_unused_gpus(processes)
    if note:
        console.say(note)
    console.say(
        f"backend {backend}, precision {training.precision}, activations recomputed: "
        f"{training.activation}, packing {training.packing}, {processes.world_size} process(es)"
    )


def build_trainer(job: Job, data: PhaseData, backend: str, log: RunLog) -> Any:
    """The trainer of a phase, its model on its device, ready to train."""
    from transformers import PrinterCallback

    from trainer.student_trainer import RunParts, StudentTrainer

    processes = find_processes()
    training, phase = job.recipe.settings.training, phase_settings(job.recipe, job.phase)
    accumulation = data.rows_per_step // (training.micro_batch * processes.world_size)
    config = build_sft_config(
        training,
        phase,
        job.staging / "steps",
        num_steps=data.num_steps,
        accumulation=accumulation,
    )
    config.run_name = f"{job.recipe.name}-phase-{job.phase}"
    model, masters = _load(job, backend, processes)
    parts = RunParts(
        data=data,
        training=training,
        processes=processes,
        log=log,
        document_ids=lambda step: ids_of_step(job.dataset, data, step),
        masters=masters,
        carried=_carried(job),
    )
    with keep_tensorboard(job.root.parent / "logs" / "tensorboard" / config.run_name):
        trainer = StudentTrainer(model, config, parts, processing_class=build_tokenizer())
    trainer.remove_callback(PrinterCallback)
    return trainer


def _load(job: Job, backend: str, processes: Processes) -> tuple[Any, dict[str, Any] | None]:
    """The model in the dtype of its policy, and the float32 masters if it has any."""
    import torch

    settings, training = job.recipe.settings.model, job.recipe.settings.training
    if processes.are_many:
        from trainer.sharding import load_sharded

        return load_sharded(job.recipe, job.init, backend, processes), None
    model = load_model(
        settings, job.init, training.seed, backend=backend, activation=training.activation
    )
    if training.precision not in ("host_master", "stochastic"):
        return model, None
    masters = None
    if training.precision == "host_master":
        # Casting gives the parameters other tensors; these stay as they are, and are not copied.
        masters = {name: p.data for name, p in model.named_parameters()}
    return model.to(torch.bfloat16), masters


def _carried(job: Job) -> Path | None:
    """The checkpoint whose moments this phase goes on with."""
    wanted = job.recipe.settings.training.carry_optimizer and job.phase != "1"
    return Path(job.init.source) if wanted else None


def _run_trainer(job: Job, trainer: Any, resume: Path | None) -> None:
    from trainer.callbacks import TrainingLog
    from trainer.speed import Speedometer

    parts = trainer.parts
    counts = parts.data.counts
    if resume is not None:
        console.say(f"resuming phase {job.phase} from {resume.name}")
    speed = Speedometer(job.recipe.settings.model, counts.step_tokens, parts.processes)
    what = f"train phase {job.phase}"
    # A checkpoint's name ends in its step.
    done = 0 if resume is None else int(resume.name.rpartition("-")[2])
    with (
        Work(f"training-{job.phase}", "steps", parts.data.num_steps, done=done) as work,
        StopSignal(parts.training.launch.stop_grace_s) as stop,
        console.progress(what, total=parts.data.num_steps, unit="steps") as advance,
    ):
        trainer.stop = stop
        trainer.add_callback(TrainingLog(trainer, counts, speed, advance, work))
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        step = trainer.state.global_step
        # After the last step what is left is to publish, which takes no longer than a checkpoint.
        if trainer.is_stopping and step < parts.data.num_steps:
            tell_stopped(step, parts.data.num_steps)
            stop.pass_on()


def _read_speed(folder: Path) -> dict[str, Any]:
    """Loss, and the speed that a later plan goes by."""
    from trainer.processes import device_name
    from trainer.run_log import read_lines

    values, laps = checkpoints.read_training(folder), read_lines(folder / "speed_log.jsonl")
    # The first steps compile kernels and warm caches.
    steady = [lap["tokens_per_second"] for lap in laps[len(laps) // 5 :]]
    return {
        "loss": values["last_loss"],
        "num_parameters": values["num_parameters"],
        "tokens_per_second": round(sorted(steady)[len(steady) // 2], 1),
        "num_processes": find_processes().world_size,
        "device": device_name(),
    }


def read_result(folder: Path, *, reused: bool) -> TrainingResult:
    """What a published checkpoint says of its training."""
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
    if not find_processes().is_main:
        return
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
    console.say(f"checkpoint: {result.checkpoint} (report.html shows the run)")


@contextmanager
def keep_tensorboard(folder: Path) -> Iterator[None]:
    """Where TensorBoard's files go: it would put them beside the checkpoints of a running phase.

    Those are deleted once the phase is published. ``TENSORBOARD_LOGGING_DIR``, if set, wins.
    """
    name = "TENSORBOARD_LOGGING_DIR"
    before = os.environ.get(name)
    os.environ.setdefault(name, str(folder))
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


@contextmanager
def quiet_libraries(num_threads: int) -> Iterator[None]:
    """Set PyTorch's threads; silence what libraries say that the user can do nothing about."""
    import torch
    from transformers.utils import logging

    before, verbosity = torch.get_num_threads(), logging.get_verbosity()
    if num_threads:
        torch.set_num_threads(num_threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(trl|transformers)\b")
        # Nothing here changes a block's output in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module", category=UserWarning)
        try:
            yield
        finally:
            torch.set_num_threads(before)
            logging.set_verbosity(verbosity)
            logging.enable_progress_bar()
