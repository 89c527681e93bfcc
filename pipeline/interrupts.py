"""Who hears SIGTERM: a block that turns it into an interruption, and one that takes it back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Within the block SIGTERM raises ``KeyboardInterrupt``, unless it has a handler already."""
    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if is_ours:
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def keep_sigterm() -> Iterator[None]:
    """After the block SIGTERM does what it did before, whatever a library put in its place."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no library can change a handler from here either
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:  # None: set by code that is not Python, which it cannot set again
            signal.signal(signal.SIGTERM, before)
