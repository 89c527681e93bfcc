"""Atomic files and deterministic Parquet shards.

A file that exists under its final name is complete: everything is written beside it under a
temporary name, fsynced and renamed. Orphaned temporary files are ignored and may be deleted.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from pipeline.errors import SourceError, StoreError
from pipeline.permissions import open_no_link

ROW_GROUP_ROWS = 500
"""Long rows: 500 a group reads one random row in 15 ms at no cost in size (measured)."""

_DISK_HINTS = {
    errno.ENOSPC: "free some disk space (or pass another --out) and run the same command again",
    errno.EDQUOT: "raise the disk quota (or pass another --out) and run the same command again",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or pass an --out on a disk that takes "
    "large files, and run the same command again",
    errno.EACCES: "make the folder writable for this user or pass another --out",
    errno.EROFS: "pass an --out on a writable file system",
    errno.ENOTDIR: "pass an --out whose parents are folders",
}


@contextmanager
def explain_disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or unwritable disk into a :class:`StoreError` that names the path.

    Raises:
        StoreError: On ENOSPC, EDQUOT, EFBIG, EACCES, EROFS or ENOTDIR. Finished work is kept.
    """
    try:
        yield
    except OSError as exc:
        # Arrow raises plain OSError with the number only in its text.
        code = exc.errno or next((e for e in _DISK_HINTS if os.strerror(e) in str(exc)), None)
        if code not in _DISK_HINTS:
            raise
        raise StoreError(
            f"cannot write {path}: {os.strerror(code)}; finished work is kept",
            hint=_DISK_HINTS[code],
        ) from exc


def cache_folder() -> Path:
    """Folder of what can be fetched or worked out again, shared by all runs of a user."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "promptcot-mamba"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path``; on success fsync and rename it into place."""
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Flush a file's or folder's content to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def forget_pages(path: Path) -> None:
    """Let a file that is on disk leave the page cache, where the system can be told so.

    For what is written once and read much later: it would push out what is read meanwhile.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, with newlines as given."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: sorted keys, two-space indent, trailing newline."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_parquet(path: Path, rows: Sequence[BaseModel], schema: pa.Schema) -> None:
    """Write records as one Parquet file; equal rows give equal bytes for a locked pyarrow."""
    table = pa.Table.from_pylist([row.model_dump(mode="json") for row in rows], schema=schema)
    write_table(path, table)


def write_table(path: Path, table: pa.Table) -> None:
    """Write an Arrow table as one Parquet file with the project's fixed options."""
    with open_parquet(path, table.schema) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)


@contextmanager
def open_parquet(
    path: Path, schema: pa.Schema, dictionaries: Sequence[str] | None = None
) -> Iterator[pq.ParquetWriter]:
    """Write one Parquet file with the project's fixed options, table after table.

    Args:
        path: The file; it appears when it is whole.
        schema: Of all tables.
        dictionaries: Columns whose values recur; none of the others is looked through for
            repetitions, which takes a tenth of the time of long texts. All, if not given.
    """
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            version="2.6",
            compression="zstd",
            compression_level=3,
            use_dictionary=True if dictionaries is None else list(dictionaries),
            write_statistics=True,
            store_schema=True,
        ) as writer,
    ):
        yield writer


def read_rows(
    path: Path, columns: Sequence[str] | None = None, *, batch_rows: int = ROW_GROUP_ROWS
) -> Iterator[dict[str, Any]]:
    """Stream a Parquet file's rows as dicts, ``batch_rows`` in memory at a time.

    Raises:
        SourceError: The file is missing, is not Parquet, or lacks a named column.
    """
    if not path.is_file():
        raise SourceError(f"file not found: {path}", hint="check the path")
    try:
        with pq.ParquetFile(path) as file:
            missing = sorted(set(columns or ()) - set(file.schema_arrow.names))
            if missing:
                raise SourceError(
                    f"{path}: missing column(s) {', '.join(missing)}; "
                    f"it has {', '.join(file.schema_arrow.names)}",
                    hint="pass a file in the documented schema",
                )
            for batch in file.iter_batches(batch_size=batch_rows, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowInvalid, pa.ArrowIOError) as exc:
        raise SourceError(
            f"{path}: not a readable Parquet file ({str(exc).splitlines()[0]})",
            hint="download or rebuild this file; it is truncated or corrupt",
        ) from exc


@contextmanager
def exclusive_lock(path: Path, what: str) -> Iterator[None]:
    """Hold an advisory lock for the life of the block; the kernel frees it even after kill -9.

    Raises:
        StoreError: Another process holds it.
    """
    with _lock_file(path, what):
        yield
        path.unlink(missing_ok=True)


def _lock_file(path: Path, what: str) -> IO[str]:
    """The open, locked file of that path; not one that its former holder has just deleted."""
    while True:
        with explain_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = open(path, "w", encoding="utf-8", opener=open_no_link)  # noqa: SIM115
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            handle.close()
            raise StoreError(
                f"another process is working on {what} ({path.parent})",
                hint="wait for it to end, or pass another --out",
            ) from exc
        try:
            if os.path.samestat(os.fstat(handle.fileno()), path.stat()):
                return handle
        except FileNotFoundError:
            pass  # deleted between opening and locking: a lock on nothing keeps nobody out
        handle.close()


@contextmanager
def shared_lock(path: Path, what: str, *, alone: bool = False) -> Iterator[None]:
    """Hold a lock that any number of processes hold at once, or one ``alone``.

    Who wants to share waits for the one that is alone, who is brief; that one waits for nobody. The
    file stays, because whoever deleted it would part those that opened it before and after.

    Raises:
        StoreError: ``alone``, and another process holds it.
    """
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path, "a", encoding="utf-8", opener=open_no_link)  # noqa: SIM115
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
        except BlockingIOError as exc:
            raise StoreError(
                f"another process is working on {what} ({path.parent})",
                hint="wait for it to end, or pass another --out",
            ) from exc
        yield


def dump_json_line(value: Mapping[str, Any]) -> str:
    """One line of JSONL."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
