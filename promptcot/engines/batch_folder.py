"""The folder between a run and an offline fleet: request files out, result files in.

A request file appears under its name only when it is whole. A request is in exactly one file,
however often the run is stopped or repeated; it is written again only after it came back failed.
Result files are indexed, not loaded: 16 bytes per line stay in memory.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.errors import StoreError, TeacherError
from pipeline.store import exclusive_lock, explain_disk_errors, fsync
from promptcot.engines.key_table import KeyTable, short_key

_OFFSET_BITS = 44
"""Of a line's place in a result file: 16 TiB; the bits above it are the file's number."""
_FILE_NAME = re.compile(r"requests-(\d{4,})\.jsonl")
_TEMPORARY = ".tmp-"
_ID_FIRST = b'{"custom_id": "'


@dataclass(slots=True)
class _OpenFile:
    """A request file that nobody sees before it is whole."""

    target: Path
    number: int
    handle: IO[bytes]
    num_lines: int = 0

    @property
    def temporary(self) -> Path:
        return Path(self.handle.name)


class BatchFolder:
    """Requests that were handed out, and the results that have come back.

    Raises:
        StoreError: Another process works in the folder, or it cannot be written.
        TeacherError: A line of a file in it is malformed.
    """

    def __init__(self, path: Path, *, lines_per_file: int) -> None:
        self.path = path
        self._lines_per_file = lines_per_file
        self._stack = ExitStack()
        self._stack.enter_context(exclusive_lock(path / ".lock", f"folder {path}"))
        self._exported = KeyTable()
        self._results = KeyTable()
        self._handles: list[IO[bytes]] = []
        self.waiting: dict[Path, str] = {}
        """Request files whose results are not there, those being written included, with the
        address that all requests of each ask."""
        self._num_files = 0
        self._returned: set[int] = set()
        """Numbers of the request files that have results."""
        self._writing: dict[str, _OpenFile] = {}
        """By address: OpenAI and vLLM want one address per file."""
        try:
            self._scan()
        except (TeacherError, OSError):
            self._stack.close()
            raise

    def results(self, custom_id: str) -> Iterator[dict[str, Any]]:
        """What came back for a request, oldest first."""
        for place in self._results.get(short_key(custom_id)):
            handle = self._handles[place >> _OFFSET_BITS]
            handle.seek(place & ((1 << _OFFSET_BITS) - 1))
            line = json.loads(handle.readline())
            if line["custom_id"] == custom_id:
                yield line

    def num_exported(self, custom_id: str) -> int:
        """How often a request was handed out."""
        return len(self._exported.get(short_key(custom_id)))

    def num_returned(self, custom_id: str) -> int:
        """How many of the files it was handed out in have results."""
        return sum(n in self._returned for n in self._exported.get(short_key(custom_id)))

    def export(self, custom_id: str, url: str, body: dict[str, Any]) -> None:
        """Add a request to the file of its address that is being written."""
        line = {"custom_id": custom_id, "method": "POST", "url": url, "body": body}
        file = self._writing.get(url) or self._begin(url)
        try:
            with explain_disk_errors(self.path):
                file.handle.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        except (StoreError, OSError):
            # It may end in half a line: never publish it; the next run writes its requests again.
            self._drop(url)
            raise
        self._exported.add(short_key(custom_id), file.number)
        file.num_lines += 1
        if file.num_lines >= self._lines_per_file:
            self._publish(url)

    def close(self) -> None:
        """Publish the files that are being written, and let others into the folder."""
        with self._stack:
            for url in list(self._writing):
                self._publish(url)

    def _begin(self, url: str) -> _OpenFile:
        self._num_files += 1
        target = self.path / f"requests-{self._num_files:04d}.jsonl"
        with explain_disk_errors(self.path):
            handle = target.with_name(f"{_TEMPORARY}{target.name}").open("wb")
        self._writing[url] = _OpenFile(target, self._num_files, handle)
        self.waiting[target] = url
        return self._writing[url]

    def _publish(self, url: str) -> None:
        file = self._writing.pop(url)
        with explain_disk_errors(self.path):
            file.handle.close()
            fsync(file.temporary)
            file.temporary.replace(file.target)
            fsync(self.path)

    def _drop(self, url: str) -> None:
        file = self._writing.pop(url)
        with suppress(OSError):
            file.handle.close()
        file.temporary.unlink(missing_ok=True)

    def _request_files(self) -> list[Path]:
        return sorted(p for p in self.path.glob("requests-*.jsonl") if _FILE_NAME.fullmatch(p.name))

    def _scan(self) -> None:
        # What a killed run was writing: nobody has seen it.
        for path in self.path.glob(f"{_TEMPORARY}*"):
            path.unlink()
        for path in self._request_files():
            self._num_files = int(path.stem.removeprefix("requests-"))
            if results_of(path).is_file() or path.with_suffix(".results.jsonl").is_file():
                self._returned.add(self._num_files)
            with path.open("rb") as handle:
                for number, line in enumerate(handle, start=1):
                    exported = short_key(_exported_id(path, number, line))
                    self._exported.add(exported, self._num_files)
                    if number == 1 and self._num_files not in self._returned:
                        self.waiting[path] = _exported_url(path, line)
        names = {*self.path.glob("results-*.jsonl"), *self.path.glob("*.results.jsonl")}
        for index, path in enumerate(sorted(names)):
            handle = self._stack.enter_context(path.open("rb"))
            self._handles.append(handle)
            offset = 0
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    key = _result_id(path, number, line)
                    # Results of other programs' requests are theirs.
                    if key is not None:
                        self._results.add(key, index << _OFFSET_BITS | offset)
                offset += len(line)


def results_of(requests: Path) -> Path:
    """Where the results of a request file are looked for first."""
    return requests.with_name(requests.name.replace("requests-", "results-", 1))


def _exported_id(path: Path, number: int, line: bytes) -> str:
    """A request line's id without reading the rest of it."""
    start = len(_ID_FIRST)
    identity = line[start : start + 32].decode("ascii", "replace")
    if not line.startswith(_ID_FIRST) or not re.fullmatch(r"[0-9a-f]{32}", identity):
        raise _foreign(path, number)
    return identity


def _exported_url(path: Path, first_line: bytes) -> str:
    """The address of a request file: that of all its lines."""
    try:
        return str(json.loads(first_line)["url"])
    except (ValueError, KeyError) as exc:
        raise _foreign(path, 1) from exc


def _foreign(path: Path, number: int) -> TeacherError:
    return TeacherError(
        f"{path}, line {number}: not a request as this program writes them",
        hint="restore the file, or move it away: its requests are then written again",
    )


def _result_id(path: Path, number: int, line: bytes) -> int | None:
    try:
        value = json.loads(line)
    except ValueError as exc:
        raise _malformed(path, number, str(exc)) from exc
    identity = value.get("custom_id") if isinstance(value, dict) else None
    if not isinstance(identity, str):
        raise _malformed(path, number, "no custom_id")
    if not isinstance(value.get("response"), dict) and not value.get("error"):
        raise _malformed(path, number, "neither a response nor an error")
    return short_key(identity) if re.fullmatch(r"[0-9a-f]{32}", identity) else None


def _malformed(path: Path, number: int, problem: str) -> TeacherError:
    return TeacherError(
        f"{path}, line {number}: not a line of batch results ({problem})",
        hint="wait until the file is written or downloaded completely, or move it away",
    )


class SharedFolders:
    """Folders open in this process: two teachers of the same model share theirs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Path, tuple[BatchFolder, threading.Lock, int]] = {}

    def open(self, path: Path, *, lines_per_file: int) -> tuple[BatchFolder, threading.Lock]:
        """The folder, and the lock to hold while it is used."""
        with self._lock:
            if path in self._open:
                folder, lock, users = self._open[path]
            else:
                folder, lock, users = (
                    BatchFolder(path, lines_per_file=lines_per_file),
                    threading.Lock(),
                    0,
                )
            self._open[path] = (folder, lock, users + 1)
            return folder, lock

    def close(self, path: Path) -> None:
        """Close the folder with its last user."""
        with self._lock:
            folder, lock, users = self._open.pop(path)
            if users > 1:
                self._open[path] = (folder, lock, users - 1)
                return
            with lock:
                folder.close()


FOLDERS = SharedFolders()
