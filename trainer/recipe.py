"""A recipe's ``[training]`` as TRL's ``SFTConfig``, and what must be refused before training."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.settings.base import determining
from pipeline.settings.recipe import Recipe
from pipeline.settings.training import PhaseTraining, TrainingSettings


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
        ConfigError: Packing, or more than one process or GPU.
    """
    if training.packing == "best_fit":
        raise ConfigError(
            f"training.packing = {training.packing!r}: the stock Mamba2ForCausalLM does not reset "
            "its state between packed documents (it drops seq_idx without the CUDA kernels), so "
            "documents would leak into each other",
            hint='set training.packing = "off"',
        )
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if num_processes > 1:
        raise ConfigError(
            f"started as one of {num_processes} processes; this trainer runs in one",
            hint="start it with `python -m trainer.sft`, without torchrun or accelerate launch",
        )
    import torch

    if torch.cuda.device_count() > 1:
        raise ConfigError(
            f"{torch.cuda.device_count()} GPUs are visible; this trainer uses one",
            hint="make one visible: CUDA_VISIBLE_DEVICES=0 python -m trainer.sft …",
        )


def count_steps(num_rows: int, training: TrainingSettings, phase: PhaseTraining) -> int:
    """Optimiser steps of a phase; every epoch ends with a full or partial step."""
    if phase.max_steps > 0:
        return phase.max_steps
    return math.ceil(phase.epochs * math.ceil(num_rows / training.documents_per_step))


def build_sft_config(training: TrainingSettings, phase: PhaseTraining, folder: Path) -> Any:
    """TRL's configuration of one phase, its intermediate checkpoints going to ``folder``."""
    import torch
    from trl import SFTConfig

    has_gpu = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=training.micro_batch,
        gradient_accumulation_steps=training.documents_per_step // training.micro_batch,
        num_train_epochs=phase.epochs,
        max_steps=phase.max_steps,
        learning_rate=phase.learning_rate or training.learning_rate,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        warmup_steps=training.warmup_steps,
        lr_scheduler_type=training.schedule,
        optim="adamw_torch_fused" if has_gpu else "adamw_torch",
        bf16=training.precision == "bf16_autocast",
        gradient_checkpointing=False,
        seed=training.seed,
        use_cpu=not has_gpu,
        dataloader_pin_memory=has_gpu,
        # Order, masks and lengths are made by trainer.data; TRL must neither cut nor shuffle.
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        pad_to_multiple_of=None,
        save_strategy="steps",
        save_steps=training.save_steps,
        # One more than the newest: a kill may fall into the writing of that one.
        save_total_limit=max(2, training.keep_checkpoints),
        logging_steps=training.logging_steps,
        # A NaN must show, not be replaced by the mean of the losses before it.
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )
