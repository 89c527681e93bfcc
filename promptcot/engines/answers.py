"""The teacher's stored answers: what was paid for once is never asked again.

One SQLite file in write-ahead mode. Each ``put`` is one transaction: after ``kill -9`` at any
moment it is there whole or not at all, and the next run opens the file as if nothing had happened.
Nothing is held in memory but the answers that a caller asks for.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from pipeline.errors import StoreError
from pipeline.records import FinishReason
from pipeline.store import explain_disk_errors
from promptcot.engines.protocol import Answer

FILE_NAME = "answers.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    finish_reason TEXT NOT NULL,
    num_prompt_tokens INTEGER NOT NULL,
    num_completion_tokens INTEGER NOT NULL
)
"""
_KEYS_PER_QUERY = 500
"""Older SQLite builds take at most 999 parameters in one statement."""

_LOCK_WAIT_S = 30.0

_DISK_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
}


class AnswerStore:
    """Answers by request key, durable and safe for several processes.

    Process kills lose nothing that ``put`` returned for; a power cut may lose the last moments,
    never the file (write-ahead log, synchronous NORMAL).

    Raises:
        StoreError: Disk full or not writable, file corrupt, or locked by another process.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        # One connection shared by whichever thread of this process asks; the lock keeps order.
        self._lock = threading.Lock()
        with explain_disk_errors(self.path):
            folder.mkdir(parents=True, exist_ok=True)
        with _explain(self.path):
            self._connection = sqlite3.connect(
                self.path, timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False
            )
        try:
            with _explain(self.path):
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute("PRAGMA synchronous=NORMAL")
                self._connection.execute(_SCHEMA)
        except StoreError:
            self._connection.close()
            raise

    def put(self, answers: Mapping[str, Answer]) -> None:
        """Store all of ``answers`` in one transaction; a key that is there keeps its answer."""
        rows = [
            (key, a.text, a.finish_reason, a.num_prompt_tokens, a.num_completion_tokens)
            for key, a in answers.items()
        ]
        with self._lock, _explain(self.path), self._transaction():
            self._connection.executemany("INSERT OR IGNORE INTO answers VALUES (?,?,?,?,?)", rows)

    def get(self, keys: Sequence[str]) -> dict[str, Answer]:
        """The stored answers among ``keys``."""
        found: dict[str, Answer] = {}
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            for row in self._select("*", keys[start : start + _KEYS_PER_QUERY]):
                key, text, reason, num_prompt, num_completion = row
                found[key] = Answer(text, cast(FinishReason, reason), num_prompt, num_completion)
        return found

    def stored(self, keys: Sequence[str]) -> set[str]:
        """Which of ``keys`` have an answer, without reading the texts."""
        found: set[str] = set()
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            found.update(r[0] for r in self._select("key", keys[start : start + _KEYS_PER_QUERY]))
        return found

    def __len__(self) -> int:
        with self._lock, _explain(self.path):
            return int(self._connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Close the file; the last process to close it folds the write-ahead log in."""
        with self._lock:
            self._connection.close()

    def _select(self, columns: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        marks = ",".join("?" * len(keys))
        with self._lock, _explain(self.path):
            return self._connection.execute(
                f"SELECT {columns} FROM answers WHERE key IN ({marks})", keys
            ).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            # Still open after any failure, an interrupt included; SQLite itself rolls back a few.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


@contextmanager
def _explain(path: Path) -> Iterator[None]:
    """Turn SQLite's failures into a :class:`StoreError` that names the file and the remedy."""
    try:
        yield
    except sqlite3.DatabaseError as exc:
        # Extended codes keep the kind of error in their low byte.
        kind = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        if kind in _DISK_ERRORS:
            with explain_disk_errors(path):
                raise OSError(_DISK_ERRORS[kind], str(exc)) from exc
        if kind == sqlite3.SQLITE_BUSY:
            raise StoreError(
                f"{path} was held by another process for {_LOCK_WAIT_S:.0f} s",
                hint="wait for it to end, or pass another --out",
            ) from exc
        raise StoreError(
            f"the stored answers {path} cannot be used ({exc})",
            hint="check the disk; if the file is damaged, move it away: the run then asks the "
            "teacher again",
        ) from exc
