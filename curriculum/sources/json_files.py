"""JSON rows: lines cut by bytes, and chunk files of what can only be read from its beginning."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from pydantic_core import from_json

from curriculum.sources.parts import DOCUMENTED, Columns, Kind, SourcePart
from pipeline.errors import SourceError
from pipeline.store import atomic_path

SPOOLED = (".jsonl.gz", ".json", ".json.gz")
"""Files that have no middle to begin at."""
CHUNK = ".jsonl.zst"
STREAMED_ROWS = 128
"""Lines read together where a file is only streamed: 4 MB at 30 kB a row."""

_PYTHON_TYPES: dict[Kind, type] = {
    "text": str,
    "long_text": str,
    "integer": int,
    "turns": list,
    "exchange": list,
    "any": object,
}


def split_lines(path: Path, batch_rows: int) -> Iterator[SourcePart]:
    """Cut a JSONL file by bytes; one pass that only looks for line ends."""
    index = start = count = offset = position = 0
    with path.open("rb") as handle:
        for line in handle:
            position += len(line)
            count += not line.isspace()
            if count == batch_rows:
                yield _lines_part(index, path, start, count, (offset, position))
                index, start, count, offset = index + 1, start + count, 0, position
    if count:
        yield _lines_part(index, path, start, count, (offset, position))


def _lines_part(
    index: int, path: Path, start: int, count: int, span: tuple[int, int]
) -> SourcePart:
    begin, end = span
    return SourcePart(index, path, start, count, first=start, offset=begin, size=end - begin)


def spool(path: Path, batch_rows: int, folder: Path) -> Iterator[SourcePart]:
    """Unpack a file into chunks of ``batch_rows`` rows; finished chunks are not written again.

    Raises:
        SourceError: The file is truncated, corrupt, or no UTF-8.
    """
    start = index = 0
    with explain_broken(path):
        lines = _lines_of(path)
        while chunk := list(islice(lines, batch_rows)):
            target = folder / f"chunk-{index:06d}{CHUNK}"
            if not target.is_file():
                with atomic_path(target) as temporary, _open_chunk(temporary) as out:
                    out.write(b"".join(chunk))
            yield SourcePart(index, target, start, len(chunk))
            start, index = start + len(chunk), index + 1


def _open_chunk(path: Path) -> Any:
    # Level 1 packs reasoning to a quarter at 400 MB/s.
    return pa.CompressedOutputStream(str(path), "zstd")


def _lines_of(path: Path) -> Iterator[bytes]:
    """One line for every row of a packed JSONL file or a JSON array."""
    with _open(path) as handle:
        if path.name.endswith(".jsonl.gz"):
            yield from (line for line in handle if not line.isspace())
            return
        rows = _load_array(path, handle.read())
    for row in rows:
        yield json.dumps(row).encode("ascii") + b"\n"


def _load_array(path: Path, data: bytes) -> list[Any]:
    try:
        rows = json.loads(data)
    except json.JSONDecodeError as exc:
        raise SourceError(
            f"{path} is not JSON (line {exc.lineno}: {exc.msg})",
            hint="fix this file, or write one object per line into a .jsonl file",
        ) from exc
    if not isinstance(rows, list):
        raise SourceError(
            f"{path} is no JSON array", hint="write an array of objects, or a .jsonl file"
        )
    return rows


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return path.open("rb")


def stream(
    path: Path, columns: Columns | None, required: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """All rows of a file that has no middle.

    Raises:
        SourceError: The file is broken, or a row is not as documented.
    """
    with explain_broken(path):
        yield from _rows(enumerate(_lines_of(path)), columns, required, path)


def read(
    part: SourcePart, columns: Columns | None, required: Sequence[str], origin: Path
) -> Iterator[dict[str, Any]]:
    """The rows of a part.

    Raises:
        SourceError: The file is broken, or a row is not as documented.
    """
    if part.path.name.endswith(CHUNK):
        with pa.CompressedInputStream(str(part.path), "zstd") as chunk:
            lines: Iterable[bytes] = bytes(chunk.read()).split(b"\n")
    else:
        with part.path.open("rb") as handle:
            handle.seek(part.offset)
            lines = handle.read(part.size).split(b"\n")
    filled = (line for line in lines if line and not line.isspace())
    yield from _rows(enumerate(filled, start=part.start), columns, required, origin)


def _rows(
    lines: Iterable[tuple[int, bytes]],
    columns: Columns | None,
    required: Sequence[str],
    path: Path,
) -> Iterator[dict[str, Any]]:
    for number, line in lines:
        row = _parse_line(path, number + 1, line, required)
        yield row if columns is None else _typed(row, columns, f"{path}: row {number + 1}")


@contextmanager
def explain_broken(path: Path) -> Iterator[None]:
    """Name the file that cannot be unpacked.

    Raises:
        SourceError: It cannot.
    """
    try:
        yield
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as exc:
        raise SourceError(
            f"{path}: unreadable ({exc})",
            hint="download or rebuild this file; it is truncated, corrupt or not UTF-8",
        ) from exc


def _parse_line(path: Path, number: int, line: bytes, required: Sequence[str]) -> dict[str, Any]:
    try:
        row = from_json(line)
    except ValueError:
        row = _parse_leniently(path, number, line)
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


def _parse_leniently(path: Path, number: int, line: bytes) -> Any:
    """What the fast parser refuses: broken lines, and lone surrogates (one row's fault)."""
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as exc:
        raise SourceError(
            f"{path}: unreadable after line {number - 1} ({exc})",
            hint="download or rebuild this file; it is truncated, corrupt or not UTF-8",
        ) from exc
    except json.JSONDecodeError as exc:
        raise SourceError(
            f"{path}: line {number} is not JSON ({exc.msg})", hint="fix or remove this line"
        ) from exc


def _typed(row: Mapping[str, Any], columns: Columns, place: str) -> dict[str, Any]:
    values = {name: row.get(name) for name in columns}
    for name, kind in columns.items():
        value = values[name]
        expected = _PYTHON_TYPES[kind]
        is_odd = not isinstance(value, expected) or (isinstance(value, bool) and kind != "any")
        if value is not None and is_odd:
            raise SourceError(
                f"{place}, field {name!r}: expected {DOCUMENTED.get(kind, kind)}, "
                f"got {type(value).__name__}",
                hint="cast this column to the documented type",
            )
    return values
