"""Ranges of rows of a Parquet file, and only the columns that are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curriculum.sources.parquet_texts import read_exchanges, read_texts
from curriculum.sources.parts import DOCUMENTED, Columns, Kind, SourcePart
from pipeline.errors import SourceError

STREAMED_ROWS = 1000
"""Rows of a part where a file is only streamed."""
_READ_ROWS = 256
"""Rows decoded at once: 8 MB at 30 kB a row."""
_BUFFER_BYTES = 1 << 16


def split(
    path: Path, columns: Columns | None, required: Sequence[str], batch_rows: int
) -> Iterator[SourcePart]:
    """Parts that never reach over the end of a larger row group, so that few are read twice.

    Raises:
        SourceError: The file is no Parquet, or its columns are not the documented ones.
    """
    with open_parquet(path) as file:
        check_columns(path, file.schema_arrow, columns, required)
        groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    for index, (start, num_rows) in enumerate(cut_ranges(groups, batch_rows)):
        yield SourcePart(index, path, start, num_rows, first=start)


def cut_ranges(groups: Sequence[int], batch_rows: int) -> Iterator[tuple[int, int]]:
    """(first row, rows) of each part from the sizes of row groups: small join, large split."""
    start = pending = 0
    for size in groups:
        if pending and pending + size > batch_rows:
            yield start, pending
            start, pending = start + pending, 0
        pending += size
        while pending > batch_rows:
            yield start, batch_rows
            start, pending = start + batch_rows, pending - batch_rows
    if pending:
        yield start, pending


def read(part: SourcePart, columns: Columns | None, origin: Path) -> Iterator[dict[str, Any]]:
    """The rows of a part.

    Raises:
        SourceError: The file is no Parquet, or changed since it was cut.
    """
    with open_parquet(part.path) as file:
        names = file.schema_arrow.names
        taken = list(names if columns is None else [name for name in columns if name in names])
        absent = dict.fromkeys(name for name in columns or () if name not in names)
        groups, skip = _overlapping(file, part.first, part.num_rows)
        left = part.num_rows
        batches = file.iter_batches(
            batch_size=_READ_ROWS, row_groups=groups, columns=taken, use_threads=False
        )
        for batch in batches:
            cut = batch.slice(skip, left)
            skip = max(0, skip - batch.num_rows)
            left -= cut.num_rows
            for row in _read_batch(cut, columns or {}):
                yield {**row, **absent} if absent else row
            if not left:
                return
    raise SourceError(
        f"{origin} changed while it was read: {left} rows are missing",
        hint="run the same command again",
    )


def _read_batch(batch: pa.RecordBatch, columns: Columns) -> list[dict[str, Any]]:
    """A batch's rows, long texts as views of their UTF-8.

    Raises:
        ArrowInvalid: A text is no UTF-8.
    """
    # Views are not decoded here, nor most of them anywhere.
    batch.validate(full=True)
    long: dict[str, list[Any]] = {}
    for name in batch.schema.names:
        if columns.get(name) == "long_text":
            long[name] = read_texts(batch[name])
        elif columns.get(name) == "exchange":
            long[name] = read_exchanges(batch[name])
    rows: list[dict[str, Any]] = batch.drop_columns(list(long)).to_pylist()
    for name, values in long.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def _overlapping(file: pq.ParquetFile, first: int, num_rows: int) -> tuple[list[int], int]:
    """Row groups that hold a range of rows, and how many rows to skip in the first of them."""
    groups: list[int] = []
    begin = skip = 0
    for number in range(file.num_row_groups):
        end = begin + file.metadata.row_group(number).num_rows
        if begin < first + num_rows and end > first:
            if not groups:
                skip = first - begin
            groups.append(number)
        begin = end
    return groups, skip


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file; whatever goes wrong while it is open names it.

    Raises:
        SourceError: It cannot be read.
    """
    try:
        # Columns page by page: a row group of long rows takes 60 MB whole (measured).
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
            yield file
    except (pa.ArrowInvalid, OSError) as exc:
        raise SourceError(
            f"{path}: not a readable Parquet file ({str(exc).splitlines()[0]})",
            hint="download or rebuild this file; it is truncated or corrupt",
        ) from exc


def check_columns(
    path: Path, schema: pa.Schema, columns: Columns | None, required: Sequence[str]
) -> None:
    """Hold a file to its documented columns and types.

    Raises:
        SourceError: A column is missing or has another type.
    """
    require_columns(path, schema.names, required)
    for name, kind in (columns or {}).items():
        if name in schema.names and not _fits(schema.field(name).type, kind):
            raise SourceError(
                f"{path}: column {name!r}: expected {DOCUMENTED.get(kind, kind)}, "
                f"got {schema.field(name).type}",
                hint="cast this column to the documented type",
            )


def require_columns(path: Path, found: Sequence[str], required: Sequence[str]) -> None:
    """Stop when a documented column is absent.

    Raises:
        SourceError: It is.
    """
    missing = [name for name in required if name not in found]
    if missing:
        raise SourceError(
            f"{path}: missing column(s) {', '.join(missing)}; it has {', '.join(found)}",
            hint="pass a file in the source's documented schema (data_cards/ names it)",
        )


def _fits(found: pa.DataType, kind: Kind) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    if kind == "any" or pa.types.is_null(found):
        return True
    if kind in ("text", "long_text"):
        return bool(
            pa.types.is_string(found)
            or pa.types.is_large_string(found)
            or pa.types.is_string_view(found)
        )
    if kind == "integer":
        return bool(pa.types.is_integer(found))
    return bool(pa.types.is_list(found) or pa.types.is_large_list(found))
