"""How fast a run is: tokens a second, MFU, memory, and the time that is left."""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.settings.training import ModelSettings
from trainer.flops import flops_per_token, peak_flops
from trainer.memory import GIB
from trainer.processes import Processes, device_name

_RECENT = 20
"""Steps that the remaining time is judged by."""


@dataclass(frozen=True, slots=True)
class Lap:
    """One step's speed. Tokens are real ones: padding does not count."""

    step: int
    seconds: float
    tokens_per_second: float
    """Over all processes."""
    real_share: float
    """Share of the tokens that passed through the model which were no padding."""
    mfu: float | None
    """Share of the devices' peak; none where the peak is not known."""
    memory_gib: float
    """Peak so far: of the GPU, or of this process on a CPU."""
    seconds_left: float

    def as_line(self) -> dict[str, Any]:
        """The line of ``speed_log.jsonl``."""
        return {name: _shorten(value) for name, value in asdict(self).items()}


class Speedometer:
    """Times steps.

    Args:
        model: Shape, for the operations of a token.
        step_tokens: Real tokens of every step of the run.
        processes: How many devices share the work.
    """

    def __init__(
        self, model: ModelSettings, step_tokens: Sequence[int], processes: Processes
    ) -> None:
        peak = peak_flops(device_name())
        self._flops = flops_per_token(model)
        self._peak = None if peak is None else peak * processes.world_size
        self._step_tokens = step_tokens
        self._left = sum(step_tokens)
        self._recent: deque[tuple[int, float]] = deque(maxlen=_RECENT)
        self._last = time.perf_counter()

    def start(self, step: int) -> None:
        """The run is about to make the step after ``step``."""
        self._left = sum(self._step_tokens[step:])
        self._last = time.perf_counter()

    def pause(self) -> None:
        """Time since the last lap is no training (a checkpoint was written)."""
        self._last = time.perf_counter()

    def lap(self, step: int, num_slots: int) -> Lap:
        """A step is over; ``num_slots`` tokens passed through the model."""
        now = time.perf_counter()
        seconds, self._last = max(now - self._last, 1e-9), now
        tokens = self._step_tokens[step - 1]
        self._left -= tokens
        self._recent.append((tokens, seconds))
        rate = tokens / seconds
        recent = sum(t for t, _ in self._recent) / sum(s for _, s in self._recent)
        return Lap(
            step=step,
            seconds=seconds,
            tokens_per_second=rate,
            real_share=tokens / max(1, num_slots),
            mfu=None if self._peak is None else rate * self._flops / self._peak,
            memory_gib=peak_memory_gib(),
            seconds_left=self._left / recent,
        )


def peak_memory_gib() -> float:
    """Most memory held so far: of the GPU, or of this process where there is none."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def format_duration(seconds: float) -> str:
    """``2 h 5 min``, ``3 min 10 s`` or ``8 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _shorten(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value
