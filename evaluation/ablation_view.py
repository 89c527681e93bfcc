"""What ``python -m evaluation ablation`` prints: its plan before, its table after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.ablation_plan import Arm, PhasePlan, find_dataset, plan_arm
from evaluation.ablation_results import (
    RUN,
    AblationRow,
    AblationScore,
    AblationTable,
    read_runs,
    tabulate,
)
from evaluation.ablation_run import run_ablations, run_folder
from evaluation.comparison_view import format_p
from pipeline import console
from pipeline.errors import StoreError
from pipeline.manifest import Version
from pipeline.settings.recipe import Recipe
from trainer.speed import format_duration

_PLAN = ["variant", "seed", "phases", "rows", "tokens", "steps", "hours", "state"]
_RESULT = [
    "variant",
    "seeds",
    "benchmark",
    "mean",
    "interval",
    "difference",
    "interval ",
    "p (Holm)",
]


def describe_plan(
    recipe: Recipe, arms: Sequence[Arm], seeds: Sequence[int], out: Path
) -> list[dict[str, Any]]:
    """Print what would be trained and what that comes to; nothing is written.

    Returns:
        One object per variant and seed; figures are none where a dataset does not exist yet.
    """
    rate = find_rate(recipe, out)
    found = _find_datasets(recipe, arms, out)
    plans: dict[str, dict[str, PhasePlan]] = {}
    for arm in arms:
        datasets = {
            phase: version
            for phase in arm.phases
            if (version := found[phase, arm.data.get(phase)][0]) is not None
        }
        plans[arm.label] = plan_arm(recipe, arm, datasets, plans.get(arms[0].label, {}))
    rows = [
        _plan_run(arm, seed, plans[arm.label], rate=rate, folder=run_folder(out, arm, seed))
        for seed in seeds
        for arm in arms
    ]
    console.table("ablations: what would be run", _PLAN, [_format_plan(row) for row in rows])
    for reason in dict.fromkeys(reason for _, reason in found.values() if reason):
        named = [_name_dataset(*key) for key, entry in found.items() if entry[1] == reason]
        console.say(f"unknown yet: {', '.join(named)}: {reason}")
    if not rate:
        console.say(
            "hours are unknown: pass --set training.tokens_per_second=… of one device, or train a "
            "phase in this folder first"
        )
    console.say("a phase that another run of the same seed trains too is trained once")
    return rows


def _find_datasets(
    recipe: Recipe, arms: Sequence[Arm], out: Path
) -> dict[tuple[str, str | None], tuple[Version | None, str]]:
    """Phase and variant to its dataset, or the reason why there is none; each looked for once."""
    keys = dict.fromkeys((phase, arm.data.get(phase)) for arm in arms for phase in arm.phases)
    return {key: find_dataset(recipe, key[0], out, key[1]) for key in keys}


def _name_dataset(phase: str, variant: str | None) -> str:
    return f"phase {phase}" if variant is None else f"phase {phase} ({variant})"


def _plan_run(
    arm: Arm, seed: int, plans: Mapping[str, PhasePlan], *, rate: float, folder: Path
) -> dict[str, Any]:
    known = all(plan.dataset is not None for plan in plans.values())
    tokens = sum(plan.num_tokens for plan in plans.values()) if known else None
    return {
        "variant": arm.label,
        "seed": seed,
        "phases": {phase: arm.data.get(phase, "as in the recipe") for phase in arm.phases},
        "rows": sum(plan.num_rows for plan in plans.values()) if known else None,
        "tokens": tokens,
        "steps": sum(plan.num_steps for plan in plans.values()) if known else None,
        "hours": round(tokens / rate / 3600, 4) if rate and tokens is not None else None,
        "finished": (folder / RUN).is_file(),
        "path": str(folder),
    }


def _format_plan(row: Mapping[str, Any]) -> list[object]:
    phases = ", ".join(
        phase if data == "as in the recipe" else f"{phase} ({data})"
        for phase, data in row["phases"].items()
    )
    figures = ["?" if row[key] is None else f"{row[key]:,}" for key in ("rows", "tokens", "steps")]
    hours = "?" if row["hours"] is None else format_duration(3600 * row["hours"])
    state = "finished" if row["finished"] else "to do"
    return [row["variant"], row["seed"], phases, *figures, hours, state]


def find_rate(recipe: Recipe, out: Path) -> float:
    """Training tokens a second of all devices: as the recipe says, or as a run here measured; or 0.

    What was measured counts for the same shape on the same device only.
    """
    from trainer.model import count_parameters
    from trainer.processes import device_name, find_processes
    from trainer.run_log import read_lines

    stated = recipe.settings.training.tokens_per_second
    if stated:
        return stated * find_processes().world_size
    wanted = {"num_parameters": count_parameters(recipe.settings.model), "device": device_name()}
    logs = [out / "logs" / "training.jsonl"]
    logs += sorted((out / "ablations").glob("*/*/logs/training.jsonl"))
    for line in (line for log in logs for line in reversed(read_lines(log))):
        if all(line.get(name) == value for name, value in wanted.items()):
            return float(line["tokens_per_second"])
    return 0.0


def run_and_show(
    recipe: Recipe, arms: Sequence[Arm], seeds: Sequence[int], out: Path
) -> dict[str, Any]:
    """Run what is missing and print the table over everything that has been run here.

    Raises:
        PipelineError: A part cannot be done; what was finished before it stays.
    """
    folders = run_ablations(recipe, arms, seeds, out)
    table = tabulate(read_runs(out), recipe.settings.evaluation)
    if table is None:
        raise StoreError(
            f"no run of the full recipe under {out / 'ablations'}", hint="run the command again"
        )
    show_table(table)
    console.say("python -m evaluation report puts this table beside the paper's")
    return {"runs": [str(folder) for folder in folders], **table_as_json(table)}


def show_table(table: AblationTable) -> None:
    """Print the results, in per cent and points."""
    rows = [_format_score(row, score) for row in table.rows for score in row.scores]
    console.table("ablations: avg@k over seeds and problems", _RESULT, rows)
    for row in table.rows:
        console.say(
            f"{_label(row)}: {row.num_rows:,} rows, {row.num_steps:,} steps, "
            f"{row.num_tokens:,} tokens"
        )
    for note in table.notes:
        console.warn(note)


def _label(row: AblationRow) -> str:
    return row.name if row.matching == "none" else f"{row.name}, {row.matching} matched"


def _format_score(row: AblationRow, score: AblationScore) -> list[object]:
    cells = [_label(row), str(len(row.seeds)), score.benchmark]
    cells += [f"{score.mean.mean:.1%}", _span(score.mean.interval, "")]
    if score.difference is None or score.p_holm is None:
        return [*cells, "", "", ""]
    difference = f"{100 * score.difference.mean:+.1f}"
    return [*cells, difference, _span(score.difference.interval, "+"), format_p(score.p_holm)]


def _span(interval: tuple[float, float], sign: str) -> str:
    low, high = (100 * end for end in interval)
    return f"{low:{sign}.1f} to {high:{sign}.1f}"


def table_as_json(table: AblationTable) -> dict[str, Any]:
    """JSON-ready form."""
    return {"rows": [asdict(row) for row in table.rows], "notes": list(table.notes)}
