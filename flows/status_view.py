"""The terminal view of a run folder's state (:mod:`flows.run_state`): what a person looks at.

It is drawn from the JSON-ready state alone, so that a folder of this machine and one that another
machine serves look the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

_COLOURS = {
    "running": "cyan",
    "finished": "green",
    "reused": "blue",
    "failed": "red",
    "interrupted": "yellow",
    "stopped": "yellow",
    "killed": "red",
    "unknown": "yellow",
    "empty": "yellow",
}
_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDE = 100
"""Columns from which on rates and times have columns of their own."""
_NUM_SCORES, _NUM_EVENTS = 8, 5
_LINES_BESIDE = 16
"""Lines of the view besides stages and trainings, with a line to spare."""
_STATE_WORDS = {
    "killed": "its process is gone without a last word (killed, or the machine stopped)",
    "unknown": "on another machine, and quiet: whether it lives cannot be seen from here",
}


def render(state: Mapping[str, Any], width: int, height: int | None = None) -> RenderableType:
    """The whole view, for a terminal of so many columns.

    Args:
        state: From :class:`flows.run_state.RunState`, here or served.
        width: Columns.
        height: Lines, of a terminal that is drawn again and again: the stages that were done
            first make room. Without it all are shown.
    """
    parts: list[RenderableType] = [_head(state)]
    run = state.get("run") or {}
    if state["stages"]:
        room = None if height is None else max(3, height - _LINES_BESIDE - len(state["training"]))
        parts += [Text(""), _stages(state["stages"], width, room)]
    if state["training"]:
        lines = (_training(*item, width=width) for item in state["training"].items())
        parts += [Text(""), *lines]
    parts += [line for line in (_spending(state["spending"]), _scores(state["scores"])) if line]
    if run.get("state") in ("failed", "interrupted", "killed", "unknown"):
        parts.append(_failure(state, run))
    if state["events"]:
        parts += [Rule("last events", align="left", style="dim"), _events(state["events"])]
    return Group(*parts)


def _head(state: Mapping[str, Any]) -> Text:
    run = state.get("run") or {}
    word = run.get("state", "empty")
    text = Text()
    text.append(f"{state.get('recipe') or 'run'}", style="bold")
    text.append(f"  {run.get('what') or 'nothing has been recorded here yet'}  ")
    text.append(f" {word} ", style=f"reverse {_COLOURS.get(word, 'white')}")
    if (seconds := run.get("seconds")) is not None:
        text.append(f"  {duration(seconds)}")
    facts = []
    if run.get("pid"):
        facts.append(f"process {run['pid']} on {run.get('host') or 'an unknown host'}")
    if (age := state["last_event_age_s"]) is not None:
        facts.append(f"last event {duration(age)} ago")
    text.append(f"\n{', '.join(facts)}" if facts else "", style="dim")
    text.append(f"\n{state.get('folder') or ''}", style="dim")
    return text


def _stages(stages: Sequence[Mapping[str, Any]], width: int, room: int | None) -> Table:
    is_wide = width >= _WIDE
    table = Table(box=None, padding=(0, 1), expand=True, header_style="dim", pad_edge=False)
    table.add_column("stage", no_wrap=True, overflow="ellipsis", max_width=22 if is_wide else 19)
    table.add_column("", width=16 if is_wide else 9)
    table.add_column("shards", justify="right", no_wrap=True)
    table.add_column("in", justify="right", no_wrap=True)
    table.add_column("out", justify="right", no_wrap=True)
    if is_wide:
        table.add_column("rows/s", justify="right", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
    table.add_column("rejected" if is_wide else "rejected, left", ratio=1, overflow="ellipsis",
                     no_wrap=True)  # fmt: skip
    shown = stages
    if room is not None and len(stages) > room:
        shown = stages[len(stages) - room + 1 :]
        table.add_row(Text(f"{len(stages) - len(shown)} before these"), style="dim")
    for stage in shown:
        # What an earlier run did and this one has not come to.
        style = "dim" if stage.get("is_former") else ""
        table.add_row(*_stage_row(stage, is_wide=is_wide), style=style)
    return table


def _stage_row(stage: Mapping[str, Any], *, is_wide: bool) -> list[RenderableType]:
    state, colour = stage["state"], _COLOURS.get(stage["state"], "white")
    done, total = stage.get("done"), stage.get("total")
    left = stage.get("seconds_left")
    # Of a stage at work the seconds are those of its newest event.
    seconds = (stage.get("seconds") or 0.0) + (stage.get("quiet_s") or 0.0)
    time = duration(seconds) if seconds or "seconds" in stage else ""
    if state == "running" and left is not None:
        time = f"{duration(left)} left"
    bar: RenderableType = Text(state, style=colour)
    # Without colours nothing is drawn of what is missing.
    if state == "running" and total and done:
        bar = ProgressBar(total=total, completed=done or 0, complete_style=colour)
    is_training = stage.get("unit") == "steps"
    cells: list[RenderableType] = [
        Text(stage["stage"], style="bold" if state == "running" else ""),
        bar,
        "" if done is None else f"{done:,}" + (f"/{total:,}" if total else ""),
        *("" if is_training else _number(stage.get(key)) for key in ("rows_in", "rows_out")),
    ]
    if is_wide:
        rate = stage.get("rows_per_second")
        cells += ["" if rate is None else f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}", time]
    rejected = Text(_rejections(stage))
    if state == "running":
        facts = [time] if not is_wide and left is not None else []
        if stage.get("asked"):
            facts.append(f"{stage['answers']:,}/{stage['asked']:,} answers")
        rejected = Text("".join(f"{fact}  " for fact in facts), style=colour) + rejected
    return [*cells, rejected]


def _rejections(stage: Mapping[str, Any]) -> str:
    if not stage.get("rejected"):
        return ""
    reasons = sorted((stage.get("reasons") or {}).items(), key=_by_number)
    # The stage that refused is mostly the row's own.
    shown = [f"{name.rpartition(': ')[2].replace('_', ' ')} {n:,}" for name, n in reasons[:3]]
    return f"{stage['rejected']:,}: {', '.join(shown)}" if shown else f"{stage['rejected']:,}"


def _by_number(reason: tuple[str, int]) -> tuple[bool, int, str]:
    """Frequent ones first; what sums up the rest comes last."""
    return reason[0] == "other", -reason[1], reason[0]


def _training(name: str, training: Mapping[str, Any], *, width: int) -> Text:
    losses = [loss for _, loss in training["losses"]]
    facts = [
        f"step {training['step']:,}" + (f"/{training['total']:,}" if training["total"] else "")
    ]
    facts.append(f"loss {losses[0]:.3f} → {losses[-1]:.3f}")
    if training.get("tokens_per_second"):
        facts.append(f"{training['tokens_per_second']:,.0f} tok/s")
    if training.get("seconds_left"):
        facts.append(f"{duration(training['seconds_left'])} left")
    tail = ", ".join(facts)
    room = max(8, min(40, width - len(name) - len(tail) - 4))
    return Text.assemble((f"{name} ", "bold"), (sparkline(losses, room), "cyan"), f" {tail}")


def sparkline(values: Sequence[float], width: int) -> str:
    """Values as blocks, the mean of neighbours where there are more values than columns."""
    if not values:
        return ""
    size = max(1.0, len(values) / width)
    cuts = [round(place * size) for place in range(min(width, len(values)) + 1)]
    pieces = [values[a : max(b, a + 1)] for a, b in pairwise(cuts)]
    means = [sum(piece) / len(piece) for piece in pieces if piece]
    low, span = min(means), (max(means) - min(means)) or 1.0
    return "".join(_BLOCKS[min(7, int((mean - low) / span * 8))] for mean in means)


def _spending(spending: Mapping[str, Any]) -> Text | None:
    total = spending["total"]
    if not total.get("requests"):
        return None
    facts = [f"{total['requests']:,.0f} requests"]
    if total["failed"]:
        facts.append(f"{total['failed']:,.0f} failed")
    facts.append(f"{total['prompt_tokens']:,.0f} tokens read")
    facts.append(f"{total['completion_tokens']:,.0f} written")
    facts += [f"${total['usd']:,.2f}"] if total["usd"] else []
    facts += [f"{total['gpu_hours']:,.2f} GPU-hours"] if total["gpu_hours"] else []
    return Text.assemble(("\nteachers ", "bold"), ", ".join(facts))


def _scores(scores: Sequence[Mapping[str, Any]]) -> Text | None:
    if not scores:
        return None
    shown = ", ".join(
        f"{score['checkpoint']} {score['benchmark']} {score['avg_at_k']:.1%}"
        for score in scores[:_NUM_SCORES]
    )
    return Text.assemble(("scores ", "bold"), shown)


def _failure(state: Mapping[str, Any], run: Mapping[str, Any]) -> Text:
    failure = run.get("failure") or {}
    colour = _COLOURS.get(run["state"], "red")
    text = Text("\n")
    text.append(f"{run['state']}: ", style=f"bold {colour}")
    text.append(failure.get("error") or _STATE_WORDS.get(run["state"], run["state"]))
    stage = next((s for s in state["stages"] if s["state"] in ("failed", "stopped")), None)
    if stage is not None and stage.get("done") is not None:
        of = f" of {stage['total']:,}" if stage.get("total") else ""
        text.append(f"\nat stage {stage['stage']}, {stage['done']:,}{of} shards finished; ")
        text.append("these and all answers are kept")
    if failure.get("remedy"):
        text.append(f"\nremedy: {failure['remedy']}")
    if run.get("command"):
        text.append("\ncontinue with: ")
        text.append(run["command"], style="bold")
    return text


def _events(events: Sequence[Mapping[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, style="dim", width=8)
    table.add_column(no_wrap=True, style="dim", width=17)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for event in events[-_NUM_EVENTS:]:
        table.add_row(str(event.get("time"))[11:19], event["event"], Text(describe(event)))
    return table


def describe(event: Mapping[str, Any]) -> str:
    """One event in a few words."""
    parts = [str(event[key]) for key in ("stage", "title", "what") if event.get(key)][:1]
    if event["event"] == "training.step":
        parts.append(f"step {event.get('step')}, loss {event.get('loss', 0):.3f}")
    elif event["event"] == "answers.arrived":
        parts.append(f"{event.get('answers', 0):,} of {event.get('asked', 0):,} answers")
    elif event.get("done") is not None:
        total = event.get("total")
        unit = "steps" if event.get("unit") == "steps" else "shards"
        parts.append(f"{event['done']:,}" + (f" of {total:,}" if total else "") + f" {unit}")
    if event.get("rows_in") is not None and event.get("unit") != "steps":
        parts.append(f"{event['rows_in']:,} in, {event.get('rows_out', 0):,} out")
    if isinstance(ledger := event.get("stages"), dict):
        usd = sum(figures.get("usd", 0) for figures in ledger.values())
        parts.append(
            f"{sum(f.get('requests', 0) for f in ledger.values()):,} requests, ${usd:,.2f}"
        )
    if event.get("benchmark"):
        parts.append(f"{event['benchmark']} {event.get('avg_at_k', 0):.1%}")
    parts += [str(event[key]) for key in ("line", "error") if event.get(key)]
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """``2 h 5 min``, ``3 min 10 s`` or ``8 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:,}"
