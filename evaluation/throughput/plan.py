"""What a run would measure and how many sequences should fit, by calculation alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.throughput.shapes import GB, Subject, describe_subjects
from evaluation.throughput.tasks import list_tasks
from pipeline.settings.recipe import Recipe
from pipeline.settings.throughput import ThroughputSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """Sequences of one model that fit a budget at one length; parts of one count here."""

    budget_gb: float
    model: str
    state_dtype: str
    length: int
    sequences: float


def calculate(settings: ThroughputSettings, subjects: Sequence[Subject]) -> list[Concurrency]:
    """Usable memory less weights and the assumed overhead, by a sequence's bytes at full length."""
    found = []
    for budget in settings.budgets_gb:
        usable = (budget * settings.utilisation - settings.assumed_overhead_gb) * GB
        for subject in subjects:
            for length in settings.lengths:
                each = subject.cache_bytes(settings.prompt_tokens + length)
                found.append(
                    Concurrency(
                        budget_gb=budget,
                        model=subject.name,
                        state_dtype=subject.state_dtype,
                        length=length,
                        sequences=max(0.0, (usable - subject.weight_bytes) / each),
                    )
                )
    return found


def memory_break_even(mamba: Subject, opponent: Subject) -> float:
    """Tokens from which a sequence of the Transformer holds more than one of the Mamba-2."""
    return mamba.sequence_bytes / opponent.token_bytes


def describe_plan(recipe: Recipe) -> dict[str, Any]:
    """The plan as one JSON-ready object."""
    settings = recipe.settings.throughput
    subjects = describe_subjects(recipe.settings)
    opponent = subjects[-1]
    tasks = [task for subject in subjects for task in list_tasks(settings, subject)]
    return {
        "recipe": recipe.name,
        "engine": settings.engine,
        "utilisation": settings.utilisation,
        "assumed_overhead_gb": settings.assumed_overhead_gb,
        "prompt_tokens": settings.prompt_tokens,
        "batches": len(tasks),
        "timed_steps": sum(len(task.positions) for task in tasks) * settings.steps
        + settings.walk_steps * (len(subjects) - 1),
        "models": [
            {
                "model": subject.name,
                "parameters": subject.num_parameters,
                "weights": _weights(settings, subject),
                "weight_gb": subject.weight_bytes / GB,
                "state_dtype": subject.state_dtype,
                "sequence_mib": subject.sequence_bytes / 2**20,
                "token_kib": subject.token_bytes / 2**10,
            }
            for subject in subjects
        ],
        "memory_break_even_tokens": {
            subject.state_dtype: memory_break_even(subject, opponent) for subject in subjects[:-1]
        },
        "concurrency": [
            {
                "budget_gb": one.budget_gb,
                "model": one.model,
                "state_dtype": one.state_dtype,
                "length": one.length,
                "sequences": one.sequences,
            }
            for one in calculate(settings, subjects)
        ],
    }


def _weights(settings: ThroughputSettings, subject: Subject) -> str:
    folder = settings.mamba_from if subject.kind == "mamba2" else settings.transformer_from
    return "random" if folder is None else folder


def show_plan(plan: dict[str, Any]) -> None:
    """Print the plan for a person."""
    from pipeline import console

    models = [
        [
            model["model"],
            f"{model['parameters']:,} ({model['weights']})",
            f"{model['weight_gb']:.2f}",
            model["state_dtype"],
            f"{model['sequence_mib']:.2f} MiB" if model["sequence_mib"] else "",
            f"{model['token_kib']:.1f} KiB" if model["token_kib"] else "",
        ]
        for model in plan["models"]
    ]
    columns = ["model", "parameters (weights)", "GB", "state or cache in", "a sequence", "a token"]
    console.table("models", columns, models)
    lengths = list(dict.fromkeys(one["length"] for one in plan["concurrency"]))
    rows: dict[tuple[str, ...], list[str]] = {}
    for one in plan["concurrency"]:
        place = (f"{one['budget_gb']:g} GB", one["model"], one["state_dtype"])
        rows.setdefault(place, []).append(f"{one['sequences']:.1f}")
    console.table(
        f"sequences that fit at full length ({plan['utilisation']:.0%} of the budget less weights "
        f"and {plan['assumed_overhead_gb']:g} GB)",
        ["budget", "model", "in", *(f"{length:,}" for length in lengths)],
        [[*place, *cells] for place, cells in rows.items()],
    )
    console.say(
        f"to measure: {plan['batches']:,} batches, each searched for and timed at up to "
        f"{1 + len(lengths)} places; {plan['timed_steps']:,} timed steps"
    )
    for dtype, tokens in plan["memory_break_even_tokens"].items():
        console.say(
            f"memory: from {tokens:,.0f} tokens on a sequence of the Transformer holds more than "
            f"one of the Mamba-2 with a {dtype} state"
        )
