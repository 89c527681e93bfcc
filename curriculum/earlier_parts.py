"""Parts of an earlier preparation of a source whose files are among those of the new one.

A part depends on its file's name and content and on the *basis* (settings, code, benchmarks, joined
questions), not on the source's other files. So where only files came or went, the parts of the
others are taken over by hard link, or by copy where the file system has none, under their new
numbers: the bytes are those of a preparation from scratch.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curriculum.prepared import rejected_path, rows_path, table_path
from curriculum.sources.parts import StoredFiles
from pipeline.errors import ManifestMismatch
from pipeline.manifest import MANIFEST, load_version
from pipeline.store import atomic_path

Key = tuple[str, str]
"""Name and revision of a file."""


@dataclass(frozen=True, slots=True)
class EarlierFile:
    """Where the parts of one file lie."""

    folder: Path
    first: int
    """Number of the file's first part there."""
    part_rows: tuple[int, ...]
    """Rows of each part, refused ones included."""


@dataclass(frozen=True, slots=True)
class EarlierParts:
    """Files that were prepared before."""

    files: Mapping[Key, EarlierFile]

    @property
    def part_rows(self) -> StoredFiles:
        """Rows of the parts, by file."""
        return {key: file.part_rows for key, file in self.files.items()}

    def take_over(self, key: Key, number: int, staging: Path, index: int) -> None:
        """Make a file's part with this number, from 0, the ``index``-th of a new preparation.

        Raises:
            ManifestMismatch: The earlier preparation lacks a file.
            StoreError: The disk is full.
        """
        file = self.files[key]
        staging.mkdir(parents=True, exist_ok=True)
        # The table last: where it is, the part is whole.
        for path_of in (rows_path, rejected_path, table_path):
            source = path_of(file.folder, file.first + number)
            if path_of is rejected_path and not source.is_file():
                continue
            _link(source, path_of(staging, index))


def find_earlier_parts(folder: Path, basis: str) -> EarlierParts:
    """What the finished preparations of a source hold on this basis.

    Args:
        folder: The preparations of one source.
        basis: What they must have been made by.
    """
    found: dict[Key, EarlierFile] = {}
    for path in sorted(folder.glob(f"*/{MANIFEST}")):
        if path.parent.name.startswith("."):
            continue
        extra = load_version(path.parent).manifest.extra
        if extra.get("basis") == basis:
            for key, file in _files_of(path.parent, extra):
                found.setdefault(key, file)
    return EarlierParts(found)


def _files_of(folder: Path, extra: Mapping[str, Any]) -> Iterator[tuple[Key, EarlierFile]]:
    first = 0
    for entry in extra["files"]:
        rows = tuple(entry["part_rows"])
        yield (entry["name"], entry["revision"]), EarlierFile(folder, first, rows)
        first += len(rows)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except FileNotFoundError as exc:
        raise ManifestMismatch(
            f"{source} is missing", hint=f"delete {source.parent} and build again"
        ) from exc
    except OSError:
        # No hard links here, or no more of this file.
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
