"""A run folder's state (:mod:`flows.run_state`) as metrics that Prometheus reads.

Two spellings of the same: OpenMetrics 1.0, which the endpoint serves, and Prometheus' older text
format, which the textfile collector of node_exporter wants. Labels are bounded: stages and
checkpoints are the recipe's, reasons the nine that an event tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_MAX_STAGES = 64
"""Stages that have metrics, the newest; a run folder that sees more has seen many recipes."""
_STATES = ("running", "finished", "failed", "interrupted", "killed", "unknown", "empty")

Labels = Mapping[str, str]


@dataclass(slots=True)
class Family:
    """One metric: name, kind and its samples."""

    name: str
    kind: Literal["gauge", "counter"]
    text: str
    samples: list[tuple[Labels, float]] = field(default_factory=list)

    def add(self, value: Any, **labels: str) -> None:
        """Add a sample, unless there is no value."""
        if isinstance(value, int | float):
            self.samples.append((labels, value))

    def lines(self, *, is_open: bool) -> Iterator[str]:
        """The family in OpenMetrics (``is_open``), or in Prometheus' text format."""
        sample = f"{self.name}_total" if self.kind == "counter" else self.name
        named = self.name if is_open else sample
        yield f"# HELP {named} {self.text}"
        yield f"# TYPE {named} {self.kind}"
        for labels, value in self.samples:
            shown = ",".join(f'{name}="{_escape(text)}"' for name, text in labels.items())
            yield f"{sample}{{{shown}}} {value!r}" if shown else f"{sample} {value!r}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write_metrics(state: Mapping[str, Any], *, is_open: bool = True) -> str:
    """All metrics of a state.

    Args:
        state: From :meth:`flows.run_state.RunState.as_json`.
        is_open: OpenMetrics; else Prometheus' text format.
    """
    families = [*_run(state), *_stages(state), *_teachers(state), *_training(state)]
    score = Family("promptcot_benchmark_score", "gauge", "Share of right answers, avg@k, 0 to 1.")
    for entry in state["scores"]:
        score.add(
            entry["avg_at_k"],
            checkpoint=str(entry["checkpoint"]),
            benchmark=str(entry["benchmark"]),
        )
    lines = [
        line
        for family in [*families, score]
        if family.samples
        for line in family.lines(is_open=is_open)
    ]
    return "\n".join([*lines, "# EOF\n" if is_open else ""])


def _run(state: Mapping[str, Any]) -> list[Family]:
    run = state.get("run") or {}
    info = Family("promptcot_run", "gauge", "What runs in this folder; the value is 1.")
    info.add(1, recipe=str(state.get("recipe") or ""), what=str(run.get("what") or ""))
    states = Family("promptcot_run_state", "gauge", "1 for the state that the run is in.")
    for name in _STATES:
        states.add(int(run.get("state", "empty") == name), state=name)
    seconds = Family("promptcot_run_seconds", "gauge", "Seconds since the run was started.")
    seconds.add(run.get("seconds"))
    age = Family("promptcot_last_event_age_seconds", "gauge", "Seconds since the newest event.")
    age.add(state["last_event_age_s"])
    events = Family("promptcot_events", "counter", "Events that were read.")
    events.add(state["num_events"])
    return [info, states, seconds, age, events]


def _stages(state: Mapping[str, Any]) -> list[Family]:
    rows = Family(
        "promptcot_stage_rows",
        "counter",
        "Rows that a stage took in, by what became of them; of rejected ones, why.",
    )
    tokens = Family("promptcot_stage_tokens", "counter", "Tokens of a stage's rows.")
    done = Family("promptcot_stage_shards_finished", "gauge", "Shards (or steps) that are done.")
    total = Family("promptcot_stage_shards", "gauge", "Shards (or steps) in all.")
    running = Family("promptcot_stage_running", "gauge", "1 while a stage is at work.")
    seconds = Family("promptcot_stage_seconds", "gauge", "Seconds of the stage's newest process.")
    for entry in state["stages"][-_MAX_STAGES:]:
        stage = str(entry["stage"])
        done.add(entry.get("done"), stage=stage)
        total.add(entry.get("total"), stage=stage)
        running.add(int(entry["state"] == "running"), stage=stage)
        seconds.add(entry.get("seconds"), stage=stage)
        for kind, number in (entry.get("tokens") or {}).items():
            tokens.add(number, stage=stage, kind=str(kind))
        if entry.get("unit") != "steps":
            rows.add(entry.get("rows_out"), stage=stage, outcome="accepted", reason="")
            for reason, number in (entry.get("reasons") or {}).items():
                rows.add(number, stage=stage, outcome="rejected", reason=str(reason))
    return [rows, tokens, done, total, running, seconds]


def _teachers(state: Mapping[str, Any]) -> list[Family]:
    requests = Family("promptcot_teacher_requests", "counter", "Requests that ended.")
    tokens = Family("promptcot_teacher_tokens", "counter", "Tokens that teachers read and wrote.")
    money = Family("promptcot_teacher_dollars", "counter", "US dollars at the recipe's prices.")
    busy = Family("promptcot_teacher_busy_seconds", "counter", "Seconds with a request in flight.")
    gpu = Family("promptcot_teacher_gpu_seconds", "counter", "Busy seconds times the GPUs behind.")
    for stage, figures in list(state["spending"]["stages"].items())[-_MAX_STAGES:]:
        failed = figures["failed"]
        requests.add(figures["requests"] - failed, stage=stage, outcome="answered")
        requests.add(failed, stage=stage, outcome="failed")
        tokens.add(figures["prompt_tokens"], stage=stage, kind="prompt")
        tokens.add(figures["completion_tokens"], stage=stage, kind="completion")
        money.add(figures["usd"], stage=stage)
        busy.add(figures["busy_seconds"], stage=stage)
        gpu.add(round(figures["gpu_hours"] * 3600.0, 3), stage=stage)
    return [requests, tokens, money, busy, gpu]


def _training(state: Mapping[str, Any]) -> list[Family]:
    gauges = {
        "step": "Optimiser steps so far.",
        "loss": "Loss of the newest step that was told.",
        "grad_norm": "Norm of its gradient.",
        "learning_rate": "Its learning rate.",
        "tokens_per_second": "Its tokens a second, over all devices.",
        "seconds_left": "Seconds left at the present pace.",
    }
    families = {key: Family(f"promptcot_training_{key}", "gauge", gauges[key]) for key in gauges}
    tokens = Family("promptcot_training_tokens", "counter", "Tokens trained on so far.")
    for stage, figures in state["training"].items():
        tokens.add(figures.get("num_tokens"), stage=stage)
        for key, family in families.items():
            family.add(figures.get(key), stage=stage)
    return [*families.values(), tokens]
