"""Everything a person sees in the terminal: progress, tables, messages.

People read standard output; with ``--json`` they are moved to standard error so that standard
output holds one JSON object and nothing else.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

_PLAIN_INTERVAL_S = 5.0
"""How often a progress line appears where there is no terminal to redraw."""

_state: dict[str, Console] = {}
_bars: dict[str, Progress] = {}


def use_json_output() -> None:
    """Move people's output to standard error for the rest of the process."""
    _state["console"] = Console(stderr=True, highlight=False)


def reset() -> None:
    """Forget the chosen console, so that the next use binds to the current standard output."""
    _state.clear()


def screen() -> Console:
    """The console people's output goes to."""
    if "console" not in _state:
        _state["console"] = Console(highlight=False)
    return _state["console"]


def say(message: str) -> None:
    """Print one line or paragraph."""
    screen().print(escape(message), soft_wrap=True)


def heading(message: str) -> None:
    """Print a line that opens a part of a long run."""
    screen().print(f"[bold]{escape(message)}[/bold]", soft_wrap=True)


def warn(message: str) -> None:
    """Print something the user should know but that stops nothing."""
    screen().print(f"[yellow]note:[/yellow] {escape(message)}", soft_wrap=True)


def show_error(message: str, hint: str | None = None) -> None:
    """Print an error and its remedy to standard error."""
    errors = Console(stderr=True, highlight=False)
    errors.print(f"[red]error:[/red] {escape(message)}", soft_wrap=True)
    if hint:
        errors.print(f"remedy: {escape(hint)}", soft_wrap=True)


def print_json(value: Mapping[str, Any]) -> None:
    """Print the command's one JSON object to standard output."""
    sys.stdout.write(json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; columns whose cells are all numbers are right-aligned."""
    grid = Table(title=title, title_justify="left", title_style="bold")
    for position, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[position], int | float) for row in rows)
        grid.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape(_cell(value)) for value in row))
    screen().print(grid)


def _cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


@contextmanager
def progress(description: str, total: int, unit: str = "rows") -> Iterator[Callable[[int], None]]:
    """Show progress of a known amount of work; yields the function that advances it.

    On a terminal it is a bar (nested uses stack under each other); elsewhere a plain line every
    few seconds.
    """
    if screen().is_terminal:
        with _shared_bar() as bar:
            task = bar.add_task(escape(description), total=total)
            try:
                yield lambda amount: bar.advance(task, amount)
            finally:
                # An inner bar that is done would only fill the screen with finished lines.
                if len(bar.tasks) > 1:
                    bar.remove_task(task)
        return
    line = _PlainProgress(description, total, unit)
    yield line.advance
    line.finish()


@contextmanager
def _shared_bar() -> Iterator[Progress]:
    """The process's one live display: rich refuses a second one."""
    if "bar" in _bars:
        yield _bars["bar"]
        return
    with _new_bar() as bar:
        _bars["bar"] = bar
        try:
            yield bar
        finally:
            del _bars["bar"]


def _new_bar() -> Progress:
    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=screen(),
    )


class _PlainProgress:
    """Progress as lines, for logs and CI."""

    def __init__(self, description: str, total: int, unit: str) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._done = 0
        self._start = self._last = time.monotonic()

    def advance(self, amount: int) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._last >= _PLAIN_INTERVAL_S and self._done < self._total:
            self._last = now
            self._print(now)

    def finish(self) -> None:
        self._print(time.monotonic())

    def _print(self, now: float) -> None:
        say(
            f"{self._description}: {self._done}/{self._total} {self._unit} "
            f"in {now - self._start:.0f} s"
        )
