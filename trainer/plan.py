"""What a phase's training would do and need: the answer to ``--dry-run``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.settings.recipe import Recipe
from pipeline.settings.training import ModelSettings, PhaseTraining, TrainingSettings
from pipeline.student import VOCAB_SIZE
from trainer.checkpoints import read_key
from trainer.data import plan_examples
from trainer.model import count_parameters
from trainer.recipe import count_steps, phase_settings
from trainer.run import open_job

_GIB = 1 << 30
_BYTES_PER_PARAMETER = 16
"""float32 weights, gradients and AdamW's two moments."""


def estimate_memory_gib(
    model: ModelSettings, training: TrainingSettings, phase: PhaseTraining, num_parameters: int
) -> float:
    """Memory of weights, optimiser and the largest micro-batch, roughly, in GiB.

    Counts the tensors a block keeps for its backward pass on the PyTorch path (projections,
    convolution, B and C repeated to every head, the chunk's decay and score matrices) and three
    copies of the float32 logits. With gradient checkpointing one block's are alive at a time.
    """
    inner = model.hidden_size * model.expand
    heads = inner // model.head_dim
    per_token = 10 * inner + 6 * heads * model.state_size + 5 * heads * model.chunk_size
    blocks = 1 if training.activation == "all" else model.num_hidden_layers
    residuals = 2 * model.hidden_size * model.num_hidden_layers
    tokens = training.micro_batch * phase.max_length
    activations = tokens * (blocks * per_token + residuals + 3 * VOCAB_SIZE) * 4
    return (num_parameters * _BYTES_PER_PARAMETER + activations) / _GIB


def plan_phase(recipe: Recipe, phase: str, out: Path, dataset: Path | None) -> dict[str, Any]:
    """The plan of one phase; nothing is written.

    Raises:
        PipelineError: What training itself would refuse.
    """
    job = open_job(recipe, phase, out, dataset)
    training, settings = recipe.settings.training, phase_settings(recipe, phase)
    counts = plan_examples(
        job.dataset,
        max_length=settings.max_length,
        documents_per_step=training.documents_per_step,
    )
    num_parameters = count_parameters(recipe.settings.model)
    memory = estimate_memory_gib(recipe.settings.model, training, settings, num_parameters)
    return {
        "phase": phase,
        "key": job.key,
        "dataset_version": job.dataset.name,
        "init": job.init.kind,
        "num_rows": counts.num_rows,
        "rejected": dict(counts.rejected),
        "tokens_per_epoch": counts.num_tokens,
        "epochs": settings.epochs,
        "num_steps": count_steps(counts.num_rows, training, settings),
        "num_parameters": num_parameters,
        "memory_gib": round(memory, 2),
        "finished": read_key(job.root / f"phase-{phase}") == job.key,
    }


def show_plan(
    recipe: Recipe, phase: str, out: Path, *, dataset: Path | None, as_json: bool
) -> None:
    """Print the plan of one phase."""
    plan = plan_phase(recipe, phase, out, dataset)
    if as_json:
        console.print_json(plan)
        return
    console.table(f"plan of phase {phase} (dry run)", ["what", "value"], _plan_rows(plan))


def _plan_rows(plan: dict[str, Any]) -> list[tuple[str, str]]:
    left_out = ", ".join(f"{n} {reason}" for reason, n in plan["rejected"].items())
    return [
        ("dataset version", plan["dataset_version"]),
        ("starts from", plan["init"]),
        ("rows", f"{plan['num_rows']:,} ({left_out or 'none'} left out)"),
        ("tokens per epoch", f"{plan['tokens_per_epoch']:,}"),
        ("epochs", f"{plan['epochs']:g}"),
        ("optimiser steps", f"{plan['num_steps']:,}"),
        ("parameters", f"{plan['num_parameters']:,}"),
        ("memory, about", f"{plan['memory_gib']:g} GiB at the longest row"),
        ("checkpoint key", plan["key"] + (" (finished)" if plan["finished"] else "")),
    ]
