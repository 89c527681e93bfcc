"""Rows of a source as plain dicts: local Parquet or JSONL(.gz) files, or a pinned hub dataset.

Everything streams: one row group or one line is in memory at a time. A problem of a whole file
(missing, corrupt, wrong columns, empty) is a :class:`SourceError`; a problem of one row's text is
left to the stages that count rejections.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import SourceError
from pipeline.hashing import file_sha256
from pipeline.manifest import InputRef
from pipeline.settings.recipe import Recipe
from pipeline.settings.sources import SourceSettings
from pipeline.store import read_rows

Kind = Literal["text", "integer", "turns"]
Columns = Mapping[str, Kind]
"""Column name to what its values are; every value may be null."""

_PYTHON_TYPES: dict[Kind, type] = {"text": str, "integer": int, "turns": list}


def read_file(path: Path, columns: Columns, required: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Stream one file's rows with the named columns; absent optional columns are null.

    Raises:
        SourceError: Missing, unreadable or empty file, a required column is absent, or a value has
            another type than its column; the message names file, row and field.
    """
    for number, row in enumerate(iterate_rows(path, required), start=1):
        yield _typed(row, columns, f"{path}: row {number}")


def iterate_rows(path: Path, required: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Stream one file's rows as they are.

    Raises:
        SourceError: Missing, unreadable or empty file, or a required column is absent.
    """
    is_empty = True
    for row in _raw_rows(path, required):
        is_empty = False
        yield dict(row)
    if is_empty:
        raise SourceError(f"{path} holds no rows", hint="pass a file with at least one row")


def _raw_rows(path: Path, required: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        raise SourceError(
            f"source file not found: {path}", hint="check `paths` in the recipe, or --path"
        )
    if path.suffix == ".parquet":
        _require_columns(path, _parquet_columns(path), required)
        yield from read_rows(path)
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from _json_lines(path, required)
    else:
        raise SourceError(
            f"{path}: unknown file type {path.suffix!r}",
            hint="pass a .parquet, .jsonl or .jsonl.gz file",
        )


def _parquet_columns(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowInvalid, OSError) as exc:
        raise SourceError(
            f"{path}: not a readable Parquet file ({str(exc).splitlines()[0]})",
            hint="download or rebuild this file; it is truncated or corrupt",
        ) from exc


def _require_columns(path: Path, found: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in found]
    if missing:
        raise SourceError(
            f"{path}: missing column(s) {', '.join(missing)}; it has {', '.join(found)}",
            hint="pass a file in the source's documented schema (data_cards/ names it)",
        )


def _json_lines(path: Path, required: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as handle:
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    yield _parse_line(path, number, line, required)
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as exc:
        raise SourceError(
            f"{path}: unreadable after line {number} ({exc})",
            hint="download or rebuild this file; it is truncated, corrupt or not UTF-8",
        ) from exc


def _parse_line(path: Path, number: int, line: str, required: Sequence[str]) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as exc:
        raise SourceError(
            f"{path}: line {number} is not JSON ({exc.msg})", hint="fix or remove this line"
        ) from exc
    if not isinstance(row, dict):
        raise SourceError(
            f"{path}: line {number} is no JSON object", hint="write one object per line"
        )
    missing = [name for name in required if name not in row]
    if missing:
        raise SourceError(
            f"{path}: line {number}: missing field(s) {', '.join(missing)}; "
            f"it has {', '.join(sorted(row))}",
            hint="pass a file in the source's documented schema (data_cards/ names it)",
        )
    return row


def _typed(row: Mapping[str, Any], columns: Columns, place: str) -> dict[str, Any]:
    values = {name: row.get(name) for name in columns}
    for name, kind in columns.items():
        value = values[name]
        expected = _PYTHON_TYPES[kind]
        if value is not None and (not isinstance(value, expected) or isinstance(value, bool)):
            raise SourceError(
                f"{place}, field {name!r}: expected {kind}, got {type(value).__name__}",
                hint="cast this column to the documented type",
            )
    return values


def read_hub(
    source: SourceSettings, columns: Columns, *, config: str | None, split: str
) -> Iterator[dict[str, Any]]:
    """Stream a hub dataset at its pinned revision.

    Raises:
        SourceError: Offline, unknown dataset, revision, config or split, or other columns.
    """
    import datasets

    place = f"hub dataset {source.hub_id}@{source.revision} ({config or 'default'}/{split})"
    count = 0
    try:
        rows = datasets.load_dataset(
            source.hub_id, config, split=split, revision=source.revision, streaming=True
        )
        for count, row in enumerate(rows, start=1):
            if count == 1:
                _require_columns(Path(str(source.hub_id)), list(row), list(columns))
            yield _typed(row, columns, f"{place}: row {count}")
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as exc:
        raise SourceError(
            f"cannot read {place}: {str(exc).splitlines()[0] if str(exc) else type(exc).__name__}",
            hint="check the network and the names, or download the files and give them as `paths`",
        ) from exc
    if count == 0:
        raise SourceError(f"{place} holds no rows", hint="check config, split and revision")


def file_inputs(recipe: Recipe, name: str, paths: Sequence[str]) -> list[InputRef]:
    """Name local files by their content, so that moving them changes no version.

    Raises:
        SourceError: A file is missing.
    """
    refs = []
    for relative in paths:
        path = recipe.file(relative)
        if not path.is_file():
            raise SourceError(
                f"source {name!r}: file not found: {path}",
                hint="check `paths` in the recipe (relative to the recipe's folder)",
            )
        refs.append(InputRef(name=f"{name}:{path.name}", version=file_sha256(path)))
    return refs
