"""Watch the loss and the gradient norm: NaN ends a run, jumps are events that can end it.

Nothing is ever skipped: a step with a jump is done, logged as an event, and counted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

from pipeline.errors import GateRefused
from pipeline.settings.training import GuardSettings

_MOST_NAMED = 8
"""Documents named in an error; the log's step leads to all of them."""


@dataclass(frozen=True, slots=True)
class Event:
    """A loss or gradient norm far above the steps before it."""

    step: int
    kind: Literal["loss", "grad_norm"]
    value: float
    median: float
    """Of the steps in the window before it."""

    def as_line(self) -> dict[str, Any]:
        """The line of ``events.jsonl``."""
        return asdict(self)

    def __str__(self) -> str:
        name = "loss" if self.kind == "loss" else "gradient norm"
        return (
            f"step {self.step}: {name} {self.value:.4g} is {self.value / self.median:.1f} times "
            f"the median of the steps before it ({self.median:.4g})"
        )


class SpikeGuard:
    """Compares each step with the median of a window before it.

    Args:
        settings: Window, factors, and after how many events to stop.
        history: Lines of the log so far (``step``, ``loss``, ``grad_norm``): a resumed run sees the
            same windows as an uninterrupted one.
    """

    def __init__(self, settings: GuardSettings, history: Iterable[dict[str, Any]] = ()) -> None:
        self._settings = settings
        self._losses: deque[float] = deque(maxlen=settings.window)
        self._norms: deque[float] = deque(maxlen=settings.window)
        self._event_steps: list[int] = []
        for line in history:
            self.look(line["step"], line["loss"], line["grad_norm"])

    def look(self, step: int, loss: float, grad_norm: float) -> list[Event]:
        """Take a finished step in and say what is unusual about it."""
        found = [
            event
            for event in (
                self._compare(step, "loss", loss),
                self._compare(step, "grad_norm", grad_norm),
            )
            if event is not None
        ]
        self._losses.append(loss)
        self._norms.append(grad_norm)
        self._event_steps += [step] * len(found)
        return found

    def require_calm(self, step: int) -> None:
        """Stop if the window has too many events.

        Raises:
            GateRefused: ``stop_after`` events within one window.
        """
        limit, window = self._settings.stop_after, self._settings.window
        recent = [at for at in self._event_steps if at > step - window]
        if limit and len(recent) >= limit:
            raise GateRefused(
                f"{len(recent)} jumps of the loss or gradient within {window} steps up to step "
                f"{step} (events.jsonl lists them); nothing was published",
                hint="look at the rows of those steps, lower training.learning_rate or "
                "training.max_grad_norm, or raise training.guards.stop_after (0 only logs)",
            )

    def _compare(self, step: int, kind: Literal["loss", "grad_norm"], value: float) -> Event | None:
        seen = self._losses if kind == "loss" else self._norms
        settings = self._settings
        factor = settings.loss_factor if kind == "loss" else settings.gradient_factor
        if len(seen) < settings.min_steps:
            return None
        middle = median(seen)
        return Event(step, kind, value, middle) if value > factor * middle > 0 else None


def require_finite(step: int, loss: float, grad_norm: float, documents: Sequence[str]) -> None:
    """Stop before a NaN or infinity reaches the weights.

    Args:
        step: The optimiser step about to be made.
        loss: Its loss.
        grad_norm: Norm of its gradients before clipping.
        documents: Ids of its rows.

    Raises:
        GateRefused: One of them is not finite.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient norm is {grad_norm}"
    shown = ", ".join(documents[:_MOST_NAMED])
    more = len(documents) - _MOST_NAMED
    tail = f" and {more} more" if more > 0 else ""
    raise GateRefused(
        f"{what} at step {step}; the weights were not touched and nothing was published; rows of "
        f"the step: {shown}{tail}",
        hint="lower training.learning_rate or raise training.warmup_steps and run the same command "
        "again; if it comes back at this step, look at these rows of the dataset",
    )
