"""Time of decode steps: a CUDA graph replayed between events, or plain calls on a CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch

from evaluation.decoding.graph import capture_step

Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of some steps."""

    median_ms: float
    low_ms: float
    """A tenth of the steps took less."""
    high_ms: float
    """A tenth of the steps took more."""
    steps: int


def summarise(times_ms: list[float]) -> Timing:
    """Median and deciles of at least two steps."""
    cuts = statistics.quantiles(times_ms, n=10, method="inclusive")
    return Timing(statistics.median(times_ms), cuts[0], cuts[-1], len(times_ms))


def capture(step: Step, device: torch.device, warmup: int) -> Step:
    """The step as one CUDA graph; on a CPU the step itself. It has run ``warmup`` times before.

    What the step writes, it must write in place; what it reads, must stay where it is.
    """
    if device.type != "cuda":
        for _ in range(warmup):
            step()
        return step
    return capture_step(step, device, warmup)


def time_steps(step: Step, device: torch.device, steps: int) -> list[float]:
    """Milliseconds of each of ``steps`` steps, after one that is not counted."""
    step()
    if device.type != "cuda":
        return [_time_on_cpu(step) for _ in range(steps)]
    events = [
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        for _ in range(steps + 1)
    ]
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    torch.cuda.synchronize(device)
    return [a.elapsed_time(b) for a, b in pairwise(events)]


def _time_on_cpu(step: Step) -> float:
    began = time.perf_counter()
    step()
    return (time.perf_counter() - began) * 1000
