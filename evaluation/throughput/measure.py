"""Measure both models under all budgets, one after another; what is finished is kept."""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from evaluation.throughput.attention import synchronise
from evaluation.throughput.fitting import Fit, Overhead, Search, measure_overhead
from evaluation.throughput.memory import Memory, open_memory
from evaluation.throughput.records import Group, Point, Records, as_group, as_line
from evaluation.throughput.runners import (
    Runner,
    Session,
    choose_kernels,
    load_code,
    open_runner,
)
from evaluation.throughput.shapes import GB, Subject
from evaluation.throughput.tasks import Task, list_tasks
from evaluation.throughput.timing import summarise, time_steps
from pipeline.hashing import code_version, content_hash, file_sha256
from pipeline.settings.recipe import Recipe

_MEASURING = (
    "attention",
    "fitting",
    "measure",
    "memory",
    "qwen2",
    "runners",
    "tasks",
    "timing",
    "transformer",
)
"""Modules of this package that can change a measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything about one model."""

    subject: Subject
    weights: str
    """``random``, or the name of their folder."""
    groups: tuple[Group, ...]
    prefill: dict[str, Any]
    """``tokens`` of a prompt and ``ms`` to read it alone."""
    walk: dict[str, Any] | None
    """Of a Mamba-2: ``first_ms`` and ``last_ms`` of real consecutive steps, ``grown_bytes``."""


class Bench:
    """Measures one recipe on one device.

    Args:
        recipe: Its ``[throughput]`` and ``[model]``.
        records: Finished work; more is added.
        device: Where both models run.
    """

    def __init__(self, recipe: Recipe, records: Records, device: torch.device) -> None:
        self.recipe, self.records, self.device = recipe, records, device
        self.settings = recipe.settings.throughput
        if self.settings.num_threads:
            torch.set_num_threads(self.settings.num_threads)

    def identity(self) -> dict[str, Any]:
        """What every measurement depends on."""
        how = ("utilisation", "prompt_tokens", "dtype", "steps", "warmup_steps", "max_batch")
        return {
            "device": device_name(self.device),
            "torch": torch.__version__,
            "threads": torch.get_num_threads() if self.device.type == "cpu" else 0,
            "kernels": choose_kernels(self.settings, self.device),
            "code": _hash_code(),
            "weights": [self.settings.mamba_from, self.settings.transformer_from],
            **{name: getattr(self.settings, name) for name in (*how, "seed")},
        }

    def measure(self, subject: Subject, advance: Callable[[int], None]) -> Measured:
        """All groups of one model, prefill and, for a Mamba-2, the walk."""
        groups = []
        with _Lazy(self, subject) as lazy:
            for task in list_tasks(self.settings, subject):
                line = self._once(subject, asdict(task), partial(self._run, lazy, task))
                groups.append(as_group(line))
                advance(1)
            tokens = self.settings.prompt_tokens
            prefill = self._once(subject, {"prefill": tokens}, partial(self._prefill, lazy, tokens))
            walk, batch = None, groups[0].batch
            if subject.kind == "mamba2" and self.settings.walk_steps and batch:
                what = {"walk": self.settings.walk_steps, "batch": batch}
                walk = self._once(subject, what, partial(self._walk, lazy, batch))
        return Measured(
            subject=subject,
            weights=prefill["weights"],
            groups=tuple(groups),
            prefill=prefill,
            walk=walk,
        )

    def _once(
        self, subject: Subject, what: dict[str, Any], work: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """The line of something measured before, or ``work``'s, which is kept."""
        key = content_hash([self.identity(), asdict(subject), what])
        line = self.records.get(key)
        return self.records.add(key, work()) if line is None else line

    def _prefill(self, lazy: _Lazy, tokens: int) -> dict[str, Any]:
        runner = lazy.runner
        found = {"tokens": tokens, "ms": runner.time_prefill(tokens), "weights": runner.weights}
        return {"record": "prefill", "model": runner.subject.name, **found}

    def _walk(self, lazy: _Lazy, batch: int) -> dict[str, Any]:
        """A Mamba-2 generates for real: the last tenth of the steps against the first."""
        steps = max(20, self.settings.walk_steps)
        tenth = steps // 10
        session = lazy.runner.open(batch, 0)
        step, _ = session.step_at(0)
        first = time_steps(step, self.device, tenth)
        held = lazy.memory.held()
        for _ in range(steps - 2 * tenth - 2):
            step()
        last = time_steps(step, self.device, tenth)
        grown = lazy.memory.held() - held
        session.close()
        return {
            "record": "walk",
            "model": lazy.runner.subject.name,
            "state_dtype": lazy.runner.subject.state_dtype,
            "batch": batch,
            "steps": steps,
            "first_ms": summarise(first).median_ms,
            "last_ms": summarise(last).median_ms,
            "grown_bytes": grown,
        }

    def _run(self, lazy: _Lazy, task: Task) -> dict[str, Any]:
        limit = int(task.budget_gb * GB * self.settings.utilisation)
        runner, memory = lazy.runner, lazy.memory
        search = Search(runner, memory, limit, lazy.overhead, self.settings.max_batch)
        fit, session = search.find(task.tokens)
        points: list[Point] = []
        if session is not None:
            points = [self._time(session, position) for position in task.positions]
            session.close()
        memory.release()
        return as_line(_make_group(runner.subject, task, fit, points))

    def _time(self, session: Session, position: int) -> Point:
        step, route = session.step_at(position)
        synchronise(self.device)
        timing = summarise(time_steps(step, self.device, self.settings.steps))
        return Point(position=position, route=route, **asdict(timing))


def _make_group(subject: Subject, task: Task, fit: Fit, points: Sequence[Point]) -> Group:
    return Group(
        model=subject.name,
        kind=subject.kind,
        state_dtype=subject.state_dtype,
        budget_gb=task.budget_gb,
        mode=task.mode,
        length=task.length,
        tokens=task.tokens,
        batch=fit.batch,
        peak_bytes=fit.peak_bytes,
        cache_bytes=fit.cache_bytes,
        refused=tuple(fit.refused),
        points=tuple(points),
    )


class _Lazy:
    """A model that is made when something is to be measured, and freed in the end."""

    def __init__(self, bench: Bench, subject: Subject) -> None:
        self._bench, self._subject = bench, subject
        self._runner: Runner | None = None
        self._overhead: Overhead | None = None
        # Before the model, so that its weights count, and after the code that it needs.
        load_code(subject)
        self.memory: Memory = open_memory(bench.device)

    def __enter__(self) -> _Lazy:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner = None
        if self._bench.device.type == "cuda":
            gc.unfreeze()
            gc.collect()  # what a refused batch left may refer to the model
        self.memory.release()

    @property
    def runner(self) -> Runner:
        if self._runner is None:
            self._runner = open_runner(self._bench.recipe, self._subject, self._bench.device)
        return self._runner

    @property
    def overhead(self) -> Overhead:
        if self._overhead is None:
            self._overhead = measure_overhead(self.runner, self.memory)
            if self._bench.device.type == "cuda":
                # Each batch that is freed is followed by a collection: a quarter of a second if it
                # looked through PyTorch's half a million objects every time.
                gc.collect()
                gc.freeze()
        return self._overhead


def _hash_code() -> str:
    """Of what measures and of the decode loop."""
    folder = Path(__file__).parent
    files = {name: file_sha256(folder / f"{name}.py") for name in _MEASURING}
    return content_hash([files, code_version("evaluation.decoding")])


def device_name(device: torch.device) -> str:
    """The card's name, or the processor's kind."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"
