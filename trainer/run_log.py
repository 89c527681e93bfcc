"""A run's own records: one JSON object a line, cut back to the checkpoint that a run resumes from.

train_log.jsonl   every logged step; equal for equal runs
events.jsonl      jumps that the guard saw; equal for equal runs
speed_log.jsonl   tokens a second, memory; depends on the machine and the hour
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from pipeline.permissions import open_no_link
from pipeline.store import dump_json_line, explain_disk_errors, write_text

LogName = Literal["train_log.jsonl", "events.jsonl", "speed_log.jsonl"]
NAMES: tuple[LogName, ...] = ("train_log.jsonl", "events.jsonl", "speed_log.jsonl")


class RunLog:
    """The files under one folder; :meth:`start` before the first line.

    Args:
        folder: Where they lie while the run goes on.
        writes: Whether this process is the one that writes them.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self.folder = folder
        self._writes = writes

    def start(self, checkpoint: Path | None) -> None:
        """Begin with empty files, or with what a checkpoint knew."""
        if not self._writes:
            return
        for name in NAMES:
            kept = "" if checkpoint is None else (checkpoint / name).read_text(encoding="utf-8")
            write_text(self.folder / name, kept)

    def add(self, name: LogName, line: dict[str, Any]) -> None:
        """Append a line; it is in the system's hands when this returns."""
        if not self._writes:
            return
        path = self.folder / name
        with (
            explain_disk_errors(path),
            open(path, "a", encoding="utf-8", newline="", opener=open_no_link) as file,
        ):
            file.write(dump_json_line(line) + "\n")

    def read(self, name: LogName) -> list[dict[str, Any]]:
        """All lines so far."""
        return read_lines(self.folder / name)

    def copy_to(self, folder: Path) -> None:
        """Put the files beside a checkpoint."""
        if self._writes:
            for name in NAMES:
                shutil.copyfile(self.folder / name, folder / name)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Lines of one record; a file that is not there has none."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
