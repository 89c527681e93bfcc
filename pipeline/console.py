"""Everything a person sees in the terminal: progress, tables, messages.

People read standard output; with ``--json`` they are moved to standard error so that standard
output holds one JSON object and nothing else.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pipeline.redaction import mask_message, mask_values

_PLAIN_WIDTH = 120
"""Columns of a table where there is no terminal to ask: a file has room, a name cut in two has no
reader."""
_PLAIN_INTERVAL_S = 5.0
"""How often a progress line appears where there is no terminal to redraw."""

_state: dict[str, Console] = {}
_meters: dict[str, _Line] = {}
_outer: list[_Line] = []
_lines_lock = threading.Lock()


def use_json_output() -> None:
    """Move people's output to standard error for the rest of the process."""
    _state["console"] = _make_console(stderr=True)


def reset() -> None:
    """Forget the chosen console, so that the next use binds to the current standard output."""
    _state.clear()


def screen() -> Console:
    """The console people's output goes to."""
    if "console" not in _state:
        _state["console"] = _make_console()
    return _state["console"]


class _Screen(Console):
    """A console whose reader may leave: work goes on, and what it says is dropped.

    rich ends the thread that writes, and whoever waits for that thread's work waits for ever.
    """

    def on_broken_pipe(self) -> None:
        """See :func:`drop_output`."""
        drop_output(self)


def drop_output(console: Console) -> None:
    """Say nothing more on a console whose reader is gone, nor fail for it at the end."""
    console.quiet = True
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path of ours
        os.dup2(nowhere.fileno(), console.file.fileno())


def _make_console(*, stderr: bool = False) -> Console:
    console = _Screen(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PLAIN_WIDTH
    return console


def say(message: str) -> None:
    """Print one line or paragraph."""
    screen().print(escape(_printable(message)), soft_wrap=True)


def show(thing: RenderableType) -> None:
    """Print what rich can draw."""
    screen().print(thing)


def heading(message: str) -> None:
    """Print a line that opens a part of a long run."""
    screen().print(f"[bold]{escape(_printable(message))}[/bold]", soft_wrap=True)


def warn(message: str) -> None:
    """Print something the user should know but that stops nothing."""
    screen().print(f"[yellow]note:[/yellow] {escape(_printable(message))}", soft_wrap=True)


def show_error(message: str, hint: str | None = None, then: str | None = None) -> None:
    """Print an error, its remedy, and the command that continues the work, to standard error."""
    errors = _Screen(stderr=True, highlight=False)
    errors.print(f"[red]error:[/red] {escape(_printable(message))}", soft_wrap=True)
    if hint:
        errors.print(f"remedy: {escape(_printable(hint))}", soft_wrap=True)
    if then:
        errors.print(f"continue with: {escape(_printable(then))}", soft_wrap=True)


def print_json(value: Mapping[str, Any]) -> None:
    """Print the command's one JSON object to standard output."""
    sys.stdout.write(_to_json(value) + "\n")
    sys.stdout.flush()


def print_json_rows(value: Mapping[str, Any], name: str) -> None:
    """Print a command's JSON object of which one entry holds as many rows as a file.

    Args:
        value: The object.
        name: The entry: rows that are written one by one, whatever holds them.
    """
    mark = f"{json.dumps(name)}: []"
    # Within a text its quotes would be escaped: the mark occurs once.
    head, tail = _to_json({**value, name: []}).split(mark)
    sys.stdout.write(f"{head}{json.dumps(name)}: [")
    for number, row in enumerate(value[name]):
        text = _to_json(row)
        sys.stdout.write(f", {text}" if number else text)
    sys.stdout.write(f"]{tail}\n")
    sys.stdout.flush()


def _to_json(value: Any) -> str:
    # Rows of data are shown as they are, addresses in them too.
    return mask_values(_encodable(json.dumps(value, sort_keys=True, ensure_ascii=False)))


def _printable(text: str) -> str:
    """A message without secrets that can be encoded."""
    return mask_message(_encodable(text))


def _encodable(text: str) -> str:
    """A text whose halves of characters (lone surrogates), which no encoding has, are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; columns whose cells are all numbers are right-aligned."""
    grid = Table(title=title, title_justify="left", title_style="bold")
    for position, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[position], int | float) for row in rows)
        # Names and numbers stay whole; what gives way is prose.
        whole = position == 0 or numeric
        justify: Literal["left", "right"] = "right" if numeric else "left"
        grid.add_column(column, justify=justify, overflow="fold", no_wrap=whole)
    for row in rows:
        grid.add_row(*(escape(_cell(value)) for value in row))
    screen().print(grid)


def _cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return mask_values(str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


@contextmanager
def progress(
    description: str, total: int, unit: str = "rows", detail: Callable[[], str] = str
) -> Iterator[Callable[[int], None]]:
    """Show progress of a known amount of work; yields the function that advances it.

    On a terminal it is a bar (nested uses stack under each other); elsewhere a plain line every
    few seconds. ``detail`` is asked whenever either is drawn, e.g. for a rate.
    """
    line = _Line(description, unit, detail)
    with _lines_lock:
        _outer.append(line)
    line.expect(total)
    is_done = False
    try:
        yield line.advance
        is_done = True
    finally:
        with _lines_lock:
            _outer.remove(line)
            idle = [] if _outer else [m for m in _meters.values() if not m.num_users]
        for meter in idle:
            _drop(meter)
        line.close(is_done=is_done)


@contextmanager
def meter(description: str, total: int, unit: str = "rows") -> Iterator[Callable[[int], None]]:
    """Like :func:`progress`, for work that many threads do in pieces under one description.

    All of them share one line, whose total grows with every piece. It stays until the enclosing
    progress ends, so that a pause between two pieces does not end it.
    """
    with _lines_lock:
        line = _meters.setdefault(description, _Line(description, unit))
        line.num_users += 1
    line.expect(total)
    try:
        yield line.advance
    finally:
        with _lines_lock:
            line.num_users -= 1
            is_idle = not line.num_users and not _outer
        if is_idle:
            _drop(line)


def _drop(line: _Line) -> None:
    """Close a meter, unless somebody has just begun to use it again."""
    with _lines_lock:
        if line.num_users or _meters.get(line.description) is not line:
            return
        del _meters[line.description]
    line.close(is_done=True)


class _Line:
    """One bar of the terminal's live display, or one recurring line of a log; safe for threads."""

    def __init__(self, description: str, unit: str, detail: Callable[[], str] = str) -> None:
        self.description = description
        self._detail = detail
        self.num_users = 0
        self._unit = unit
        self._done = self._total = 0
        self._lock = threading.Lock()
        self._start = self._last = time.monotonic()
        self._display: _Display | None = None
        self._task: TaskID | None = None

    def expect(self, amount: int) -> None:
        with self._lock:
            self._total += amount
            if self._task is None and screen().is_terminal:
                self._display = _display
                self._task = _display.add(self.description)
            self._show()

    def advance(self, amount: int) -> None:
        with self._lock:
            self._done += amount
            now = time.monotonic()
            if self._task is not None:
                self._show()
            elif now - self._last >= _PLAIN_INTERVAL_S and self._done < self._total:
                self._last = now
                self._print(now)

    def close(self, *, is_done: bool) -> None:
        with self._lock:
            if self._display is not None and self._task is not None:
                self._display.remove(self._task)
                self._task = None
            elif is_done:
                self._print(time.monotonic())

    def _show(self) -> None:
        if self._display is not None and self._task is not None:
            detail = self._detail()
            text = f"{self.description}: {detail}" if detail else self.description
            self._display.update(self._task, self._done, self._total, text)

    def _print(self, now: float) -> None:
        detail = self._detail()
        say(
            f"{self.description}: {self._done}/{self._total} {self._unit} "
            f"in {now - self._start:.0f} s{f', {detail}' if detail else ''}"
        )


class _Display:
    """The process's one live display (rich refuses a second one), there while it has bars."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: Progress | None = None

    def add(self, description: str) -> TaskID:
        with self._lock:
            if self._bars is None:
                self._bars = _new_bars()
                self._bars.start()
            return self._bars.add_task(escape(description), total=0)

    def update(self, task: TaskID, done: int, total: int, text: str) -> None:
        with self._lock:
            if self._bars is not None:
                self._bars.update(task, completed=done, total=total, description=escape(text))

    def remove(self, task: TaskID) -> None:
        """Take a bar away; the last one stays on the screen as the record of what was done."""
        with self._lock:
            if self._bars is None:
                return
            if len(self._bars.tasks) > 1:
                # An inner bar that is done would only fill the screen with finished lines.
                self._bars.remove_task(task)
                return
            self._bars.stop()
            self._bars = None


def _new_bars() -> Progress:
    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=screen(),
    )


_display = _Display()
