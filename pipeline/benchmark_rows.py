"""Rows of benchmark files, and the values in them.

A row is read by its place, so that tests larger than memory can stay in the file: a line of a
JSONL file by its offset, a row of a Parquet file by its group.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import SourceError
from pipeline.store import read_rows


@dataclass(frozen=True, slots=True)
class Place:
    """Where one row of a file lies."""

    path: Path
    start: int
    """First byte of the line of a plain JSONL file; else the row's number, from 0."""


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A row as a file has it."""

    values: dict[str, Any]
    number: int
    """From 1, in its file."""
    place: Place


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row, with words for messages about it."""

    values: dict[str, Any]
    where: str
    """Benchmark, file and row."""
    place: Place


def iterate_rows(path: Path) -> Iterator[PlacedRow]:
    """The rows of a JSONL, JSONL.gz or Parquet file.

    Raises:
        SourceError: Another kind of file, or one that is missing or damaged.
    """
    if path.suffix == ".parquet":
        rows = read_rows(path)
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        rows = read_json_lines(path)
    else:
        raise SourceError(
            f"{path}: benchmarks are read from .jsonl, .jsonl.gz or .parquet",
            hint="convert the file, or correct its `path`",
        )
    for number, values in enumerate(rows, start=1):
        yield PlacedRow(values, number, Place(path, number - 1))


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the objects of a JSONL file, gzip-compressed when its name ends in ``.gz``.

    Raises:
        SourceError: The file is missing or damaged, or a line is not a JSON object.
    """
    if not path.is_file():
        raise SourceError(f"file not found: {path}", hint="check the path")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as handle:
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    yield parse_line(path, number, line)
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as exc:
        raise SourceError(
            f"{path}: cannot be read ({exc})", hint="download this file again; it is damaged"
        ) from exc


def parse_line(path: Path, number: int, line: str | bytes) -> dict[str, Any]:
    """The object of one line.

    Raises:
        SourceError: It is none.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as exc:
        # Beside bad syntax: numbers of thousands of digits, and brackets nested too deeply.
        raise SourceError(
            f"{path}, line {number}: not valid JSON ({exc})", hint="correct that line"
        ) from exc
    if not isinstance(value, dict):
        raise SourceError(
            f"{path}, line {number}: expected a JSON object, found {type(value).__name__}",
            hint="write one object per line",
        )
    return value


def get_value(row: FoundRow, field: str) -> Any:
    """A column's value.

    Raises:
        SourceError: There is no such column.
    """
    if field not in row.values:
        raise SourceError(
            f"{row.where}: no field {field!r}; it has {', '.join(sorted(row.values)) or 'none'}",
            hint="map the columns with id_field, question_field, answer_field and tests_field",
        )
    return row.values[field]


def get_text(row: FoundRow, field: str) -> str:
    """A column's text; numbers become text, because ids and answers are often numbers.

    Raises:
        SourceError: There is no such column, or no text in it.
    """
    value = get_value(row, field)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise SourceError(
            f"{row.where}: field {field!r} should be a text that is not empty, found {value!r}",
            hint="correct this row, or map another column",
        )
    return value


def find_text(row: FoundRow, field: str) -> str:
    """A column's text, empty where it is null or an empty text.

    Raises:
        SourceError: There is no such column, or something else in it.
    """
    value = get_value(row, field)
    return "" if value is None or value == "" else get_text(row, field)
