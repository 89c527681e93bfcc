"""Bars of shards on a run's page: when a few of a stage's shards are finished, one small task run.

Fed with the events of a run (``pipeline.events``). The server needs some 40 ms of processor time
for each task run and loses records of bursts, so bars are few: at most :data:`MAX_TASK_RUNS` task
runs a flow run, whatever its size, and none that stands for less than :data:`SHORTEST_S` of work.
A shard that fails is one bar however often it is tried: it ends in the state of the last try, and
its own page lists those before.

No postponed annotations here: see ``flows.running``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid4

from prefect.client.schemas.objects import State, StateType, TaskRun, TaskRunResult
from prefect.context import TaskRunContext
from prefect.utilities.engine import emit_task_run_state_change_event

MAX_TASK_RUNS = 200
"""Of a flow run, stages included, over all its retries."""
SHORTEST_S = 5.0
"""Shards are gathered into one bar until they have taken so long."""
_MOST_A_STAGE = 24
_DIGITS = re.compile(r"\d+")
Outcome = Literal["COMPLETED", "FAILED"]
Rows = tuple[int, int, int]
"""In, out and rejected."""
_ENDS = ("stage.finished", "stage.failed", "stage.interrupted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Some shards of one stage that were finished one after the other, or one that failed.

    Drawn again with the same ``key`` it takes another state, and keeps those before in its history.
    """

    name: str
    """E.g. ``problems-00003``, or ``problems-00003-00007``."""
    start: datetime
    end: datetime
    message: str
    outcome: Outcome = "COMPLETED"
    tries: int = 1
    key: UUID = field(default_factory=uuid4)


@dataclass(slots=True)
class _Stage:
    """What one stage at work has finished since its last bar."""

    start: datetime
    total: int | None
    most: int
    """Bars it may have."""
    drawn: int = 0
    done: int = 0
    """Shards or steps finished at its last bar."""
    numbers: list[int] = field(default_factory=list)
    told: Rows | None = (0, 0, 0)
    """Rows at its last bar; none while it is not known what an earlier process counted."""


class ShardBars:
    """Takes a run's events and draws its bars.

    Args:
        num_steps: Task runs that the flow itself makes.
        num_before: Task runs of earlier attempts of the same flow run.
        draw: What draws a bar.
    """

    def __init__(
        self, num_steps: int, num_before: int = 0, draw: Callable[[Bar], None] | None = None
    ) -> None:
        self._steps_left = num_steps
        self._room = MAX_TASK_RUNS - num_steps - num_before
        self._draw = draw_bar if draw is None else draw
        self._stages: dict[str, _Stage] = {}
        self._rows: dict[str, Rows] = {}
        self._failed: dict[str, Bar] = {}

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take one event of the run."""
        what = event["event"]
        if what == "step.finished":
            self._steps_left -= 1
        elif what in ("stage.started", "stage.resumed"):
            most = max(1, min(_MOST_A_STAGE, self._room // max(1, self._steps_left)))
            start = datetime.fromisoformat(event["time"])
            if what == "stage.started":
                self._rows[event["stage"]] = (0, 0, 0)
            told = self._rows.get(event["stage"])
            self._stages[event["stage"]] = _Stage(
                start, event.get("total"), most, done=event.get("done", 0), told=told
            )
        elif what in ("shard.finished", "training.step"):
            self._hear_shard(event)
        elif what in _ENDS and event["stage"] in self._stages:
            stage = self._stages.pop(event["stage"])
            lasted = (datetime.fromisoformat(event["time"]) - stage.start).total_seconds()
            # A short stage is one bar itself.
            if stage.numbers and stage.total != 1 and (stage.drawn or lasted >= SHORTEST_S):
                self._close(stage, event)
            if what == "stage.failed" and event.get("shard"):
                self._hear_failure(stage, event)

    def _hear_shard(self, event: Mapping[str, Any]) -> None:
        stage = self._stages.get(event["stage"])
        if stage is None:
            return
        before = self._rows.get(event["stage"])
        rows = self._rows[event["stage"]] = rows_of(event)
        failed = self._failed.pop(name_shards(event["stage"], [number_of(event)]), None)
        if failed is not None:
            own = subtract(rows, before)
            self._tell_again(failed, event, f"1 shard{describe_rows(own, event)}", "COMPLETED")
            # Its rows are told, and belong to no other bar.
            stage.told, stage.done = add(stage.told, own), stage.done + 1
            return
        if event["event"] == "training.step" and not stage.numbers:
            # A launched training tells a few of its steps only.
            stage.numbers.append(stage.done + 1)
        stage.numbers.append(number_of(event))
        stage.total = event.get("total") or stage.total
        wanted = -(-(stage.total or 0) // stage.most)
        lasted = (datetime.fromisoformat(event["time"]) - stage.start).total_seconds()
        is_last = stage.drawn >= stage.most - 1
        num = event["done"] - stage.done
        if num >= wanted and lasted >= SHORTEST_S and not is_last:
            self._close(stage, event)

    def _hear_failure(self, stage: _Stage, event: Mapping[str, Any]) -> None:
        """One bar for a shard, however often it is tried."""
        name, end = name_shards(event["stage"], [number_of(event)]), event["time"]
        before = self._failed.get(name)
        if before is not None:
            self._failed[name] = self._tell_again(before, event, str(event["error"]), "FAILED")
        elif self._room > 0:
            self._failed[name] = bar = Bar(
                name=name,
                start=stage.start,
                end=datetime.fromisoformat(end),
                message=str(event["error"]),
                outcome="FAILED",
            )
            self._tell(bar)

    def _tell_again(
        self, bar: Bar, event: Mapping[str, Any], message: str, outcome: Outcome
    ) -> Bar:
        """Draw a bar of a shard that failed before with what another try came to."""
        again = replace(
            bar,
            end=datetime.fromisoformat(event["time"]),
            message=f"try {bar.tries + 1}: {message}",
            outcome=outcome,
            tries=bar.tries + 1,
        )
        self._draw(again)
        return again

    def _close(self, stage: _Stage, event: Mapping[str, Any]) -> None:
        """Draw what has been finished since the last bar."""
        end = datetime.fromisoformat(event["time"])
        rows, num = rows_of(event), event["done"] - stage.done
        thing = "step" if event.get("unit") == "steps" else "shard"
        counted = describe_rows(subtract(rows, stage.told), event)
        message = f"{num:,} {thing}{'' if num == 1 else 's'}{counted}"
        name = name_shards(event["stage"], stage.numbers)
        self._tell(Bar(name=name, start=stage.start, end=end, message=message))
        stage.start, stage.told, stage.done, stage.numbers = end, rows, event["done"], []
        stage.drawn += 1

    def _tell(self, bar: Bar) -> None:
        if self._room > 0:
            self._room -= 1
            self._draw(bar)


def rows_of(event: Mapping[str, Any]) -> Rows:
    """What a stage has counted so far."""
    return (event.get("rows_in", 0), event.get("rows_out", 0), event.get("rejected", 0))


def subtract(now: Rows, then: Rows | None) -> Rows | None:
    """What came to it since; none where that is not known.

    A resumed stage counts the rows of its finished shards again, which takes it a while: never
    below 0.
    """
    if then is None:
        return None
    return (max(0, now[0] - then[0]), max(0, now[1] - then[1]), max(0, now[2] - then[2]))


def add(first: Rows | None, second: Rows | None) -> Rows | None:
    """Both together; none where one is not known."""
    if first is None or second is None:
        return None
    return (first[0] + second[0], first[1] + second[1], first[2] + second[2])


def describe_rows(rows: Rows | None, event: Mapping[str, Any]) -> str:
    """E.g. ``: 10 problems in, 9 out, 1 rejected``; empty where none are known."""
    if rows is None or not rows[0]:
        return ""
    return f": {rows[0]:,} {event['unit']} in, {rows[1]:,} out, {rows[2]:,} rejected"


def number_of(event: Mapping[str, Any]) -> int:
    """The number in a shard's name (``00003-5f1c…``, ``part-3``), or a training's step."""
    found = _DIGITS.search(str(event.get("shard", event.get("step", ""))))
    return int(found.group()) if found else 0


def name_shards(stage: str, numbers: list[int]) -> str:
    """A stage's shards in a word, e.g. ``problems-00003-00007``."""
    first, last = min(numbers), max(numbers)
    return f"{stage}-{first:05d}" + (f"-{last:05d}" if last > first else "")


def draw_bar(bar: Bar) -> None:
    """Show a bar under the task that is running; nothing outside of one.

    One event in the queue that Prefect's own tasks use: no request, and no waiting for a server.
    """
    context = TaskRunContext.get()
    if context is None or context.task_run.flow_run_id is None:
        return
    task_run = TaskRun(
        id=bar.key,
        name=bar.name,
        flow_run_id=context.task_run.flow_run_id,
        task_key="shards",
        dynamic_key=f"{bar.name}-{bar.key.hex[:8]}",
        task_inputs={"__parents__": [TaskRunResult(id=context.task_run.id)]},
        expected_start_time=bar.start,
        start_time=bar.start,
        end_time=bar.end,
        total_run_time=bar.end - bar.start,
        run_count=bar.tries,
    )
    state = State[Any](type=StateType(bar.outcome), message=bar.message, timestamp=bar.end)
    emit_task_run_state_change_event(task_run, initial_state=None, validated_state=state)
