"""Who is at work on which part of a run folder: a second run is refused before it changes anything.

A part is what one run has to itself from its first stage to its last, e.g. ``synthesis`` or
``data-1``; locks of single stages and versions (:mod:`pipeline.stages`) stay beneath. A claim is
an advisory lock on a file under ``logs/``, which the kernel frees whatever ends its process, and
the file says who holds it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from pipeline.errors import StoreError
from pipeline.events import command_line
from pipeline.store import dump_json_line, explain_disk_errors

_held: ContextVar[frozenset[Path]] = ContextVar("claims", default=frozenset())


@contextmanager
def claiming(out: Path, parts: Iterable[str]) -> Iterator[None]:
    """Have parts of a run folder to oneself for the block; those held already stay held.

    Args:
        out: The run folder; it is created.
        parts: Names, e.g. ``synthesis``; each becomes a file ``logs/.claim-NAME``.

    Raises:
        StoreError: Another run is at work on one of them, or the folder cannot be written.
    """
    paths = dict.fromkeys(out.resolve() / "logs" / f".claim-{part}" for part in parts)
    with ExitStack() as stack:
        for path in paths:
            if path not in _held.get():
                stack.enter_context(_claim(path, out))
        token = _held.set(_held.get() | paths.keys())
        try:
            yield
        finally:
            _held.reset(token)


@contextmanager
def _claim(path: Path, out: Path) -> Iterator[None]:
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not emptied before the lock is ours: until then it names somebody else.
        handle = path.open("a+", encoding="utf-8")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            part = path.name.removeprefix(".claim-")
            raise StoreError(
                f"another run is at work on the {part} of {out}{_describe_holder(handle)}",
                hint=f"wait for it to end (`python -m flows.status {out}` shows it), or pass "
                "another --out",
            ) from exc
        with explain_disk_errors(path):
            handle.truncate(0)
            who = {"host": socket.gethostname(), "pid": os.getpid(), "command": command_line()}
            handle.write(dump_json_line(who) + "\n")
            handle.flush()
        yield


def _describe_holder(handle: IO[str]) -> str:
    """Who holds the lock, if they have said so already."""
    handle.seek(0)
    try:
        who = json.loads(handle.read())
        return f": process {who['pid']} of {who['host']}, `{who['command'][:200]}`"
    except (ValueError, KeyError, TypeError):
        return ""
