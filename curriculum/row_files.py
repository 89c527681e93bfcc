"""Files of stored rows: appended slice by slice, read back row by row in any order."""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curriculum.stored_rows import (
    OpenedRow,
    StoredRow,
    compress_row,
    make_table,
    make_texts,
    open_row,
    pack_row,
)
from curriculum.texts import Utf8
from pipeline.errors import ManifestMismatch

_MOST_PIECES = 1000
"""Written by one call; systems take at least 1,024."""
_MOST_OPEN = 256
"""Files that are open together; a quarter of what the system allows, if that is less."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where some rows lie, in the order wanted."""

    paths: tuple[Path, ...]
    """Files of rows."""
    file: npt.NDArray[np.uint32]
    """Of each row: place of its file in ``paths``."""
    offset: npt.NDArray[np.uint64]
    size: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.file)

    def slice(self, start: int, end: int) -> Places:
        """Consecutive ones."""
        span = slice(start, end)
        return Places(self.paths, self.file[span], self.offset[span], self.size[span])


def append_rows(descriptor: int, rows: Iterable[StoredRow], *, compress: bool) -> list[int]:
    """Write rows at the end of a file; the size of each.

    Args:
        descriptor: Of a file that is written.
        rows: The rows.
        compress: Whether each becomes a zstd frame.

    Raises:
        OSError: The disk is full.
    """
    pieces: list[Utf8] = []
    sizes = []
    for row in rows:
        packed = pack_row(row)
        stored = compress_row(packed) if compress else packed
        pieces += stored
        sizes.append(sum(map(len, stored)))
    # From where the texts stand: joining them first copies every text once more.
    for start in range(0, len(pieces), _MOST_PIECES):
        _write(descriptor, pieces[start : start + _MOST_PIECES])
    return sizes


def _write(descriptor: int, pieces: Sequence[Utf8]) -> None:
    left = sum(map(len, pieces)) - os.writev(descriptor, pieces)
    while left:
        # Written in part: by a signal, or because the disk is nearly full.
        left -= os.write(descriptor, memoryview(b"".join(pieces))[-left:])


class RowReader:
    """Reads rows of some files and keeps the files open meanwhile.

    Args:
        paths: The files that :class:`Places` number.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._open: OrderedDict[int, int] = OrderedDict()
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        is_limited = allowed != resource.RLIM_INFINITY
        self._most_open = max(1, min(_MOST_OPEN, allowed // 4)) if is_limited else _MOST_OPEN
        self._column = _Column()

    def __enter__(self) -> RowReader:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def gather(self, places: Places) -> pa.Table:
        """Rows in the order of their places, as the columns of published ones.

        The completions stand in memory that the next call writes over.

        Args:
            places: Within this reader's files.

        Raises:
            ManifestMismatch: A file is damaged.
            StoreError: The rows are longer than one column can hold.
        """
        sizes = places.size.tolist()
        column, rows = self._column, list[OpenedRow]()
        column.begin(sum(sizes))
        triples = zip(places.file.tolist(), places.offset.tolist(), sizes, strict=True)
        for file, offset, size in triples:
            room = column.room(size)
            try:
                if os.preadv(self._descriptor(file), [room], offset) != size:
                    raise ValueError("it ends too early")
                row = open_row(room)
            except ValueError as exc:
                path = self._paths[file]
                raise ManifestMismatch(
                    f"{path} is damaged ({exc})", hint=f"delete {path.parent} and build again"
                ) from exc
            column.keep(row.completion)
            rows.append(row._replace(completion=_NOTHING))
        return make_table(rows, column.texts())

    def _descriptor(self, file: int) -> int:
        """The file, opened unless it is; that which was not used for longest is closed for it."""
        if file in self._open:
            self._open.move_to_end(file)
            return self._open[file]
        if len(self._open) >= self._most_open:
            os.close(self._open.popitem(last=False)[1])
        self._open[file] = os.open(self._paths[file], os.O_RDONLY | os.O_CLOEXEC)
        return self._open[file]


_NOTHING = memoryview(b"")


class _Column:
    """Texts one after another in one piece of memory, into which files are read."""

    def __init__(self) -> None:
        self._data: Any = np.empty(0, np.uint8)
        self._sizes: list[int] = []
        self._end = 0

    def begin(self, expected: int) -> None:
        """Drop all texts; the next are likely to take so many bytes."""
        self._sizes, self._end = [], 0
        if expected > len(self._data):
            self._data = np.empty(expected + expected // 8, np.uint8)

    def room(self, size: int) -> memoryview:
        """Where the next text may be written, with what is read behind it."""
        end = self._end + size
        if end > len(self._data):
            larger = np.empty(max(end, 2 * len(self._data)), np.uint8)
            larger[: self._end] = self._data[: self._end]
            self._data = larger
        return memoryview(self._data)[self._end : end]

    def keep(self, text: memoryview) -> None:
        """Take a text; one that stands in the room already is not copied."""
        if text.obj is not self._data:
            self.room(len(text))[:] = text
        self._sizes.append(len(text))
        self._end += len(text)

    def texts(self) -> pa.StringArray:
        """All of them."""
        return make_texts(self._sizes, self._data)
