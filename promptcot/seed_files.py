"""Objects of a JSON list, of JSONL (both also ``.gz``) or of Parquet, one at a time.

A file is told by its content, not by its suffix: JSONL is often called ``.json`` or ``.txt``.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import SourceError
from pipeline.store import read_rows

_PIECE = 1 << 20
"""Characters of a JSON list read at once."""
_GAP = re.compile(r"[\s,]*")


def read_objects(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the objects of a file.

    Raises:
        SourceError: The file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise SourceError(f"seed file not found: {path}", hint="correct its `path` in the recipe")
    if path.suffix == ".parquet":
        yield from read_rows(path)
        return
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as handle:
            head = handle.read(_PIECE)
            start = head.lstrip()[:1]
            if start == "[":
                yield from _read_list(path, head, handle)
            elif start == "{":
                yield from _read_lines(path, head, handle)
            elif start:
                raise SourceError(
                    f"{path}: neither a JSON list nor JSON lines (it starts with {start!r})",
                    hint="convert it to JSONL or Parquet",
                )
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as exc:
        raise SourceError(
            f"{path}: cannot be read ({exc})", hint="download this file again; it is damaged"
        ) from exc


def _read_lines(path: Path, head: str, handle: TextIO) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_split_lines(head, handle), start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except json.JSONDecodeError as exc:
                raise _damaged(path, f"line {number}", exc) from exc
            yield _checked(path, f"line {number}", value)


def _split_lines(head: str, handle: TextIO) -> Iterator[str]:
    """Lines at line feeds only: texts may hold other separators that ``splitlines`` knows."""
    rest = head
    while True:
        *lines, rest = rest.split("\n")
        yield from lines
        if not (piece := handle.read(_PIECE)):
            break
        rest += piece
    yield rest


def _read_list(path: Path, head: str, handle: TextIO) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    text, position, number = head, head.index("[") + 1, 1
    while True:
        position = _skip(text, position)
        try:
            # A piece may end inside an object, or right before the closing bracket.
            if position < len(text) and text[position] == "]":
                return
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as exc:
            piece = handle.read(max(_PIECE, len(text) - position))
            if not piece:
                raise _damaged(path, f"row {number}", exc) from exc
            text, position = text[position:] + piece, 0
            continue
        yield _checked(path, f"row {number}", value)
        number += 1


def _skip(text: str, position: int) -> int:
    match = _GAP.match(text, position)
    return match.end() if match is not None else position


def _checked(path: Path, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SourceError(
            f"{path}, {where}: expected a JSON object, found {type(value).__name__}",
            hint="give each problem as one object",
        )
    return value


def _damaged(path: Path, where: str, exc: json.JSONDecodeError) -> SourceError:
    return SourceError(
        f"{path}, {where}: not valid JSON ({exc.msg})",
        hint="correct it there, or download the file again if it was cut off",
    )
