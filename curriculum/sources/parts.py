"""What a source hands to a worker: where some consecutive rows lie, and the rows themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal["text", "long_text", "integer", "turns", "exchange", "any"]
"""What a column's values are. ``long_text`` and the texts of an ``exchange`` are handed over as
views of their UTF-8 where a file holds them so; a ``str`` is as good."""
Columns = Mapping[str, Kind]
"""Column name to what its values are; every value may be null."""
DOCUMENTED: Mapping[Kind, str] = {"long_text": "text", "exchange": "turns"}
"""What messages call a kind, where that is not its name."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source."""

    name: str
    """As provenance tells it: no folder of this machine."""
    revision: str
    path: Path


@dataclass(frozen=True, slots=True)
class SourcePart:
    """Consecutive rows of one file of a source: what one task of a worker reads by itself."""

    index: int
    """Place among the source's parts, from 0."""
    path: Path
    """The file to read: the source's own, or a chunk that was spooled from it."""
    start: int
    """Number, from 0, of the first row in the source's own file."""
    num_rows: int
    file: SourceFile | None = None
    """The source's own file; set by whoever opened the source."""
    first: int = 0
    """Number, from 0, of the first row within ``path``; differs from ``start`` in a chunk."""
    offset: int = 0
    """JSONL: first byte."""
    size: int = 0
    """JSONL: bytes."""
    is_stored: bool = False
    """Whether it was prepared before, so that it is not read, and its file need not be there."""


StoredFiles = Mapping[tuple[str, str], Sequence[int]]
"""Name and revision of a file that was prepared before, to the rows of each of its parts."""


def stored_parts(file: SourceFile, part_rows: Sequence[int]) -> Iterator[SourcePart]:
    """The parts of a file that need not be read."""
    starts = accumulate(part_rows, initial=0)
    for start, rows in zip(starts, part_rows, strict=False):
        yield SourcePart(0, file.path, start, rows, file=file, is_stored=True)


class RawRow(NamedTuple):
    """One row as its source has it, and where it stands there."""

    revision: str
    """Of the file or dataset."""
    file: str
    position: int
    """Row number in the file, from 0; empty lines of JSONL do not count."""
    values: dict[str, Any]
