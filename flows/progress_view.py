"""How far a run is, as a page: a line that says it, and a table of its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.status_view import duration

_SHOWN_REASONS = 3


def describe_progress(state: Mapping[str, Any], titles: Sequence[str]) -> tuple[str, str]:
    """One line and a page of Markdown.

    Args:
        state: Of this run (``flows.run_state.RunState.as_json``).
        titles: Of the run's steps, in order.
    """
    steps = state["steps"]
    done = sum(1 for step in steps if step["state"] == "finished")
    line = f"{done} of {len(titles)} steps done"
    for stage in state["stages"]:
        if stage["state"] == "running":
            line += f"; {describe_stage_at_work(stage)}"
        elif stage["state"] in ("failed", "interrupted"):
            line += f"; {stage['stage']} {stage['state']}"
    parts = []
    if state["stages"]:
        rows = [_describe_row(stage) for stage in state["stages"]]
        head = "| stage | state | shards | in | out | rejected | rows/s | time | most often for |"
        parts.append("\n".join([head, "| --- |" + " --- |" * 8, *rows]))
    if state["training"]:
        rows = [_describe_training(*item) for item in state["training"].items()]
        head = "| training | step | loss | tokens/s | memory | time left |"
        parts.append("\n".join([head, "| --- |" + " --- |" * 5, *rows]))
    if total := state["spending"]["total"]:
        tokens = total.get("prompt_tokens", 0) + total.get("completion_tokens", 0)
        asked = f"{total.get('requests', 0):,} requests to teachers, {tokens:,} tokens"
        parts.append(f"{asked}, {total.get('usd', 0):,.2f} USD so far.")
    if ahead := titles[len(steps) :]:
        parts.append(f"Still to come: {', '.join(ahead)}.")
    return line, "\n\n".join(parts) or line


def describe_stage_at_work(stage: Mapping[str, Any]) -> str:
    """Where a stage is, e.g. ``problems: 5 of 12 shards, about 3 min left``."""
    text = f"{stage['stage']}: {describe_shards(stage)}"
    if stage.get("asked"):
        text += f", {stage.get('answers') or 0:,} of {stage['asked']:,} answers"
    if stage.get("seconds_left") is not None:
        text += f", about {duration(stage['seconds_left'])} left"
    return text


def describe_shards(stage: Mapping[str, Any]) -> str:
    """E.g. ``5 of 12 shards``; of a training ``120 of 400 steps``."""
    unit = "steps" if stage.get("unit") == "steps" else "shards"
    total = stage.get("total")
    return f"{stage.get('done') or 0:,}" + (f" of {total:,} {unit}" if total else f" {unit}")


def _describe_training(name: str, training: Mapping[str, Any]) -> str:
    step = f"{training['step']:,}" + (f" of {training['total']:,}" if training["total"] else "")
    rate, memory = training.get("tokens_per_second"), training.get("memory_gib")
    left = training.get("seconds_left")
    cells = [name, step, f"{training['loss']:.3f}", f"{rate:,.0f}" if rate else ""]
    cells += [f"{memory:.1f} GiB" if memory else "", duration(left) if left else ""]
    return "| " + " | ".join(cells) + " |"


def _describe_row(stage: Mapping[str, Any]) -> str:
    cells = [stage["stage"], stage["state"]]
    cells.append(describe_shards(stage).removesuffix(" shards") if stage.get("total") else "")
    # A training's steps take no rows in.
    counts = {} if stage.get("unit") == "steps" else stage
    cells += [f"{counts[k]:,}" if k in counts else "" for k in ("rows_in", "rows_out", "rejected")]
    rate = stage.get("rows_per_second")
    cells.append(f"{rate:,.3g}" if rate else "")
    cells.append(duration(stage["seconds"]) if stage.get("seconds") else "")
    reasons = list((stage.get("reasons") or {}).items())[:_SHOWN_REASONS]
    told = [f"{reason.partition(': ')[2] or reason} {count:,}" for reason, count in reasons]
    cells.append(", ".join(told))
    return "| " + " | ".join(str(cell).replace("|", "/").replace("_", " ") for cell in cells) + " |"
