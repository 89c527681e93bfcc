"""Read a run folder's event log while it is being written: new lines only, whole lines only.

Nothing here imports more than the standard library, so that ``python -m flows.status`` starts at
once. What writes the log is :mod:`pipeline.events`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import SourceError

LOG_NAME = "events.jsonl"
_ASIDE = re.compile(r"events\.(\d+)\.jsonl")


class EventReader:
    """Follows one run folder's log; :meth:`read_new` again and again.

    Args:
        out: The run folder.
    """

    def __init__(self, out: Path) -> None:
        self._folder = out / "logs"
        self._path = self._folder / LOG_NAME
        self._inode: int | None = None
        self._offset = 0

    def read_new(self) -> Iterator[dict[str, Any]]:
        """Events since the last call, at the first all that are kept, in the order written.

        Raises:
            SourceError: The log cannot be read.
        """
        try:
            # Before the newest log is opened: what is put aside meanwhile is read the next time.
            older = self._older()
            for path in older:
                yield from _read(path, self._offset if self._is_own(path) else 0)[0]
            if older:
                self._inode, self._offset = None, 0
            if not self._path.is_file():
                return
            inode = self._path.stat().st_ino
            if self._inode not in (None, inode):
                # Put aside since the look above: its end is read the next time, before the new one.
                return
            self._inode = inode
            lines, self._offset = _read(self._path, self._offset)
            yield from lines
        except OSError as exc:
            raise SourceError(
                f"cannot read {self._path}: {exc.strerror}", hint="run as a user who may read it"
            ) from exc

    def _is_own(self, path: Path) -> bool:
        return self._inode is not None and path.stat().st_ino == self._inode

    def _older(self) -> list[Path]:
        """Logs put aside that have not been read to their end, the oldest first."""
        found = sorted(
            (
                path
                for path in self._folder.glob("events.*.jsonl")
                if _ASIDE.fullmatch(path.name) is not None
            ),
            key=lambda path: -int(path.name.split(".")[1]),
        )
        if self._inode is None:
            return found
        if self._path.is_file() and self._path.stat().st_ino == self._inode:
            return []
        own = next((place for place, path in enumerate(found) if self._is_own(path)), 0)
        return found[own:]


def _read(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Whole lines from an offset on, and where they end."""
    with path.open("rb") as file:
        file.seek(offset)
        text = file.read()
    end = text.rfind(b"\n") + 1
    lines = []
    for piece in text[:end].split(b"\n"):
        # A line that is none is what a power cut left; the others still tell the rest.
        with suppress(ValueError):
            line = json.loads(piece)
            if isinstance(line, dict) and isinstance(line.get("event"), str):
                lines.append(line)
    return lines, offset + end
