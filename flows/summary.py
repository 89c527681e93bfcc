"""The closing page of a run: counts, losses, scores, relaxed gates and where to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.status_view import duration
from pipeline import console
from pipeline.relaxed_gates import relaxed_gates
from pipeline.settings.recipe import Recipe
from promptcot.stage_names import STAGES

if TYPE_CHECKING:
    from evaluation.report_data import RunFacts
    from evaluation.report_view import StageRow

_SHOWN_REASONS = 3


def summarize(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Everything the closing page shows, JSON-ready; read from what the run left on disk.

    Raises:
        PipelineError: Nothing has been built, or a manifest is corrupt.
    """
    from evaluation.report_data import collect_run

    facts = collect_run(recipe, out)
    return {
        "recipe": recipe.name,
        "out": str(out),
        "stages": [describe_stage(row) for row in stage_rows(facts)],
        "losses": [
            {
                "phase": phase,
                "first": found.record.first_loss,
                "last": found.record.last_loss,
                "steps": found.record.num_steps,
            }
            for phase, found in facts.training.items()
        ],
        "scores": [
            {"checkpoint": entry.name, **score.model_dump(mode="json")}
            for entry in facts.evaluations
            for score in entry.scores
        ],
        "relaxed_gates": relaxed_gates(recipe.settings),
        "paths": _paths(facts, out),
    }


def stage_rows(facts: RunFacts) -> list[StageRow]:
    """The stages that have run, in the order of the data."""
    from evaluation.report_view import describe_lanes

    return [row for lane in describe_lanes(facts) for row in lane.stages if row.num_in is not None]


def describe_stage(row: StageRow) -> dict[str, Any]:
    """One stage's counts, with all reasons, most frequent first."""
    return {
        "key": row.key,
        "stage": row.title,
        "unit": row.unit,
        "in": row.num_in,
        "out": row.num_out,
        "rejected": row.num_rejected,
        "reasons": {reason.text: reason.count for reason in row.reasons},
    }


def describe_line(stage: dict[str, Any]) -> str:
    """One stage in one line of a log."""
    reasons = f" ({top_reasons(stage)})" if stage["reasons"] else ""
    return (
        f"{stage['stage']}: {stage['in']:,} {stage['unit']} in, {stage['out']:,} out, "
        f"{stage['rejected']:,} rejected{reasons}"
    )


def describe_pace(stage: dict[str, Any] | None, step: str, told: Mapping[str, Any]) -> str:
    """How fast a step went, e.g. ``1.2 problems/s, 61 s, 12,345 tokens``.

    Args:
        stage: The step's last stage, as :func:`describe_stage` gives it; none if it has none.
        step: Its key.
        told: What the run's events say (``flows.run_state.RunState.as_json``).
    """
    found = next(entry for entry in told["steps"] if entry["step"] == step)
    if found.get("reused"):
        return "reused, nothing was done again"
    seconds = float(found["seconds"])
    parts = [duration(seconds)]
    works = [work for work in told["stages"] if stage is not None and work["stage"] == stage["key"]]
    if any(work["is_resumed"] for work in works):
        parts.append("continued from what was finished before")
    elif stage is not None and stage["in"] and seconds:
        parts.insert(0, f"{stage['in'] / seconds:,.3g} {stage['unit']}/s")
    if tokens := sum(sum((work.get("tokens") or {}).values()) for work in works):
        parts.append(f"{tokens:,} tokens")
    return ", ".join(parts)


def top_reasons(
    stage: dict[str, Any], *, limit: int = _SHOWN_REASONS, say_more: bool = True
) -> str:
    """The most frequent reasons with their counts, e.g. ``bad verdict 12, repeated 3``."""
    reasons: dict[str, int] = stage["reasons"]
    shown = ", ".join(f"{text} {count:,}" for text, count in list(reasons.items())[:limit])
    more = f" and {len(reasons) - limit} more" if say_more and len(reasons) > limit else ""
    return shown + more


def _paths(facts: RunFacts, out: Path) -> dict[str, str]:
    paths = {"report": out / "report" / "index.html"}
    if STAGES[0] in facts.synthesis:
        paths["synthesis report"] = out / "report" / "synthesis.html"
    paths |= {f"phase {p} dataset": found.version.folder for p, found in facts.phases.items()}
    paths |= {f"phase {p} checkpoint": out / "checkpoints" / f"phase-{p}" for p in facts.training}
    return {name: str(path) for name, path in paths.items()}


def show_summary(summary: dict[str, Any]) -> None:
    """Print the closing page."""
    console.table(
        "Rows",
        ["stage", "in", "out", "rejected", "most frequent reasons"],
        [
            [
                f"{stage['stage']} ({stage['unit']})",
                stage["in"],
                stage["out"],
                stage["rejected"],
                top_reasons(stage),
            ]
            for stage in summary["stages"]
        ],
    )
    _show_training(summary["losses"])
    _show_scores(summary["scores"])
    if summary["relaxed_gates"]:
        console.heading("Gates that this recipe relaxes")
        for sentence in summary["relaxed_gates"]:
            console.say(f"  - {sentence}")
    console.heading("Look at")
    width = max(len(name) for name in summary["paths"])
    for name, path in summary["paths"].items():
        console.say(f"  {name:<{width}}  {path}")


def _show_training(losses: Sequence[dict[str, Any]]) -> None:
    console.table(
        "Training loss",
        ["phase", "first", "last", "steps"],
        [[loss["phase"], loss["first"], loss["last"], loss["steps"]] for loss in losses],
    )


def _show_scores(scores: Sequence[dict[str, Any]]) -> None:
    console.table(
        "Scores",
        ["benchmark", "checkpoint", "score", "interval", "items", "samples"],
        [
            [
                score["benchmark"],
                score["checkpoint"],
                f"{score['avg_at_k']:.1%}",
                f"{score['interval'][0]:.1%} to {score['interval'][1]:.1%}",
                score["num_items"],
                score["samples_per_item"],
            ]
            for score in sorted(scores, key=lambda score: score["benchmark"])
        ],
    )
