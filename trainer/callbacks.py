"""What training tells while it runs: a line a step in its logs, progress on the screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from transformers import TrainerCallback

from pipeline import console
from pipeline.settings.training import TrainingSettings
from pipeline.stage_events import Work
from trainer.data import Counts
from trainer.guards import SpikeGuard
from trainer.run_log import RunLog
from trainer.speed import Lap, Speedometer, format_duration

_LOSS_LINES = 8
"""How often the loss is printed in a short run."""
_LONGEST_SILENCE_S = 60.0
"""After which it is printed in a long one."""


class TrainingLog(TrainerCallback):  # type: ignore[misc]
    """Writes the logs, moves the progress, lets the guard look.

    The trainer puts each step's figures into its ``last_step`` before the callback is asked.

    Args:
        trainer: A :class:`trainer.student_trainer.StudentTrainer`.
        counts: Tokens and documents of every step.
        speedometer: Times the steps.
        advance: Moves the progress by so many steps.
        work: Tells the event log.
    """

    def __init__(
        self,
        trainer: Any,
        counts: Counts,
        speedometer: Speedometer,
        advance: Callable[[int], None],
        work: Work,
    ) -> None:
        self._trainer = trainer
        self._log: RunLog = trainer.parts.log
        self._settings: TrainingSettings = trainer.parts.training
        self._counts = counts
        self._tokens = [0, *accumulate(counts.step_tokens)]
        self._speedometer = speedometer
        self._advance = advance
        self._work = work
        self._guard = SpikeGuard(self._settings.guards)
        self._shown, self._shown_at = -1, time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take up where a resumed run stopped."""
        self._guard = SpikeGuard(self._settings.guards, self._log.read("train_log.jsonl"))
        self._advance(state.global_step)
        self._work.done = state.global_step
        self._speedometer.start(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log the step, show it now and then, and stop if the guard or a signal says so.

        Raises:
            GateRefused: Too many jumps of loss or gradient.
        """
        step, record = state.global_step, self._trainer.last_step
        lap = self._speedometer.lap(step, record.num_slots)
        self._trainer.last_lap = lap
        if step % self._settings.logging_steps == 0 or step == state.max_steps:
            self._log.add("train_log.jsonl", self._line(step, record))
            self._log.add("speed_log.jsonl", lap.as_line())
        self._advance(1)
        self._tell(step, state.max_steps, (record, lap))
        self._show(step, state.max_steps, (record, lap))
        for event in self._guard.look(step, record.loss, record.grad_norm):
            self._log.add("events.jsonl", event.as_line())
            console.warn(str(event))
        self._guard.require_calm(step)
        if self._trainer.is_stopping:
            control.should_save = control.should_training_stop = True

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Nothing of ours: trackers of ``report_to`` read what the trainer logs."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Writing a checkpoint is no part of the next step's time."""
        self._speedometer.pause()

    def _line(self, step: int, record: Any) -> dict[str, Any]:
        return {
            "step": step,
            "epoch": round(self._tokens[step] / self._counts.num_tokens, 6),
            "loss": record.loss,
            "grad_norm": record.grad_norm,
            "learning_rate": record.learning_rate,
            "accuracy": round(record.accuracy, 6),
            "num_tokens": self._tokens[step],
            "num_documents": self._counts.step_documents[step - 1],
            "num_labels": record.num_labels,
        }

    def _tell(self, step: int, max_steps: int, told: tuple[Any, Lap]) -> None:
        """The event log gets few of the steps; all of them are in the run's own logs."""
        record, lap = told
        self._work.done = step
        self._work.tell(
            "training.step",
            is_due=step == max_steps,
            step=step,
            loss=record.loss,
            grad_norm=record.grad_norm,
            learning_rate=record.learning_rate,
            num_tokens=self._tokens[step],
            tokens_per_second=round(lap.tokens_per_second, 1),
            memory_gib=round(lap.memory_gib, 2),
            seconds_left=round(lap.seconds_left, 1),
        )

    def _show(self, step: int, max_steps: int, told: tuple[Any, Lap]) -> None:
        mark, now = _LOSS_LINES * step // max_steps, time.monotonic()
        if mark <= self._shown and now - self._shown_at < _LONGEST_SILENCE_S:
            return
        self._shown, self._shown_at = mark, now
        record, lap = told
        mfu = "" if lap.mfu is None else f"MFU {lap.mfu:.1%}, "
        console.say(
            f"  step {step}/{max_steps}: loss {record.loss:.3f}, gradient norm "
            f"{record.grad_norm:.2f}, lr {record.learning_rate:.2g}; "
            f"{lap.tokens_per_second:,.0f} tokens/s, {mfu}{lap.real_share:.0%} real tokens, "
            f"{lap.memory_gib:.1f} GiB, {format_duration(lap.seconds_left)} left"
        )


def tokens_after(step: int, step_tokens: Sequence[int]) -> int:
    """Tokens seen after ``step`` optimiser steps of a run."""
    return sum(step_tokens[:step])
