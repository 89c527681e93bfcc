"""What a disturbed run folder is held against: bytes, files that stay, answers that are kept."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMPARED = ("synthesis", "datasets", "checkpoints", "evaluation", "report/index.html")
_TIMED = {"speed_log.jsonl", "report.html", "answers.sqlite"}
"""Files that hold seconds, or the order in which answers came; their rest is compared apart."""
_LABELS = {"LATEST", "recipe.json"}
"""Rewritten by every command."""
_EXECUTOR = re.compile(rb" --set &#39;execution\.executor=&#34;ray&#34;&#39;")
"""The one difference that the report shows: how the run was called."""


def hash_files(out: Path) -> dict[str, str]:
    """Path and SHA-256 of everything published whose bytes are promised."""
    return {
        str(path.relative_to(out)): hashlib.sha256(_read(path)).hexdigest()
        for path in _published(out)
        if path.name not in _TIMED
    }


def _read(path: Path) -> bytes:
    content = path.read_bytes()
    return _EXECUTOR.sub(b"", content) if path.suffix == ".html" else content


def _published(out: Path) -> Iterator[Path]:
    for part in COMPARED:
        root = out / part
        found = [root] if root.is_file() else sorted(root.rglob("*"))
        for path in found:
            inside = path.relative_to(out).parts
            if path.is_file() and not any(piece.startswith(".") for piece in inside):
                yield path


def read_answers(out: Path) -> dict[str, str]:
    """Stored answers by key: hash of text and figures that are paid for."""
    found = {}
    for folder in ("answers", "evaluation/answers"):
        path = out / folder / "answers.sqlite"
        if path.is_file():
            with sqlite3.connect(path, timeout=30) as store:
                columns = "key, text, finish_reason, num_prompt_tokens, num_completion_tokens"
                for key, *values in store.execute(f"SELECT {columns} FROM answers"):
                    found[f"{folder}/{key}"] = hashlib.sha256(repr(values).encode()).hexdigest()
            store.close()
    return found


def count_served(log: Path) -> tuple[int, int]:
    """Completions that the teacher made, and how many of them are distinct."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return len(lines), len(set(lines))


@dataclass
class Finished:
    """Files that were finished, by name and inode: whoever makes one again is found out."""

    inodes: dict[str, int] = field(default_factory=dict)
    redone: list[str] = field(default_factory=list)

    def look(self, out: Path) -> None:
        """Take in what is finished now; note what was finished before and is another file."""
        for path in _finished_files(out):
            name = str(path.relative_to(out)).replace(".staging-", "")
            inode = path.stat().st_ino
            if self.inodes.setdefault(name, inode) != inode:
                self.redone.append(name)
                self.inodes[name] = inode


def _finished_files(out: Path) -> Iterator[Path]:
    for path in _published(out):
        if path.name not in _LABELS and path.parent != out / "report":
            yield path
    for receipt in out.glob("*/**/.staging-*/receipts/*.json"):
        version = receipt.parents[1]
        for kind in ("data", "rejected"):
            part = version / kind / f"part-{receipt.stem}.parquet"
            if part.is_file():
                yield part


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run of the same recipe left."""

    files: dict[str, str]
    answers: dict[str, str]
    asked: int

    def compare(self, out: Path) -> dict[str, Any]:
        """Counts that should be zero, with examples."""
        files, answers = hash_files(out), read_answers(out)
        different = sorted(
            name for name in files.keys() & self.files.keys() if files[name] != self.files[name]
        )
        missing, extra = self.files.keys() - files.keys(), files.keys() - self.files.keys()
        texts = [
            key for key in answers.keys() & self.answers.keys() if answers[key] != self.answers[key]
        ]
        return {
            "files": len(files),
            "files_lost": sorted(missing),
            "files_more": sorted(extra),
            "files_different": different,
            "answers": len(answers),
            "answers_lost": len(self.answers.keys() - answers.keys()),
            "answers_more": len(answers.keys() - self.answers.keys()),
            "answers_different": len(texts),
        }


def read_reference(out: Path, served: Path) -> Reference:
    """See :class:`Reference`."""
    return Reference(hash_files(out), read_answers(out), count_served(served)[0])


def count_rows_twice(out: Path) -> int:
    """Rows whose id a published version holds more than once, over all versions of synthesis."""
    from pipeline.manifest import load_version

    twice = 0
    for path in sorted((out / "synthesis").glob("*/*/manifest.json")):
        if path.parent.name.startswith("."):
            continue
        ids = Counter(_identity(row) for row in load_version(path.parent).rows())
        twice += sum(number - 1 for number in ids.values())
    return twice


def _identity(row: dict[str, Any]) -> str:
    """A row's id; judged problems and verified traces hold what they are about."""
    about = row.get("solution") or row.get("problem") or row
    return str(row["id"] if "id" in row else about["id"])
