"""Rows of local files: Parquet, JSONL, JSONL.gz or one JSON array, cut into parts.

A part is read by whoever works on it, so that no row passes between processes. Parquet parts are
ranges of rows within row groups, JSONL parts are ranges of bytes; what can only be read from its
beginning (gzip, a JSON array) is spooled once into chunk files. A problem of a whole file (missing,
corrupt, wrong columns, empty) is a :class:`SourceError`; a problem of one row's text is left to the
stages that count rejections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curriculum.sources import json_files, parquet_files
from curriculum.sources.parts import Columns, SourcePart
from pipeline.errors import SourceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """Columns that a reader takes, and those that a file must have."""

    columns: Columns | None = None
    """``None`` takes every column as it is."""
    required: Sequence[str] = field(default=())


def split_file(path: Path, schema: Schema, batch_rows: int, spool: Path) -> Iterator[SourcePart]:
    """Cut a file into parts of at most ``batch_rows`` rows, in order.

    Args:
        path: The file.
        schema: What it must hold.
        batch_rows: Most rows of a part.
        spool: Folder for chunks of files that cannot be read from the middle.

    Raises:
        SourceError: Missing, unreadable or empty file, or a required column is absent.
    """
    require_file(path)
    num_rows = 0
    if path.suffix == ".parquet":
        parts = parquet_files.split(path, schema.columns, schema.required, batch_rows)
    elif path.name.endswith(".jsonl"):
        parts = json_files.split_lines(path, batch_rows)
    elif path.name.endswith(json_files.SPOOLED):
        parts = json_files.spool(path, batch_rows, spool)
    else:
        raise SourceError(
            f"{path}: unknown file type {path.suffix!r}",
            hint="pass a .parquet, .jsonl, .jsonl.gz, .json or .json.gz file",
        )
    for part in parts:
        num_rows += part.num_rows
        yield part
    if not num_rows:
        raise SourceError(f"{path} holds no rows", hint="pass a file with at least one row")


def read_part(part: SourcePart, schema: Schema, origin: Path) -> Iterator[dict[str, Any]]:
    """The rows of a part, with the schema's columns; absent optional columns are null.

    Args:
        part: From :func:`split_file`.
        schema: The same.
        origin: The source's own file, for messages.

    Raises:
        SourceError: The file is unreadable, a required column is absent, or a value has another
            type than its column; the message names file, row and field.
    """
    if part.path.suffix == ".parquet":
        yield from parquet_files.read(part, schema.columns, origin)
    else:
        yield from json_files.read(part, schema.columns, schema.required, origin)


def read_file(path: Path, columns: Columns, required: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Stream one file's rows with the named columns; absent optional columns are null.

    Raises:
        SourceError: As :func:`read_part`.
    """
    return stream_file(path, Schema(columns=columns, required=required))


def iterate_rows(path: Path, required: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Stream one file's rows as they are.

    Raises:
        SourceError: Missing, unreadable or empty file, or a required column is absent.
    """
    return stream_file(path, Schema(required=required))


def stream_file(path: Path, schema: Schema) -> Iterator[dict[str, Any]]:
    """Stream one file's rows.

    Raises:
        SourceError: As :func:`read_part`.
    """
    require_file(path)
    if path.name.endswith(json_files.SPOOLED):
        is_empty = True
        for row in json_files.stream(path, schema.columns, schema.required):
            is_empty = False
            yield row
        if is_empty:
            raise SourceError(f"{path} holds no rows", hint="pass a file with at least one row")
        return
    module = parquet_files if path.suffix == ".parquet" else json_files
    for part in split_file(path, schema, module.STREAMED_ROWS, path.parent):
        yield from read_part(part, schema, path)


def require_file(path: Path) -> None:
    """Stop early when a file is missing.

    Raises:
        SourceError: It is.
    """
    if not path.is_file():
        raise SourceError(
            f"source file not found: {path}", hint="check `paths` in the recipe, or --path"
        )
