"""What a phase's training would do and need: the answer to ``--dry-run``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.settings.recipe import Recipe
from trainer.checkpoints import read_key
from trainer.data import plan_data
from trainer.data.versions import is_built
from trainer.job import check_settings, job_data_settings, open_job, step_shape
from trainer.memory import available_gib, estimate, host_gib, list_remedies
from trainer.model.init import is_phase_one_there
from trainer.processes import device_name, find_processes
from trainer.recipe import choose_backend, phase_settings
from trainer.run_log import read_lines
from trainer.speed import format_duration


def plan_phase(recipe: Recipe, phase: str, out: Path, dataset: Path | None) -> dict[str, Any]:
    """The plan of one phase; nothing is written.

    Before the phase's dataset is built, or phase 1 is trained, it has what follows from the recipe
    and this machine alone, and ``missing`` says what else there would be.

    Raises:
        PipelineError: What training itself would refuse.
    """
    check_settings(recipe, phase)
    missing = _list_missing(phase, out, dataset)
    if missing:
        return {
            "phase": phase,
            "missing": missing,
            **_plan_memory(recipe, phase),
            **_plan_rate(recipe, out),
        }
    job = open_job(recipe, phase, out, dataset)
    training, settings = recipe.settings.training, phase_settings(recipe, phase)
    backend = choose_backend(training)
    counts = plan_data(job.dataset, job_data_settings(job, find_processes(), backend))
    return {
        "phase": phase,
        "missing": [],
        "key": job.key,
        "dataset_version": job.dataset.name,
        "init": job.init.kind,
        "num_rows": counts.num_rows,
        "rejected": dict(counts.rejected),
        "tokens_per_epoch": counts.num_tokens,
        "epochs": settings.epochs,
        "num_steps": counts.num_steps,
        "rows_per_step": counts.rows_per_step,
        "padding_share": round(counts.padding_share, 4),
        "data": counts.describe(),
        "finished": read_key(job.root / f"phase-{phase}") == job.key,
        **_plan_memory(recipe, phase),
        **_plan_time(_plan_rate(recipe, out), sum(counts.step_tokens)),
    }


def _list_missing(phase: str, out: Path, dataset: Path | None) -> list[str]:
    """What a training would wait for, each with the command that makes it."""
    same = "with the same --recipe and --out"
    missing = []
    if dataset in (None, Path("latest")) and not is_built(out, phase):
        missing.append(
            f"no dataset of phase {phase} in {out}: built by `python -m curriculum.build --phase "
            f"{phase}` {same}, it adds rows, tokens, optimiser steps, padding and hours"
        )
    if phase != "1" and not is_phase_one_there(out):
        missing.append(
            f"no checkpoint of phase 1 in {out}: trained by `python -m trainer.sft --phase 1` "
            f"{same}, it adds what phase {phase} starts from"
        )
    return missing


def _plan_memory(recipe: Recipe, phase: str) -> dict[str, Any]:
    backend = choose_backend(recipe.settings.training)
    shape = step_shape(recipe, phase, backend)
    needed, there, host = estimate(shape), available_gib(), host_gib()
    fits = needed.device <= there and needed.host <= host
    return {
        "num_parameters": shape.num_parameters,
        "backend": backend,
        "device": device_name(),
        "memory_gib": round(needed.device, 2),
        "memory_parts_gib": {
            name: round(getattr(needed, name), 2)
            for name in ("weights", "gradients", "optimizer", "activations", "loss")
        },
        "host_memory_gib": round(needed.host, 2),
        "available_gib": round(there, 2),
        "fits": fits,
        "remedies": [] if fits else list_remedies(shape, there),
    }


def _plan_rate(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Tokens a second, from what an earlier run here measured or the recipe states."""
    training = recipe.settings.training
    rate, source = training.tokens_per_second, "training.tokens_per_second"
    if not rate:
        rate, source = _measured_rate(recipe, out)
    rate *= find_processes().world_size if source == "training.tokens_per_second" else 1
    return {
        "tokens_per_second": rate or None,
        "tokens_per_second_from": source if rate else None,
    }


def _plan_time(told: dict[str, Any], tokens: int) -> dict[str, Any]:
    rate = told["tokens_per_second"]
    hours = round(tokens / rate / 3600, 3) if rate else None
    return {"tokens": tokens, **told, "hours": hours}


def _measured_rate(recipe: Recipe, out: Path) -> tuple[float, str]:
    """Of the last run of this folder with the same device and number of parameters."""
    from trainer.model import count_parameters

    wanted = {
        "num_parameters": count_parameters(recipe.settings.model),
        "device": device_name(),
        "num_processes": find_processes().world_size,
    }
    for line in reversed(read_lines(out / "logs" / "training.jsonl")):
        if all(line.get(name) == value for name, value in wanted.items()):
            return float(line["tokens_per_second"]), f"phase {line['phase']} of this run folder"
    return 0.0, ""


def show_plan(
    recipe: Recipe, phase: str, out: Path, *, dataset: Path | None, as_json: bool
) -> None:
    """Print the plan of one phase."""
    plan = plan_phase(recipe, phase, out, dataset)
    if as_json:
        console.print_json(plan)
        return
    console.table(f"plan of phase {phase} (dry run)", ["what", "value"], _plan_rows(plan))
    for remedy in plan["remedies"]:
        console.warn(f"it may not fit; {remedy}")
    for lack in plan["missing"]:
        console.warn(lack)


def _plan_rows(plan: dict[str, Any]) -> list[tuple[str, str]]:
    if plan["missing"]:
        return _machine_rows(plan)
    left_out = ", ".join(f"{n} {reason}" for reason, n in plan["rejected"].items())
    return [
        ("dataset version", plan["dataset_version"]),
        ("starts from", plan["init"]),
        ("rows", f"{plan['num_rows']:,} ({left_out or 'none'} left out)"),
        ("tokens per epoch", f"{plan['tokens_per_epoch']:,}"),
        ("epochs", f"{plan['epochs']:g}"),
        (
            "optimiser steps",
            f"{plan['num_steps']:,} of {plan['rows_per_step']} packed rows, "
            f"{plan['padding_share']:.1%} padding",
        ),
        *_machine_rows(plan),
        ("time, about", _describe_time(plan)),
        ("checkpoint key", plan["key"] + (" (finished)" if plan["finished"] else "")),
    ]


def _machine_rows(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """What follows from the recipe and this machine alone."""
    parts = ", ".join(f"{name} {gib:g}" for name, gib in plan["memory_parts_gib"].items())
    fits = "fits" if plan["fits"] else "does not fit"
    return [
        ("parameters", f"{plan['num_parameters']:,}"),
        ("device, backend", f"{plan['device']}, {plan['backend']}"),
        (
            "memory, about",
            f"{plan['memory_gib']:g} GiB a device at the longest row, {plan['available_gib']:g} "
            f"are there: {fits} ({parts})",
        ),
        *([("host memory", f"{plan['host_memory_gib']:g} GiB")] if plan["host_memory_gib"] else []),
    ]


def _describe_time(plan: dict[str, Any]) -> str:
    if plan["hours"] is None:
        return "unknown: pass --set training.tokens_per_second=… of one device"
    return (
        f"{format_duration(plan['hours'] * 3600)} for {plan['tokens']:,} tokens at "
        f"{plan['tokens_per_second']:,.0f} a second (from {plan['tokens_per_second_from']})"
    )
