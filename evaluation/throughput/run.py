"""The whole comparison: measure what is missing, then write table, figures and plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.throughput import curves
from evaluation.throughput.plan import memory_break_even
from evaluation.throughput.plot import draw
from evaluation.throughput.shapes import Subject, describe_subjects
from pipeline import console
from pipeline.errors import ConfigError
from pipeline.settings.recipe import Recipe
from pipeline.store import dump_json_line, exclusive_lock, write_json, write_text

RESULT, ROWS, PAGE = "throughput.json", "throughput.jsonl", "throughput.md"


def run_throughput(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Measure, write the files into ``folder`` and return what ``throughput.json`` holds.

    Args:
        recipe: Its ``[throughput]`` and ``[model]``.
        folder: Of this command; ``points.jsonl`` in it keeps finished measurements.

    Raises:
        ConfigError: Packages, kernels or an engine are missing, or a budget is over the card or
            holds nothing.
        StoreError: The folder cannot be written, or another process measures into it.
    """
    with exclusive_lock(folder / ".lock", "throughput"):
        subjects = describe_subjects(recipe.settings)
        if recipe.settings.throughput.engine == "vllm":
            from evaluation.throughput.vllm_engine import measure_with_vllm

            result = measure_with_vllm(recipe, subjects, folder)
        else:
            result = _measure_here(recipe, subjects, folder)
        result = {"recipe": recipe.name, **result}
        write_files(result, folder)
    return {**result, "folder": str(folder)}


def _measure_here(recipe: Recipe, subjects: Sequence[Subject], folder: Path) -> dict[str, Any]:
    import torch

    from evaluation.throughput.measure import Bench
    from evaluation.throughput.records import Records
    from evaluation.throughput.tasks import list_tasks

    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    bench = Bench(recipe, Records(folder), device)
    measured = []
    total = sum(len(list_tasks(recipe.settings.throughput, subject)) for subject in subjects)
    with console.progress("throughput", total=total, unit="batches") as advance:
        for subject in subjects:
            measured.append(bench.measure(subject, advance))
    groups = [group for one in measured for group in one.groups]
    walks = [one.walk for one in measured if one.walk is not None]
    prefills = [
        {
            "model": one.subject.name,
            "state_dtype": one.subject.state_dtype,
            "tokens": one.prefill["tokens"],
            "ms": one.prefill["ms"],
        }
        for one in measured
    ]
    weights = {one.subject.name: one.weights for one in measured}
    found = {**bench.identity(), "weights": weights, "prefill": prefills, "walks": walks}
    return {**found, **summarise_groups(recipe, subjects, groups, walks)}


def summarise_groups(
    recipe: Recipe,
    subjects: Sequence[Subject],
    groups: Sequence[Any],
    walks: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Rows, comparisons, break-even lengths and checks of measured groups, JSON-ready.

    Raises:
        ConfigError: Not one sequence of any model fits in any budget.
    """
    settings = recipe.settings.throughput
    if not any(group.batch for group in groups):
        budgets = " or ".join(f"{budget:g} GB" for budget in settings.budgets_gb)
        raise ConfigError(
            f"throughput.budgets_gb: not one sequence of any model fits in {budgets}",
            hint="raise --budget-gb; --dry-run tells what weights and sequences need",
        )
    rows = curves.make_rows(groups, subjects, settings)
    comparisons = curves.compare(rows, settings)
    by_budget = {
        budget: [one for one in comparisons if one.budget_gb == budget]
        for budget in settings.budgets_gb
    }
    opponent = subjects[-1]
    return {
        "engine": settings.engine,
        "settings": settings.model_dump(mode="json"),
        "models": [asdict(subject) for subject in subjects],
        "rows": curves.as_json(rows),
        "comparisons": curves.as_json(comparisons),
        "memory_break_even_tokens": memory_break_even(subjects[0], opponent),
        "speed_break_even_tokens": {
            f"{budget:g}": {
                "reserved": curves.break_even_length(those),
                "paged": curves.break_even_length(those, paged=True),
            }
            for budget, those in by_budget.items()
        },
        "checks": curves.as_json(curves.check_flatness(rows, walks, settings)),
        "paper": {f"{budget:g}": ratio for budget, ratio in curves.PAPER.items()},
    }


def write_files(result: dict[str, Any], folder: Path) -> None:
    """``throughput.json``, ``.jsonl`` (a line a row), ``.md``, ``.svg`` and ``.png``."""
    from evaluation.throughput.view import render_page

    write_json(folder / RESULT, result)
    write_text(folder / ROWS, "".join(dump_json_line(row) + "\n" for row in result["rows"]))
    write_text(folder / PAGE, render_page(result))
    draw(result, folder)
