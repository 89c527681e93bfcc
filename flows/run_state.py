"""What a run folder's events add up to: runs, stages, training, money, scores, the last words.

Pure bookkeeping: events in, one JSON-ready object out (:meth:`RunState.as_json`), which the
terminal view, the metrics and the HTTP endpoint show. Events may begin in the middle, because old
ones are dropped.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.process_marks import process_mark

_NUM_EVENTS = 12
_NUM_LOSSES = 240
"""Points of a loss curve that are kept; every second one goes when there are more."""
_NUM_RECENT = 12
"""Shards that the present rate is judged by."""
_QUIET_S = 300.0
"""A process of another machine that told nothing for so long is not taken to be at work."""
_COUNTS = ("rows_in", "rows_out", "rejected", "reasons", "tokens", "done", "total", "seconds")
_STEP_FIGURES = (
    *("step", "loss", "grad_norm", "learning_rate", "num_tokens"),
    *("tokens_per_second", "memory_gib", "seconds_left"),
)
_ENDS = {"finished": "finished", "failed": "failed", "interrupted": "interrupted"}


class RunState:
    """Takes events, tells the state; one for each run folder."""

    def __init__(self) -> None:
        self.num_events = 0
        self._runs: dict[str, dict[str, Any]] = {}
        self._stages: dict[str, dict[str, Any]] = {}
        self._recent: dict[str, deque[tuple[float, int, int]]] = {}
        self._steps: dict[str, dict[str, Any]] = {}
        self._training: dict[str, dict[str, Any]] = {}
        self._ledgers: dict[str, dict[str, Any]] = {}
        self._scores: dict[tuple[str, str], dict[str, Any]] = {}
        self._last: deque[dict[str, Any]] = deque(maxlen=_NUM_EVENTS)

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one event; kinds that are not known only count as a sign of life."""
        self.num_events += 1
        self._last.append(dict(event))
        about, _, what = event["event"].partition(".")
        run = self._run_of(event)
        run["last"] = event.get("time")
        if about == "run":
            self._add_run(run, what, event)
        elif about == "step":
            self._add_step(what, event)
        elif about in ("stage", "shard") and "stage" in event:
            self._add_stage(f"{about}.{what}", event)
        elif event["event"] == "answers.arrived":
            stage = self._stage(event["stage"])
            stage |= {key: event.get(key) for key in ("answers", "asked")}
            stage |= {"run": event.get("run"), "last": event.get("time"), "state": "running"}
        elif event["event"] == "training.step":
            self._add_training(event)
        elif event["event"] == "ledger.summed":
            self._ledgers[str(event.get("books"))] = event.get("stages", {})
        elif event["event"] == "benchmark.scored":
            self._scores[(event["checkpoint"], event["benchmark"])] = {
                key: event.get(key) for key in ("checkpoint", "benchmark", "avg_at_k", "interval")
            }

    def _run_of(self, event: Mapping[str, Any]) -> dict[str, Any]:
        name = str(event.get("run"))
        return self._runs.setdefault(name, {"run": name, "pid": event.get("pid"), "state": "open"})

    def _add_run(self, run: dict[str, Any], what: str, event: Mapping[str, Any]) -> None:
        if what == "started":
            kept = ("what", "command", "folder", "host", "process", "pid", "resumes")
            run |= {key: event.get(key) for key in kept} | {"started": event.get("time")}
            if (before := self._runs.get(str(event.get("resumes")))) is not None:
                before["is_resumed"] = True
        elif what in _ENDS:
            run |= {"state": what, "seconds": event.get("seconds"), "ended": event.get("time")}
            run["failure"] = _failure_of(event)

    def _add_step(self, what: str, event: Mapping[str, Any]) -> None:
        step = self._steps[event["step"]] = {
            "step": event["step"],
            "title": event.get("title", event["step"]),
            "state": "running" if what == "started" else what,
            "run": event.get("run"),
        }
        step |= {key: event[key] for key in ("line", "seconds", "reused") if key in event}

    def _add_stage(self, what: str, event: Mapping[str, Any]) -> None:
        name = event["stage"]
        if what in ("stage.started", "stage.resumed", "stage.reused"):
            # Back at the end: stages are told in the order in which they were last at work.
            before = self._stages.pop(name, {})
            kept = {key: before[key] for key in _COUNTS if what == "stage.reused" and key in before}
            self._stages[name] = {"stage": name, **kept, "is_resumed": what == "stage.resumed"}
            # A resumed stage counts the rows of its finished shards with the first new one.
            begin = [(0.0, 0, 0)] if what == "stage.started" else []
            self._recent[name] = deque(begin, maxlen=_NUM_RECENT)
        stage = self._stage(name)
        stage |= {key: event[key] for key in ("unit", "version", *_COUNTS) if key in event}
        stage |= {"run": event.get("run"), "last": event.get("time")}
        state = what.partition(".")[2]
        if what.startswith("shard."):
            recent = self._recent.setdefault(name, deque(maxlen=_NUM_RECENT))
            recent.append((event["seconds"], event["done"], event.get("rows_in", 0)))
            state = "running"
        stage["state"] = "running" if state in ("started", "resumed") else state
        stage["failure"] = _failure_of(event) if state in ("failed", "interrupted") else None

    def _add_training(self, event: Mapping[str, Any]) -> None:
        name = event["stage"]
        training = self._training.setdefault(name, {"losses": []})
        training |= {key: event.get(key) for key in _STEP_FIGURES}
        # A run that resumes goes back to its checkpoint.
        losses = [point for point in training["losses"] if point[0] < event["step"]]
        losses.append([event["step"], event["loss"]])
        if len(losses) > _NUM_LOSSES:
            losses = losses[::2] if len(losses) % 2 else losses[1::2]
        training["losses"] = losses
        stage = self._stage(name)
        stage |= {"run": event.get("run"), "last": event.get("time"), "state": "running"}
        stage |= {key: event[key] for key in ("unit", "done", "total", "seconds") if key in event}

    def _stage(self, name: str) -> dict[str, Any]:
        """A stage that is told of; its beginning may be in a log that is gone."""
        return self._stages.setdefault(name, {"stage": name, "is_resumed": False})

    def as_json(self, now: datetime | None = None) -> dict[str, Any]:
        """The state, with ages as of ``now``; processes of this machine are looked at."""
        now = datetime.now(UTC) if now is None else now
        runs = [self._describe_run(run, now) for run in self._runs.values()]
        states = {run["run"]: run["state"] for run in runs}
        stages = [self._describe_stage(stage, states, now) for stage in self._stages.values()]
        chosen = _choose(runs)
        own, begin = (chosen or {}).get("run"), (chosen or {}).get("started") or ""
        for stage in stages:
            stage["is_former"] = stage.get("run") != own and str(stage.get("last")) <= begin
        return {
            "run": chosen,
            "runs": runs[-8:],
            "steps": [_settle(dict(step), states) for step in self._steps.values()],
            "stages": stages,
            "training": {
                name: {**figures, "total": self._stages[name].get("total")}
                for name, figures in self._training.items()
            },
            "spending": self._sum_ledgers(),
            "scores": list(self._scores.values()),
            "events": list(self._last),
            "num_events": self.num_events,
            "last_event_age_s": _age(self._last[-1].get("time"), now) if self._last else None,
        }

    def _describe_run(self, run: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        found = dict(run)
        if run["state"] == "open":
            found["state"] = "killed" if run.get("is_resumed") else _look_for(run, now)
            found["seconds"] = _age(run.get("started"), now)
            if found["state"] != "running" and found["seconds"] is not None:
                # Until its last word.
                found["seconds"] -= _age(run.get("last"), now) or 0.0
        return found

    def _describe_stage(
        self, stage: Mapping[str, Any], states: Mapping[str, str], now: datetime
    ) -> dict[str, Any]:
        found = _settle(dict(stage), states)
        if found["state"] == "running":
            if (training := self._training.get(stage["stage"])) is not None:
                found["seconds_left"] = training.get("seconds_left")
            found |= _speed(list(self._recent.get(stage["stage"], ())), stage)
            found["quiet_s"] = _age(stage.get("last"), now)
        elif stage.get("seconds") and stage.get("rows_in") and not stage["is_resumed"]:
            found["rows_per_second"] = round(stage["rows_in"] / stage["seconds"], 3)
        return found

    def _sum_ledgers(self) -> dict[str, Any]:
        stages: dict[str, dict[str, Any]] = {}
        for ledger in self._ledgers.values():
            stages |= ledger
        keys = sorted({key for figures in stages.values() for key in figures})
        total = {key: round(sum(f.get(key, 0) for f in stages.values()), 6) for key in keys}
        return {"total": total, "stages": stages}


def _settle(thing: dict[str, Any], states: Mapping[str, str]) -> dict[str, Any]:
    """What a process that is gone left at work, is at work no longer."""
    owner = states.get(str(thing.get("run")), "unknown")
    if thing.get("state") == "running" and owner not in ("running", "unknown"):
        thing["state"] = "stopped"
    return thing


def _failure_of(event: Mapping[str, Any]) -> dict[str, Any] | None:
    if "error" not in event:
        return None
    return {key: event.get(key) for key in ("error", "remedy", "kind", "exit_code")}


def _look_for(run: Mapping[str, Any], now: datetime) -> str:
    """Whether the process of a run without an end is still there."""
    if run.get("host") == socket.gethostname() and run.get("process") is not None:
        return "running" if process_mark(int(run["pid"])) == run["process"] else "killed"
    age = _age(run.get("last"), now)
    return "unknown" if age is None or age > _QUIET_S else "running"


def _choose(runs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The run to speak of: the first that is at work, else the newest that no other one contains.

    A training that is launched by a run tells its own run within that one's.
    """
    working = [run for run in runs if run["state"] == "running"]
    if working or not runs:
        return working[0] if working else None
    newest = runs[-1]
    for run in runs[:-1]:
        end = run.get("ended") or (run.get("last") if run["state"] != "unknown" else None)
        if run["run"] != newest.get("resumes") and (end or "") > (newest.get("started") or ""):
            return run
    return newest


def _speed(recent: Sequence[tuple[float, int, int]], stage: Mapping[str, Any]) -> dict[str, Any]:
    """Rows a second of late, and the time that is left at the present pace."""
    if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
        return {}
    (start, before, rows_before), (end, done, rows) = recent[0], recent[-1]
    found: dict[str, Any] = {}
    if rows > rows_before:
        found["rows_per_second"] = round((rows - rows_before) / (end - start), 3)
    if done > before and stage.get("total"):
        left = (stage["total"] - done) * (end - start) / (done - before)
        found["seconds_left"] = round(left, 1)
    return found


def _age(time: Any, now: datetime) -> float | None:
    """Seconds since a time; never below 0, as clocks are set back."""
    try:
        then = datetime.fromisoformat(str(time))
        return max(0.0, round((now - then).total_seconds(), 3))
    except (ValueError, TypeError):
        return None
