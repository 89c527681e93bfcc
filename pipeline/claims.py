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
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pipeline.errors import StoreError
from pipeline.events import command_line
from pipeline.permissions import open_no_link
from pipeline.store import dump_json_line, explain_disk_errors

_held: ContextVar[frozenset[Path]] = ContextVar("claims", default=frozenset())


@contextmanager
def claiming(out: Path, parts: Iterable[str], *, shared: Iterable[str] = ()) -> Iterator[None]:
    """Have parts of a run folder to oneself for the block; those held already stay held.

    Args:
        out: The run folder; it is created.
        parts: Names, e.g. ``synthesis``; each becomes a file ``logs/.claim-NAME``.
        shared: Names that others may share too, while nobody has them to himself.

    Raises:
        StoreError: Another run is at work on one of them, or the folder cannot be written.
    """
    kinds = [*((part, fcntl.LOCK_EX) for part in parts), *((p, fcntl.LOCK_SH) for p in shared)]
    paths = {out.resolve() / "logs" / f".claim-{part}": kind for part, kind in kinds}
    with ExitStack() as stack:
        for path, kind in paths.items():
            if path not in _held.get():
                stack.enter_context(_claim(path, out, kind))
        token = _held.set(_held.get() | paths.keys())
        try:
            yield
        finally:
            _held.reset(token)


@contextmanager
def _claim(path: Path, out: Path, kind: int) -> Iterator[None]:
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not emptied before the lock is ours: until then it names somebody else.
        handle = open(path, "a+", encoding="utf-8", opener=open_no_link)  # noqa: SIM115
    with handle:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            part = path.name.removeprefix(".claim-")
            raise StoreError(
                f"another run is at work on the {part} of {out}{_describe_holder(handle)}",
                hint=f"wait for it to end (`python -m flows.status {out}` shows it), or pass "
                "another --out",
            ) from exc
        with explain_disk_errors(path):
            # Of several that share it, it names the last that came.
            handle.truncate(0)
            who = {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "command": command_line(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            handle.write(dump_json_line(who) + "\n")
            handle.flush()
        yield


def _describe_holder(handle: IO[str]) -> str:
    """Who holds the lock, if they have said so already."""
    handle.seek(0)
    try:
        who = json.loads(handle.read())
        since = datetime.fromisoformat(who["since"]).strftime("%Y-%m-%d %H:%M UTC")
        process = f"process {who['pid']} of {who['host']}, since {since}"
        return f": {process}, `{who['command'][:200]}`"
    except (ValueError, KeyError, TypeError):
        return ""
