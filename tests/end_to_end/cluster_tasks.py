"""Tasks for the tests on a cluster: its workers import them."""

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


def die(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def note_span(_: int) -> tuple[float, float]:
    """When it began and ended, by the clock that all processes of this machine share."""
    start = time.monotonic()
    time.sleep(0.05)
    return start, time.monotonic()


def hold_first(task: tuple[Path, int]) -> int:
    """Says where it runs; the first of all holds its node until that is gone."""
    folder, number = task
    with (folder / "starts").open("a", encoding="ascii") as starts:
        starts.write(f"{number}\n")
    if number == 0 and not (folder / "holder").exists():
        # Not before the cluster has said how Ray listens.
        import ray

        node = ray.get_runtime_context().get_node_id()
        (folder / "holder.tmp").write_text(node, encoding="ascii")
        (folder / "holder.tmp").rename(folder / "holder")
        time.sleep(100)
    return number * number
