"""A long command as one supervised process: its own log, signals passed on, nothing left behind.

Its output goes straight into a log file, so that it does not depend on who watches it; the watcher
reads the file as it grows. Whatever ends the watcher ends the command: an exception (Ctrl-C, a
cancelled flow) is passed on as SIGTERM and waited for, and the kernel sends SIGTERM where the
watcher is killed (:mod:`pipeline.tied_process`). The log is locked by everybody who can write it,
so the watcher knows when the last process of the command is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.interrupts import interrupt_on_sigterm
from pipeline.keys import child_environment
from pipeline.permissions import open_no_link
from pipeline.store import explain_disk_errors

_POLL_S = 0.2
_LARGEST_LOG = 32 << 20
"""Bytes after which the log is put aside and begun again."""
_KEPT_LOGS = 3
"""Logs put aside: of earlier runs, or of the same one."""
_SLACK_S = 10.0
"""Beyond the grace, for processes that ended by its alarm."""
_LONGEST_LINE = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """How one command is watched."""

    log: Path
    """Standard output and error of all its processes; at most 32 MiB, three older ones beside."""
    stop_grace_s: float
    """Longest wait after SIGTERM, seconds; then the command is killed."""
    on_line: Callable[[str], None]
    """Gets each whole line of the log, in order."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables beside those of this process, of which keys of teachers are not handed on."""


def supervise(command: Sequence[str], how: Supervision) -> int:
    """Run a command to its end and return its exit code (negative: the signal that ended it).

    Raises:
        StoreError: The log cannot be written, or processes of an earlier run still write it.
        KeyboardInterrupt: This process was interrupted, and the command has ended.
    """
    with explain_disk_errors(how.log):
        how.log.parent.mkdir(parents=True, exist_ok=True)
        _require_alone(how.log)
        _put_aside(how.log)
        process = _start(command, how)
    tail = LogTail(how.log, how.on_line)
    try:
        with interrupt_on_sigterm():
            while process.poll() is None:
                tail.read()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
    finally:
        _stop(process, how)
        tail.read()
        tail.finish()
    return process.returncode


def _start(command: Sequence[str], how: Supervision) -> subprocess.Popen[bytes]:
    """The command, tied to this process, with the log as its standard output and error."""
    tied = [sys.executable, "-m", "pipeline.tied_process", str(os.getpid()), *command]
    root = str(Path(__file__).resolve().parents[1])
    search = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**child_environment(), "PYTHONPATH": search, **how.environment}
    with open(how.log, "ab", opener=open_no_link) as log:
        # Belongs to the open file, hence to all that inherit it, until the last of them is gone.
        fcntl.flock(log, fcntl.LOCK_SH)
        return subprocess.Popen(
            tied,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            # The terminal's Ctrl-C reaches this process alone, which passes it on once.
            start_new_session=True,
        )


def _stop(process: subprocess.Popen[bytes], how: Supervision) -> None:
    """Ask the command to end, wait for all of its processes, kill what does not."""
    try:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(how.stop_grace_s)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    _wait_for_writers(how.log, how.stop_grace_s + _SLACK_S)


def _wait_for_writers(log: Path, limit_s: float) -> None:
    """Until nobody can write the log, e.g. processes that outlived their launcher to save.

    Raises:
        StoreError: Somebody still can after so many seconds.
    """
    deadline = time.monotonic() + limit_s
    while not is_unwritten(log):
        if time.monotonic() > deadline:
            raise StoreError(
                f"processes that write {log} are still there {limit_s:.0f} s after their launcher "
                "ended",
                hint="find them with `fuser` on that file, end them and run the same command again",
            )
        time.sleep(_POLL_S)


def is_unwritten(log: Path) -> bool:
    """Whether no process of a supervised command holds this log any more."""
    with log.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _require_alone(log: Path) -> None:
    if log.is_file() and not is_unwritten(log):
        raise StoreError(
            f"processes of an earlier run still write {log}",
            hint="they end by themselves once they have saved their work: wait for that, or end "
            "them, and run the same command again",
        )


def _put_aside(log: Path) -> None:
    """Rename the log to ``….1``, older ones up to the last kept."""
    if not log.is_file():
        return
    for number in range(_KEPT_LOGS, 1, -1):
        older = log.with_name(f"{log.name}.{number - 1}")
        if older.is_file():
            older.replace(log.with_name(f"{log.name}.{number}"))
    log.replace(log.with_name(f"{log.name}.1"))


class LogTail:
    """Reads what is added to a log, line by line, and keeps the file from growing without end.

    Args:
        log: The file; whoever writes it appends.
        on_line: Gets each whole line.
        largest: Bytes read after which the file is copied aside and emptied.
    """

    def __init__(
        self, log: Path, on_line: Callable[[str], None], largest: int = _LARGEST_LOG
    ) -> None:
        self._log, self._on_line, self._largest = log, on_line, largest
        self._position = 0
        self._rest = b""

    def read(self) -> None:
        """Take in what is there now."""
        with self._log.open("rb") as file:
            file.seek(self._position)
            while piece := file.read(1 << 20):
                self._position += len(piece)
                *lines, rest = (self._rest + piece).split(b"\n")
                self._rest = rest[-_LONGEST_LINE:]
                for line in lines:
                    self._on_line(_decode(line))
        if self._position >= self._largest:
            # A line written between the two calls is lost; renaming would lose all that follow.
            shutil.copyfile(self._log, self._log.with_name(f"{self._log.name}.1"))
            os.truncate(self._log, 0)
            self._position = 0

    def finish(self) -> None:
        """Take the last line in, even without an end."""
        if self._rest:
            self._on_line(_decode(self._rest))
            self._rest = b""


def _decode(line: bytes) -> str:
    return line[:_LONGEST_LINE].decode("utf-8", "replace").rstrip("\r")
