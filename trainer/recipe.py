"""A recipe's ``[training]`` as TRL's ``SFTConfig``, and what must be refused before training."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.settings.base import determining
from pipeline.settings.recipe import Recipe
from pipeline.settings.training import PhaseTraining, TrainingSettings
from trainer.processes import find_processes
from trainer.refusals import check_trl_options


def phase_settings(recipe: Recipe, phase: str) -> PhaseTraining:
    """One phase's settings.

    Raises:
        ConfigError: The recipe has no such phase.
    """
    phases = recipe.settings.training.phases
    if phase not in phases:
        raise ConfigError(
            f"recipe {recipe.name}: no [training.phases.{phase}]",
            hint=f"use one of {', '.join(sorted(phases))}, or add that section",
        )
    return phases[phase]


def determining_settings(recipe: Recipe, phase: str) -> dict[str, Any]:
    """The settings that decide this phase's weights.

    The other phase's settings are left out, and so is where initial weights lie: their content
    hash stands for them.
    """
    model = determining(recipe.settings.model)
    training = determining(recipe.settings.training)
    del model["init_from"], model["revision"], training["phases"]
    return {
        "model": model,
        "training": {**training, "phase": determining(phase_settings(recipe, phase))},
    }


def refuse_unsupported(training: TrainingSettings) -> None:
    """Stop on what this trainer would do wrongly or not at all.

    Raises:
        ConfigError: TRL options that lead around the tested path, a tracker or a backend's kernels
            that are missing on this machine, or a precision policy that cannot be sharded.
    """
    check_trl_options(training.trl)
    if training.backend not in ("auto", "torch"):
        choose_backend(training)
    for tracker in training.report_to:
        if importlib.util.find_spec(tracker) is None:
            raise ConfigError(
                f"training.report_to: {tracker} is not installed",
                hint=f"pip install {tracker}, or leave it out: the run's own log and report need "
                "no tracker",
            )
    world_size = find_processes().world_size
    if world_size > 1 and training.precision in ("host_master", "stochastic"):
        raise ConfigError(
            f"training.precision = {training.precision!r} is for one GPU; this is one of "
            f"{world_size} processes, which hold float32 masters in pieces",
            hint='set training.precision = "bf16_autocast"',
        )


def choose_backend(training: TrainingSettings) -> str:
    """The mixer's backend: what is set, or the kernels on a GPU and PyTorch on a CPU.

    Raises:
        ConfigError: The kernels are not installed; there is no silent change to PyTorch.
    """
    import torch

    chosen = training.backend
    if chosen == "auto":
        chosen = "triton" if torch.cuda.is_available() else "torch"
    if chosen != "torch":
        from trainer.kernels.availability import require

        require(chosen)
    return chosen


def build_sft_config(
    training: TrainingSettings,
    phase: PhaseTraining,
    folder: Path,
    *,
    num_steps: int,
    accumulation: int,
) -> Any:
    """TRL's configuration of one phase, its intermediate checkpoints going to ``folder``."""
    import torch
    from trl import SFTConfig

    check_trl_options(training.trl)
    has_gpu = torch.cuda.is_available()
    config = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=training.micro_batch,
        gradient_accumulation_steps=accumulation,
        # The schedule holds the rows of all epochs: to TRL it is one epoch of so many steps.
        num_train_epochs=1,
        max_steps=num_steps,
        learning_rate=phase.learning_rate or training.learning_rate,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        warmup_steps=training.warmup_steps,
        lr_scheduler_type=training.schedule,
        # Autocast is the trainer's own context, recomputation the model's own.
        bf16=False,
        activation_checkpointing=False,
        seed=training.seed,
        use_cpu=not has_gpu,
        dataloader_pin_memory=has_gpu,
        # Order, masks and lengths are made by trainer.data; TRL must neither cut nor shuffle.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        remove_unused_columns=False,
        pad_to_multiple_of=None,
        save_strategy="steps",
        save_steps=training.save_steps,
        # One more than the newest: the newest may be found damaged.
        save_total_limit=max(2, training.keep_checkpoints),
        logging_steps=training.logging_steps,
        logging_nan_inf_filter=False,
        report_to=list(training.report_to) or "none",
        disable_tqdm=True,
        **training.trl,
    )
    if config.n_gpu > 1:
        # Several GPUs are visible to one process; nn.DataParallel is not what anybody wants.
        config._n_gpu = 1
    return config
