"""What was measured, a line each in ``points.jsonl``: finished work is never measured again.

A line's key says everything that determines it (model, budget, lengths, steps, device, code), so
that one file serves any settings; the last line may be torn by a kill and then does not count.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.permissions import open_no_link
from pipeline.store import dump_json_line, explain_disk_errors

POINTS = "points.jsonl"


@dataclass(frozen=True, slots=True)
class Point:
    """The cost of a step at one place of a sequence."""

    position: int
    """Tokens read before."""
    median_ms: float
    low_ms: float
    high_ms: float
    steps: int
    route: str
    """What computed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One model with one batch under one budget."""

    model: str
    kind: str
    state_dtype: str
    budget_gb: float
    mode: str
    """``constant`` (a Mamba-2), ``reserved`` (every sequence has room for its whole length) or
    ``paged`` (sequences of all ages side by side: half the room each)."""
    length: int
    """Generated tokens; 0: any."""
    tokens: int
    """Room of a sequence in the cache; 0: any."""
    batch: int
    """0: not one sequence fits."""
    peak_bytes: int
    cache_bytes: int
    """Of all sequences."""
    refused: tuple[int, ...]
    points: tuple[Point, ...]


class Records:
    """The file of finished work.

    Args:
        folder: Where it lies.

    Raises:
        StoreError: A line that is not the last one cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / POINTS
        self._lines: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            self._read()

    def get(self, key: str) -> dict[str, Any] | None:
        """The line of a key, if it was finished."""
        return self._lines.get(key)

    def add(self, key: str, line: dict[str, Any]) -> dict[str, Any]:
        """Keep a finished line; it is on disk when this returns."""
        whole = {"key": key, **line}
        with explain_disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8", opener=open_no_link) as handle:
                handle.write(dump_json_line(whole) + "\n")
                handle.flush()
                os.fsync(handle.fileno())
        self._lines[key] = whole
        return whole

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) != len(lines):
            # What a kill tore: the next line must not be written behind it.
            with (
                explain_disk_errors(self.path),
                open(self.path, "r+b", opener=open_no_link) as handle,
            ):
                handle.truncate(len("".join(whole).encode("utf-8")))
        for number, line in enumerate(whole, start=1):
            try:
                values = json.loads(line)
                self._lines[values["key"]] = values
            except (ValueError, KeyError, TypeError) as exc:
                raise StoreError(
                    f"{self.path}, line {number}: not a record of a measurement",
                    hint="delete that line: it is measured again",
                ) from exc


def as_line(group: Group) -> dict[str, Any]:
    """A group as its line."""
    return {"record": "group", **asdict(group)}


def as_group(line: dict[str, Any]) -> Group:
    """A line as its group."""
    names = Group.__dataclass_fields__
    values = {name: line[name] for name in names if name not in ("points", "refused")}
    points = tuple(Point(**point) for point in line["points"])
    return Group(**values, points=points, refused=tuple(line["refused"]))
