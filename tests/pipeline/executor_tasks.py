"""Tasks for the tests of executors: workers import them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from pipeline.errors import SourceError


def square(number: int) -> int:
    return number * number


def refuse(number: int) -> int:
    if number == 3:
        raise SourceError("row 3 is broken", hint="mend row 3")
    return number


def die_once(path: Path) -> str:
    """The first time that this is done, its process is killed."""
    mark = path.with_suffix(".tried")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def die_at_two(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def wait_for(task: tuple[Path, Path | None]) -> None:
    """Done when the other file is there; then its own is."""
    own, other = task
    while other is not None and not other.exists():
        time.sleep(0.01)
    own.touch()
