"""SIGTERM while training: finish the running step, save a checkpoint, then stop.

Schedulers, ``torchrun`` and a cancelled flow send it. All processes of a run stop after the same
step: each one's wish is added to the sums that a step reduces anyway. Ctrl-C stays immediate.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from pipeline import console
from pipeline.store import write_json

_Handler = Callable[[int, FrameType | None], Any]


class StopSignal:
    """Notes SIGTERM instead of dying of it, inside a ``with`` block of the main thread.

    In another thread nothing is changed: Python delivers signals to the main one only.

    Args:
        grace_s: If the process is still there so many seconds after the signal, SIGALRM ends it:
            a process whose partner died may wait for it for ever, where no Python runs.
    """

    def __init__(self, grace_s: float) -> None:
        self.is_requested = False
        self._grace_s = grace_s
        self._before: _Handler | int | None = None
        self._is_installed = False

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
            self._is_installed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_installed:
            signal.signal(signal.SIGTERM, self._before)
        if self.is_requested:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def pass_on(self) -> None:
        """Stop as whoever handled the signal before wants it, or as Ctrl-C does.

        Raises:
            KeyboardInterrupt: Nobody did.
        """
        if callable(self._before):
            self._before(signal.SIGTERM, None)
        raise KeyboardInterrupt

    def _note(self, signal_number: int, frame: FrameType | None) -> None:
        if not self.is_requested:
            self.is_requested = True
            signal.setitimer(signal.ITIMER_REAL, self._grace_s)


def tell_stopped(step: int, num_steps: int) -> None:
    """Say that the run stopped where it can go on."""
    console.say(f"stopped by SIGTERM after step {step}/{num_steps}; checkpoint-{step} is saved")


def ending_file(out: Path, phase: str) -> Path:
    """Where a launched training leaves how it ended, for the process that launched it."""
    return out / "logs" / f"training-phase-{phase}.ending.json"


def write_ending(path: Path, code: int, error: str, remedy: str) -> None:
    """Record an ending; of several processes' the first failure stands."""
    if path.is_file() and code == signal.SIGINT + 128:
        return
    write_json(path, {"exit_code": code, "error": error, "remedy": remedy})
