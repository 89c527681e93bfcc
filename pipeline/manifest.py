"""Versions: immutable folders named by the hash of what determined them.

    <root>/<version>/data/*.parquet        the rows
    <root>/<version>/rejected/*.parquet    row_id, stage, reason, detail, text
    <root>/<version>/manifest.json         written last; its keys are a contract
    <root>/<version>/README.md             the data card
    <root>/LATEST                          the newest version's name

A folder under its final name is complete, because it is renamed into place as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import ManifestMismatch, SourceError, StoreError
from pipeline.hashing import file_sha256
from pipeline.store import read_rows, write_text

MANIFEST = "manifest.json"
LATEST = "LATEST"


class InputRef(BaseModel):
    """One input of a stage, named without any machine's paths."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    """A version name of ours, or the sha256 of the file, or a hub revision."""


class ShardRef(BaseModel):
    """One data file of a version, relative to its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    rows: int
    bytes: int


class Manifest(BaseModel):
    """What a version is, what made it and what it left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    inputs: list[InputRef]
    settings: dict[str, Any]
    code_version: str
    rows_in: int
    rows_out: int
    rejected: dict[str, dict[str, int]]
    shards: list[ShardRef]
    licences: dict[str, int]
    tokens: dict[str, int]
    extra: dict[str, Any] = Field(default_factory=dict)
    """Stage-specific figures (histograms, per-source counts, benchmark reports)."""

    @property
    def rows_rejected(self) -> int:
        """Rows refused, over all stages and reasons."""
        return sum(sum(reasons.values()) for reasons in self.rejected.values())


@dataclass(frozen=True, slots=True)
class Version:
    """A finished version on disk."""

    folder: Path
    manifest: Manifest
    reused: bool = False

    @property
    def name(self) -> str:
        """The version's content hash."""
        return self.manifest.version

    def shard_paths(self) -> list[Path]:
        """Absolute paths of the data shards, in order."""
        return [self.folder / shard.path for shard in self.manifest.shards]

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Stream all rows in their stored order."""
        for path in self.shard_paths():
            yield from read_rows(path, columns)


def load_version(folder: Path) -> Version:
    """Open a version folder.

    Raises:
        SourceError: No such folder, or it has no readable manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise SourceError(
            f"{folder} is not a finished version (no {MANIFEST})",
            hint="pass a version folder, or build it first",
        )
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, json.JSONDecodeError, UnicodeDecodeError) as exc:
        raise ManifestMismatch(
            f"{path} is not a valid manifest: {str(exc).splitlines()[0]}",
            hint=f"delete {folder} and build it again",
        ) from exc
    return Version(folder=folder, manifest=manifest)


def resolve_version(root: Path, name: str = "latest") -> Version:
    """Open ``root/<name>``, or the newest version when ``name`` is ``latest``.

    Raises:
        SourceError: Nothing has been built there, or the name is unknown.
    """
    if name == "latest":
        pointer = root / LATEST
        if not pointer.is_file():
            raise SourceError(f"nothing has been built under {root}", hint="build it first")
        name = pointer.read_text(encoding="utf-8").strip()
    return load_version(root / name)


def mark_latest(root: Path, version: str) -> None:
    """Point ``latest`` at a version."""
    write_text(root / LATEST, version + "\n")


def verify_version(version: Version) -> None:
    """Compare every shard with the hash its manifest recorded.

    Raises:
        ManifestMismatch: A shard is missing or differs.
    """
    for shard in version.manifest.shards:
        path = version.folder / shard.path
        if not path.is_file():
            raise ManifestMismatch(
                f"{path} is listed in the manifest but missing",
                hint=f"delete {version.folder} and build it again",
            )
        if file_sha256(path) != shard.sha256:
            raise ManifestMismatch(
                f"{path} differs from its manifest (sha256)",
                hint=f"delete {version.folder} and build it again",
            )


def check_balance(manifest: Manifest) -> None:
    """Hold rows in = rows out + rows rejected.

    Raises:
        StoreError: The counts do not add up, which is a bug of ours.
    """
    if manifest.rows_in != manifest.rows_out + manifest.rows_rejected:
        raise StoreError(
            f"rows do not add up: {manifest.rows_in} in, {manifest.rows_out} out, "
            f"{manifest.rows_rejected} rejected",
            hint="report this with the recipe; nothing was published",
        )
