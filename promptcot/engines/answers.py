"""The teacher's stored answers: what was paid for once is never asked again.

One SQLite file in write-ahead mode. Each ``put`` is one transaction: after ``kill -9`` at any
moment it is there whole or not at all, and the next run opens the file as if nothing had happened.
Nothing is held in memory but the answers that a caller asks for.

Every answer names the stage and teacher that it was asked for, so that the ledger is a sum over
what is stored: a cost is counted when, and only when, its answer is there to be used.
"""

from __future__ import annotations

import errno
import re
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from pipeline.errors import StoreError
from pipeline.records import FinishReason
from pipeline.store import explain_disk_errors
from promptcot.engines.protocol import Answer

FILE_NAME = "answers.sqlite"

_FORMAT = 2
"""``PRAGMA user_version`` of files that this code writes."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS purposes (
    id INTEGER PRIMARY KEY,
    stage TEXT NOT NULL,
    teacher TEXT NOT NULL,
    engine TEXT NOT NULL,
    model TEXT NOT NULL,
    seconds REAL NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    failed_prompt_tokens INTEGER NOT NULL DEFAULT 0,
    failed_completion_tokens INTEGER NOT NULL DEFAULT 0,
    UNIQUE (stage, teacher, engine, model)
);
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,
    purpose INTEGER NOT NULL REFERENCES purposes (id),
    finish_reason TEXT NOT NULL,
    num_prompt_tokens INTEGER NOT NULL,
    num_completion_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL,
    text NOT NULL
);
CREATE INDEX IF NOT EXISTS usage
    ON answers (purpose, num_prompt_tokens, num_completion_tokens);
"""
_COLUMNS = "key, text, finish_reason, num_prompt_tokens, num_completion_tokens"
_KEYS_PER_QUERY = 500
"""Older SQLite builds take at most 999 parameters in one statement."""

_COMPRESS_FROM = 1024
"""Longer texts are compressed: chains of thought shrink to about a third, at 60 MB a second."""
_SURROGATES = re.compile("[\ud800-\udfff]")
_CACHE_KIB = 32 * 1024
_LOCK_WAIT_S = 30.0

_DISK_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
}


class Purpose(NamedTuple):
    """What an answer was asked for, and of whom."""

    stage: str
    teacher: str
    """Name in the recipe; its prices are there."""
    engine: str
    model: str


class StoredAnswer(NamedTuple):
    """An answer on its way into the store."""

    key: str
    answer: Answer
    purpose: Purpose
    seconds: float
    """From sending the request to having the answer."""


class Spent(NamedTuple):
    """Totals of one purpose."""

    purpose: Purpose
    stored: int
    """Answers kept."""
    failed: int
    """Requests that ended without a usable answer; not kept, but perhaps paid for."""
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    """Wall time during which the teacher had at least one of these requests in flight."""


class AnswerStore:
    """Answers by request key, durable and safe for several threads and processes.

    Process kills lose nothing that ``put`` returned for; a power cut may lose the last moments,
    never the file (write-ahead log, synchronous NORMAL).

    Raises:
        StoreError: Disk full or not writable, file corrupt or of an older program, or locked by
            another process.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        # One connection shared by whichever thread of this process asks; the lock keeps order.
        self._lock = threading.Lock()
        self._purposes: dict[Purpose, int] = {}
        with explain_disk_errors(self.path):
            folder.mkdir(parents=True, exist_ok=True)
        with _explain(self.path):
            self._connection = sqlite3.connect(
                self.path, timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
        except StoreError:
            self._connection.close()
            raise

    def put(
        self, entries: Sequence[StoredAnswer], *, seconds: Mapping[Purpose, float] | None = None
    ) -> dict[str, Answer]:
        """Store answers, failures and working time in one transaction.

        An ``error`` answer is not kept, only counted. A key that is there keeps its answer.

        Args:
            entries: The answers.
            seconds: Working time to add, by purpose.

        Returns:
            Answers that were there before, by key: what a caller must use instead of its own.
        """
        kept = [entry for entry in entries if entry.answer.finish_reason != "error"]
        # Compressed before the lock is taken: this is most of the work.
        packed = [(e.purpose, (e.key, *_columns(e))) for e in kept]
        with self._lock, _explain(self.path), self._transaction():
            rows = [(*values, self._purpose_id(purpose)) for purpose, values in packed]
            before = self._connection.total_changes
            self._connection.executemany(
                "INSERT OR IGNORE INTO answers (key, finish_reason, num_prompt_tokens,"
                " num_completion_tokens, seconds, text, purpose) VALUES (?,?,?,?,?,?,?)",
                rows,
            )
            num_added = self._connection.total_changes - before
            for entry in entries:
                if entry.answer.finish_reason == "error":
                    self._count_failure(entry)
            self._add_seconds(seconds or {})
        if num_added >= len(kept):
            return {}
        stored = self.get([entry.key for entry in kept])
        return {e.key: stored[e.key] for e in kept if stored[e.key] != e.answer}

    def get(self, keys: Sequence[str]) -> dict[str, Answer]:
        """The stored answers among ``keys``."""
        found: dict[str, Answer] = {}
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            for row in self._select(_COLUMNS, keys[start : start + _KEYS_PER_QUERY]):
                key, text, reason, num_prompt, num_completion = row
                found[key] = Answer(
                    _unpack(text), cast(FinishReason, reason), num_prompt, num_completion
                )
        return found

    def stored(self, keys: Sequence[str]) -> set[str]:
        """Which of ``keys`` have an answer, without reading the texts."""
        found: set[str] = set()
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            found.update(r[0] for r in self._select("key", keys[start : start + _KEYS_PER_QUERY]))
        return found

    def spent(self) -> list[Spent]:
        """Totals by purpose, in the order in which these first came up."""
        with self._lock, _explain(self.path):
            rows = self._connection.execute(
                "SELECT stage, teacher, engine, model, count(a.purpose), failed,"
                " coalesce(sum(a.num_prompt_tokens), 0) + failed_prompt_tokens,"
                " coalesce(sum(a.num_completion_tokens), 0) + failed_completion_tokens,"
                " p.seconds FROM purposes p LEFT JOIN answers a INDEXED BY usage"
                " ON a.purpose = p.id GROUP BY p.id ORDER BY p.id"
            ).fetchall()
        return [Spent(Purpose(*row[:4]), *row[4:]) for row in rows]

    def __len__(self) -> int:
        with self._lock, _explain(self.path):
            return int(self._connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Close the file; the last process to close it folds the write-ahead log in."""
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        run = self._connection.execute
        with _explain(self.path):
            if run("PRAGMA user_version").fetchone()[0] != _FORMAT:
                self._create()
            run("PRAGMA journal_mode=WAL")
            run("PRAGMA synchronous=NORMAL")
            run(f"PRAGMA cache_size=-{_CACHE_KIB}")

    def _create(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode=WAL")
        with self._transaction():
            # Looked at again inside the transaction: another process may have been quicker.
            version = run("PRAGMA user_version").fetchone()[0]
            has_tables = run("SELECT count(*) FROM sqlite_schema").fetchone()[0] > 0
            if has_tables and version != _FORMAT:
                raise StoreError(
                    f"the stored answers {self.path} have the format of another version of this "
                    f"program (format {version}, this one reads {_FORMAT})",
                    hint="pass another --out, or move the file away: the run then asks the "
                    "teacher again",
                )
            for statement in _SCHEMA.split(";\n"):
                run(statement)
            run(f"PRAGMA user_version={_FORMAT}")

    def _purpose_id(self, purpose: Purpose) -> int:
        """The row of a purpose, made when it is new; call it inside a transaction."""
        if purpose not in self._purposes:
            run = self._connection.execute
            run(
                "INSERT OR IGNORE INTO purposes (stage, teacher, engine, model) VALUES (?,?,?,?)",
                purpose,
            )
            where = "stage = ? AND teacher = ? AND engine = ? AND model = ?"
            row = run(f"SELECT id FROM purposes WHERE {where}", purpose).fetchone()
            self._purposes[purpose] = int(row[0])
        return self._purposes[purpose]

    def _count_failure(self, entry: StoredAnswer) -> None:
        self._connection.execute(
            "UPDATE purposes SET failed = failed + 1,"
            " failed_prompt_tokens = failed_prompt_tokens + ?,"
            " failed_completion_tokens = failed_completion_tokens + ? WHERE id = ?",
            (
                entry.answer.num_prompt_tokens,
                entry.answer.num_completion_tokens,
                self._purpose_id(entry.purpose),
            ),
        )

    def _add_seconds(self, seconds: Mapping[Purpose, float]) -> None:
        self._connection.executemany(
            "UPDATE purposes SET seconds = seconds + ? WHERE id = ?",
            [(amount, self._purpose_id(purpose)) for purpose, amount in seconds.items()],
        )

    def _select(self, columns: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        marks = ",".join("?" * len(keys))
        with self._lock, _explain(self.path):
            return self._connection.execute(
                f"SELECT {columns} FROM answers WHERE key IN ({marks})", keys
            ).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        known = dict(self._purposes)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            # Still open after any failure, an interrupt included; SQLite itself rolls back a few.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
                self._purposes = known


def read_spent(folder: Path) -> list[Spent]:
    """Totals of the answers stored in a folder; empty where there are none.

    Raises:
        StoreError: The file is damaged or of an older program.
    """
    if not (folder / FILE_NAME).is_file():
        return []
    store = AnswerStore(folder)
    try:
        return store.spent()
    finally:
        store.close()


def _columns(entry: StoredAnswer) -> tuple[Any, ...]:
    answer = entry.answer
    counts = (answer.num_prompt_tokens, answer.num_completion_tokens)
    return (answer.finish_reason, *counts, entry.seconds, _pack(answer.text))


def _pack(text: str) -> str | bytes:
    """Long texts, and such as SQLite cannot hold, as compressed bytes; others as they are."""
    # Half of a surrogate pair can come from a server's JSON; it passes through unharmed.
    if len(text) < _COMPRESS_FROM and not _SURROGATES.search(text):
        return text
    return zlib.compress(text.encode("utf-8", "surrogatepass"), 1)


def _unpack(value: str | bytes) -> str:
    if isinstance(value, str):
        return value
    return zlib.decompress(value).decode("utf-8", "surrogatepass")


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
