"""What training tells: a line per logged step in ``train_log.jsonl``, progress on the screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from pipeline import console
from pipeline.errors import GateRefused
from pipeline.store import dump_json_line, explain_disk_errors, write_text

_LOSS_LINES = 8
"""How often the loss is printed in one run."""


class TrainingLog(TrainerCallback):  # type: ignore[misc]
    """Writes the log, moves the progress, stops when the loss is no number.

    The truth is the trainer's own history, which its checkpoints carry; after a resume the file is
    rewritten from it, so that steps done twice are listed once.
    """

    def __init__(
        self, path: Path, step_tokens: Sequence[int], advance: Callable[[int], None]
    ) -> None:
        self._path = path
        self._step_tokens = step_tokens
        self._advance = advance
        self._shown = -1

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Rewrite the file from the history a resumed run brings along."""
        lines = [self._line(entry) for entry in state.log_history if "loss" in entry]
        write_text(self._path, "".join(lines))
        self._advance(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the progress by one optimiser step."""
        self._advance(1)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Append one line and, now and then, show the loss.

        Raises:
            GateRefused: The loss is not finite.
        """
        if logs is None or "loss" not in logs:
            return
        entry = {**logs, "step": state.global_step}
        with (
            explain_disk_errors(self._path),
            self._path.open("a", encoding="utf-8", newline="") as file,
        ):
            file.write(self._line(entry))
        if not math.isfinite(entry["loss"]):
            raise GateRefused(
                f"the loss is {entry['loss']} at step {entry['step']}; nothing was published",
                hint="lower training.learning_rate or raise training.warmup_steps",
            )
        self._show(entry, state.max_steps)

    def _show(self, entry: dict[str, Any], max_steps: int) -> None:
        mark = _LOSS_LINES * entry["step"] // max_steps
        if mark > self._shown:
            self._shown = mark
            console.say(
                f"  step {entry['step']}/{max_steps}: loss {entry['loss']:.3f}, "
                f"gradient norm {entry['grad_norm']:.2f}, lr {entry['learning_rate']:.2g}"
            )

    def _line(self, entry: dict[str, Any]) -> str:
        kept = {name: entry.get(name) for name in ("epoch", "loss", "grad_norm", "learning_rate")}
        tokens = tokens_after(entry["step"], self._step_tokens)
        return dump_json_line({"step": entry["step"], **kept, "num_tokens": tokens}) + "\n"


def tokens_after(step: int, step_tokens: Sequence[int]) -> int:
    """Tokens seen after ``step`` optimiser steps, given those of each step of one epoch."""
    epochs, rest = divmod(step, len(step_tokens))
    return epochs * sum(step_tokens) + sum(step_tokens[:rest])
