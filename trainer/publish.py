"""The published model folder: weights, tokenizer, card, records and report of a run.

``training.json`` is written last: a folder that has it is whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pipeline.hashing import code_version
from pipeline.store import write_json, write_text
from trainer import checkpoints, run_state
from trainer.card import render_card
from trainer.job import PACKAGES, Job
from trainer.recipe import determining_settings
from trainer.report import write_report

MAX_SHARD = "5GB"
"""Weights above it are split, as the hub wants it."""


def write_model_folder(job: Job, trainer: Any, target: Path, how: dict[str, Any]) -> None:
    """Write everything that is published of a run; every process must call this.

    Args:
        job: The :class:`trainer.job.Job`.
        trainer: The trainer after its last step.
        target: The folder; what is there is replaced.
        how: What the run used and proved: ``backend`` and ``probe``.
    """
    parts = trainer.parts
    weights = run_state.full_weights(trainer.model, trainer.optimizer)
    if parts.processes.is_main:
        shutil.rmtree(target, ignore_errors=True)
        _save_model(job, trainer, target, weights)
        parts.log.copy_to(target)
    del weights
    parts.processes.wait()
    if parts.training.carry_optimizer:
        run_state.save_moments(trainer.model, trainer.optimizer, target)
        parts.processes.wait()
    if parts.processes.is_main:
        summary = summarise(job, trainer, how)
        write_text(target / "README.md", render_card(summary, job.dataset.manifest))
        write_report(target, summary, parts.data.counts)
        write_json(target / checkpoints.TRAINING, summary)


def _save_model(job: Job, trainer: Any, target: Path, weights: dict[str, Any]) -> None:
    """Weights through a model of the plain class, so that sharding leaves no trace in the files."""
    import torch

    from trainer.model import build_config
    from trainer.model.student import StudentModel

    with torch.device("meta"):
        model = StudentModel(build_config(job.recipe.settings.model))
    if model.config.tie_word_embeddings:
        # One tensor under two names; gathered from shards it has become two.
        weights.pop("lm_head.weight", None)
    # A dtype in the configuration is what loaders start from.
    model.config.dtype = next(iter(weights.values())).dtype
    model.config.use_cache = True
    model.save_pretrained(target, state_dict=weights, max_shard_size=MAX_SHARD)
    trainer.processing_class.save_pretrained(target)


def summarise(job: Job, trainer: Any, how: dict[str, Any]) -> dict[str, Any]:
    """What ``training.json`` says."""
    parts = trainer.parts
    counts, lines = parts.data.counts, parts.log.read("train_log.jsonl")
    steps = trainer.state.global_step
    return {
        "phase": job.phase,
        "key": job.key,
        "recipe": job.recipe.name,
        "dataset_version": job.dataset.name,
        "settings": determining_settings(job.recipe, job.phase),
        "code_version": code_version(*PACKAGES),
        "init": {"kind": job.init.kind, "identity": job.init.identity},
        "num_rows": counts.num_rows,
        "rejected": dict(sorted(counts.rejected.items())),
        "num_steps": steps,
        "first_loss": lines[0]["loss"],
        "last_loss": lines[-1]["loss"],
        "last_accuracy": lines[-1]["accuracy"],
        "num_parameters": sum(p.numel() for p in trainer.model.parameters()),
        "documents_per_step": parts.training.documents_per_step,
        "tokens_seen": sum(counts.step_tokens[:steps]),
        "num_events": len(parts.log.read("events.jsonl")),
        "backend": how["backend"],
        "probe": how["probe"],
        "data": counts.describe(),
    }
