"""What happens in a run, as it happens: ``logs/events.jsonl`` of the run folder, and listeners.

Every command opens its run folder with :func:`recording`; within it steps, stages and trainings
tell what they do. A line is one JSON object: ``time`` (UTC), ``event``, ``run`` (an id for each
start of a command), ``seq`` (rises within a process) and the event's own fields
(docs/data-model.md).

The log is for people and monitors. Nothing is decided by it, no version depends on it, and whoever
reads it must expect it to be cut at its beginning, because its size is bounded. Appends of several
processes take turns under a lock; what a killed process or a full disk left of a line is cut off
by the next writer.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.errors import EXIT_BUG, EXIT_INTERRUPTED, PipelineError, StoreError, WorkPending
from pipeline.permissions import open_no_link
from pipeline.process_marks import process_mark
from pipeline.redaction import mask_fields, mask_message
from pipeline.settings.events import EventSettings
from pipeline.store import dump_json_line, explain_disk_errors

LOG = Path("logs") / "events.jsonl"
"""The log, from the run folder; ``events.1.jsonl`` beside it is the part before it."""
Listener = Callable[[Mapping[str, Any]], None]
"""Is given every event of this context, unlike the log not summed up; it must not raise."""

_MEGABYTE = 1_000_000
_LONGEST_TEXT = 2000
"""Characters of an error that are kept."""
_TAIL_BYTES = 1 << 16
"""How far back a new run looks for the end of the one before it."""
_sequence = count(1)
_recording: ContextVar[Recording | None] = ContextVar("recording", default=None)
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


class EventLog:
    """One run folder's log; safe for threads and processes.

    Args:
        out: The run folder.
        settings: How large it may become.
    """

    def __init__(self, out: Path, settings: EventSettings) -> None:
        self.path = out / LOG
        self._settings = settings

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one line; it is in the system's hands when this returns.

        Raises:
            StoreError: The disk is full or not writable; the log is as it was before.
        """
        line = (dump_json_line(entry) + "\n").encode("utf-8", "backslashreplace")
        with explain_disk_errors(self.path), self._alone():
            self._make_room(len(line))
            descriptor = open_no_link(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            try:
                size = _cut_half_line(descriptor)
                try:
                    written = os.write(descriptor, line)
                    while written < len(line):
                        written += os.write(descriptor, line[written:])
                except OSError:
                    os.ftruncate(descriptor, size)
                    raise
            finally:
                os.close(descriptor)

    def last_lines(self) -> list[dict[str, Any]]:
        """The whole lines at the end of the log; none where there is no log."""
        try:
            with self.path.open("rb") as file:
                start = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
                file.seek(start)
                pieces = file.read().split(b"\n")[1 if start else 0 : -1]
        except FileNotFoundError:
            return []
        lines = []
        for piece in pieces:
            # A machine that lost its power leaves anything.
            with suppress(ValueError):
                lines.append(json.loads(piece))
        return [line for line in lines if isinstance(line, dict)]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the log for a moment; a file of its own, because the log is renamed."""
        lock = self.path.with_name(".lock-events")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with open(lock, "a", encoding="utf-8", opener=open_no_link) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _make_room(self, size: int) -> None:
        """Put a log aside that the next line would make too large."""
        limit = self._settings.max_megabytes * _MEGABYTE
        if not self.path.is_file() or self.path.stat().st_size + size <= limit:
            return
        for number in range(self._settings.kept_files, 0, -1):
            newer = self.path if number == 1 else self._aside(number - 1)
            if newer.is_file():
                newer.replace(self._aside(number))

    def _aside(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.stem}.{number}{self.path.suffix}")


def _cut_half_line(descriptor: int) -> int:
    """Cut off what follows the last whole line; the log's size then."""
    size = os.fstat(descriptor).st_size
    if not size or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    end = size
    while end:
        start = max(0, end - _TAIL_BYTES)
        place = os.pread(descriptor, end - start, start).rfind(b"\n")
        if place >= 0:
            end = start + place + 1
            break
        end = start
    os.ftruncate(descriptor, end)
    return end


class Recording:
    """One start of a command in one run folder, from its first event to its last."""

    def __init__(self, out: Path, settings: EventSettings) -> None:
        self.out = out.resolve()
        self.settings = settings
        self.run = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        self._log = EventLog(out, settings)
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._failure: dict[str, Any] = {}

    def write(self, event: str, fields: Mapping[str, Any], *, is_kept: bool = True) -> None:
        """Tell the listeners, and the log if the event ``is_kept``."""
        with self._lock:
            entry = _stamp(event, {"run": self.run, **fields})
            _tell(entry)
            if is_kept:
                self._log.append(entry)

    def open(self, what: str, command: str | None) -> None:
        """Write the first event: what runs where, and which run it takes up."""
        before = _unfinished(self._log.last_lines())
        self.write(
            "run.started",
            {
                "what": what,
                "command": command_line() if command is None else command,
                "folder": str(self.out),
                **_describe_process(),
                **({} if before is None else {"resumes": before}),
            },
        )

    def fail(self, message: str) -> None:
        """Note a failure that is told in another way than by an exception."""
        self._failure = {"error": mask_message(message)[:_LONGEST_TEXT], "exit_code": EXIT_BUG}

    def close(self, error: BaseException | None) -> None:
        """Write the last event."""
        seconds = {"seconds": round(time.monotonic() - self._start, 3)}
        if error is None and not self._failure:
            self.write("run.finished", seconds)
            return
        # What failed is told to the user by the error itself, which may be a full disk.
        with suppress(StoreError):
            if error is None:
                self.write("run.failed", {**seconds, **self._failure})
            else:
                self.write(f"run.{outcome_of(error)}", {**seconds, **describe_error(error)})


@contextmanager
def recording(
    out: Path, settings: EventSettings, what: str, *, command: str | None = None
) -> Iterator[Recording]:
    """Open a run folder's log for a command; within another one of the same folder, join it.

    Args:
        out: The run folder.
        settings: ``recipe.settings.events``.
        what: What runs, for people, e.g. ``synthesis``.
        command: What continues this run; this process's command line by default.

    Raises:
        StoreError: The log cannot be written.
    """
    outer = _recording.get()
    if outer is not None and outer.out == out.resolve():
        yield outer
        return
    opened = Recording(out, settings)
    opened.open(what, command)
    token = _recording.set(opened)
    try:
        with _Ending(opened.close):
            yield opened
    finally:
        _recording.reset(token)


class _Ending:
    """Calls a function at the end of a block, with the exception that ended it."""

    def __init__(self, close: Callable[[BaseException | None], None]) -> None:
        self._close = close

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close(error)


def current_recording() -> Recording | None:
    """The recording of this context, if there is one."""
    return _recording.get()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Give every event of this context to a listener, too, e.g. to draw bars from."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def emit(event: str, *, is_kept: bool = True, **fields: Any) -> None:
    """Tell one event; without a recording only listeners hear it.

    Args:
        event: Its name, e.g. ``stage.started``.
        is_kept: Whether the log gets it, or listeners only.
        fields: JSON-ready.

    Raises:
        StoreError: The log cannot be written.
    """
    opened = _recording.get()
    if opened is not None:
        opened.write(event, fields, is_kept=is_kept)
    else:
        _tell(_stamp(event, fields))


@contextmanager
def step(key: str, title: str) -> Iterator[dict[str, Any]]:
    """Tell that a step of a flow begins and how it ends; yields what the end tells besides."""
    result: dict[str, Any] = {}
    start = time.monotonic()
    fields: dict[str, Any] = {"step": key, "title": title}

    def close(error: BaseException | None) -> None:
        seconds = round(time.monotonic() - start, 3)
        if error is None:
            emit("step.finished", seconds=seconds, **fields, **result)
            return
        with suppress(StoreError):
            emit(f"step.{outcome_of(error)}", seconds=seconds, **fields, **describe_error(error))

    emit("step.started", **fields)
    with _Ending(close):
        yield result


def describe_error(error: BaseException) -> dict[str, Any]:
    """A failure's sentence, remedy, kind and exit code."""
    found: dict[str, Any] = {
        "kind": type(error).__name__,
        "error": (mask_message(str(error)) or type(error).__name__)[:_LONGEST_TEXT],
        "exit_code": EXIT_BUG if isinstance(error, Exception) else EXIT_INTERRUPTED,
    }
    if isinstance(error, PipelineError):
        found |= {"remedy": error.hint[:_LONGEST_TEXT], "exit_code": error.exit_code}
    return found


def outcome_of(error: BaseException) -> str:
    """Whether somebody stopped the work, or it failed."""
    is_stopped = isinstance(error, WorkPending) or not isinstance(error, Exception)
    return "interrupted" if is_stopped else "failed"


def command_line() -> str:
    """How this process was started, as a person would type it, without secrets."""
    line = shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]])
    return mask_message(line)


def _stamp(event: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {
        "time": now,
        "event": event,
        "seq": next(_sequence),
        "pid": os.getpid(),
        **mask_fields(fields),
    }


def _tell(entry: Mapping[str, Any]) -> None:
    for listener in _listeners.get():
        listener(entry)


def _describe_process() -> dict[str, Any]:
    """What identifies this process after its number has been given to another."""
    return {"host": socket.gethostname(), "process": process_mark(os.getpid())}


def _unfinished(lines: list[dict[str, Any]]) -> str | None:
    """The id of the newest run in the log, unless it was finished or still goes on."""
    runs = [line for line in lines if str(line.get("event")).startswith("run.")]
    if not runs or runs[-1]["event"] == "run.finished":
        return None
    last = runs[-1]
    is_here = last.get("host") == socket.gethostname()
    if is_here and last.get("process") == process_mark(int(last["pid"])):
        return None
    return str(last.get("run"))
