"""Push a version to, and pull it from, any store that fsspec reaches: a disk, S3, a hub repo.

The URL names the version's own folder, so that what lies there is an ordinary dataset. A file of
checksums is sent last: without it nothing can be pulled. Both directions go on where they stopped,
and compare every file's sha256. Commands: ``python -m curriculum push V URL`` and ``pull URL``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import console
from pipeline.errors import ConfigError, ManifestMismatch, SourceError, StoreError
from pipeline.hashing import file_sha256
from pipeline.manifest import Version, load_version, mark_latest
from pipeline.redaction import has_login
from pipeline.store import atomic_path, exclusive_lock, explain_disk_errors

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CHECKSUMS = "checksums.json"
_PIECE = 1 << 20
_PHASE_FOLDER = re.compile(r"phase-[a-z0-9][a-z0-9-]*")


class FileSum(BaseModel):
    """One file of a version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    bytes: int
    sha256: str


class Checksums(BaseModel):
    """What a pushed version consists of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    folder: str
    """Its place under ``datasets/``, e.g. ``phase-1``."""
    files: tuple[FileSum, ...]


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a push or pull did."""

    url: str
    folder: Path
    num_files: int
    num_moved: int
    """Files that were not there yet."""
    num_bytes: int
    """Bytes of the files moved."""

    def report(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "url": self.url,
            "path": str(self.folder),
            "files": self.num_files,
            "files_moved": self.num_moved,
            "bytes_moved": self.num_bytes,
        }


def push_version(version: Version, url: str) -> Transfer:
    """Copy a version to a store and read every file back.

    Raises:
        ConfigError: The URL's protocol is unknown or its package missing.
        ManifestMismatch: The version is damaged, here or after the transfer.
        StoreError: The place holds another version, or cannot be written.
    """
    fs, root = _open_store(url)
    with _explain_store_errors(url):
        sums = _sum_files(version)
        _check_place(fs, root, sums, url)
        moved = [file for file in sums.files if _push_file(fs, root, version.folder, file)]
        text = json.dumps(sums.model_dump(), indent=2, sort_keys=True) + "\n"
        fs.pipe_file(f"{root}/{CHECKSUMS}", text.encode("utf-8"))
    return Transfer(url, version.folder, len(sums.files), len(moved), sum(f.bytes for f in moved))


def pull_version(url: str, out: Path) -> Transfer:
    """Copy a pushed version into a run folder, where it becomes the newest of its phase.

    Raises:
        ConfigError: The URL's protocol is unknown or its package missing.
        SourceError: Nothing complete lies there.
        ManifestMismatch: A file differs from its checksum.
        StoreError: The store or the disk fails.
    """
    fs, root = _open_store(url)
    with _explain_store_errors(url):
        sums = _read_checksums(fs, root, url)
        final = out / "datasets" / sums.folder / sums.version
        if (final / "manifest.json").is_file():
            mark_latest(final.parent, sums.version)
            return Transfer(url, final, len(sums.files), 0, 0)
        staging = final.with_name(f".pull-{sums.version}")
        lock = final.with_name(f".lock-pull-{sums.version}")
        with exclusive_lock(lock, f"version {sums.version}"):
            moved = [file for file in sums.files if _pull_file(fs, root, staging, file)]
            _check_manifest(staging, sums)
            with explain_disk_errors(final):
                staging.replace(final)
            mark_latest(final.parent, sums.version)
    return Transfer(url, final, len(sums.files), len(moved), sum(f.bytes for f in moved))


def show_transfer(transfer: Transfer, verb: str) -> None:
    """Print what a push or pull did."""
    console.say(
        f"{verb} {transfer.folder} {'to' if verb == 'pushed' else 'from'} {transfer.url}: "
        f"{transfer.num_moved:,} of {transfer.num_files:,} files moved "
        f"({transfer.num_bytes / 1e6:,.1f} MB), all verified by sha256"
    )


def _open_store(url: str) -> tuple[AbstractFileSystem, str]:
    from fsspec.core import url_to_fs

    if "://" in url and has_login(url):
        raise ConfigError(
            "the URL of the store holds a login or a key, which commands and logs would repeat",
            hint="leave it out: fsspec's packages read credentials from the environment (HF_TOKEN, "
            "AWS_SECRET_ACCESS_KEY, …) or from their own files",
        )
    try:
        fs, root = url_to_fs(url)
    except (ImportError, ValueError) as exc:
        raise ConfigError(
            f"cannot reach {url}: {exc}",
            hint="use a path or an fsspec URL (s3://…, hf://datasets/…), and install its package",
        ) from exc
    # A listing remembered from an earlier run would hide what has come since.
    fs.invalidate_cache()
    return fs, root.rstrip("/")


@contextmanager
def _explain_store_errors(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StoreError(
            f"{url}: {exc or type(exc).__name__}; what was moved is kept",
            hint="check the address, the credentials and the network, then run the same command",
        ) from exc


def _sum_files(version: Version) -> Checksums:
    """Hash a version's files, the manifest last; damaged shards are never sent."""
    stated = {shard.path: shard.sha256 for shard in version.manifest.shards}
    paths = [p.relative_to(version.folder).as_posix() for p in version.folder.rglob("*")
             if p.is_file() and not p.name.startswith(".")]  # fmt: skip
    paths.sort(key=lambda path: (path == "manifest.json", path))
    files = []
    for path in paths:
        place = version.folder / path
        file = FileSum(path=path, bytes=place.stat().st_size, sha256=file_sha256(place))
        if stated.pop(path, file.sha256) != file.sha256:
            raise _damaged(str(place), version.folder)
        files.append(file)
    if stated:
        raise _damaged(f"{version.folder / next(iter(stated))} (missing)", version.folder)
    return Checksums(version=version.name, folder=version.folder.parent.name, files=tuple(files))


def _check_place(fs: AbstractFileSystem, root: str, sums: Checksums, url: str) -> None:
    """Refuse to mix two versions in one folder."""
    if fs.exists(f"{root}/{CHECKSUMS}"):
        there = _read_checksums(fs, root, url).version
        if there != sums.version:
            raise StoreError(
                f"{url} holds version {there}, not {sums.version}",
                hint="push to a folder or repository of its own, or empty this one first",
            )


def _push_file(fs: AbstractFileSystem, root: str, folder: Path, file: FileSum) -> bool:
    """Send a file unless it is there; whether it was sent.

    Raises:
        ManifestMismatch: What arrived is not what was sent.
    """
    target = f"{root}/{file.path}"
    if fs.exists(target) and _remote_sum(fs, target) == file.sha256:
        return False
    fs.makedirs(target.rpartition("/")[0], exist_ok=True)
    # A disk shows half a file under its name; other stores show it when it is whole.
    is_disk = "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))
    name = f"{target}.part" if is_disk else target
    with (folder / file.path).open("rb") as source, fs.open(name, "wb") as sink:
        _copy(source, sink)
    if is_disk:
        fs.mv(name, target)
    if _remote_sum(fs, target) != file.sha256:
        raise _damaged(target, folder)
    return True


def _pull_file(fs: AbstractFileSystem, root: str, staging: Path, file: FileSum) -> bool:
    """Fetch a file unless it is here; whether it was fetched.

    Raises:
        ManifestMismatch: What arrived is not what was announced; it is not kept.
    """
    target = staging / file.path
    if target.is_file() and file_sha256(target) == file.sha256:
        return False
    with atomic_path(target) as temporary:
        with fs.open(f"{root}/{file.path}", "rb") as source, temporary.open("wb") as sink:
            digest = _copy(source, sink)
        if digest != file.sha256:
            raise _damaged(f"{root}/{file.path}", staging)
    return True


def _copy(source: BinaryIO, sink: BinaryIO) -> str:
    digest = sha256()
    while piece := source.read(_PIECE):
        digest.update(piece)
        sink.write(piece)
    return digest.hexdigest()


def _remote_sum(fs: AbstractFileSystem, path: str) -> str:
    digest = sha256()
    with fs.open(path, "rb") as handle:
        while piece := handle.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _read_checksums(fs: AbstractFileSystem, root: str, url: str) -> Checksums:
    path = f"{root}/{CHECKSUMS}"
    if not fs.exists(path):
        raise SourceError(
            f"no complete version at {url} (no {CHECKSUMS})",
            hint="check the address; an interrupted push is finished by running it again",
        )
    try:
        sums = Checksums.model_validate_json(fs.cat_file(path))
    except ValidationError as exc:
        raise ManifestMismatch(
            f"{path} is not a list of checksums: {exc.errors()[0]['msg']}", hint="push again"
        ) from exc
    parts = [part for file in sums.files for part in PurePosixPath(file.path).parts]
    safe = not any(part in {"..", "/"} or "\\" in part for part in parts)
    if not safe or not _PHASE_FOLDER.fullmatch(sums.folder) or not sums.version.isalnum():
        raise ManifestMismatch(
            f"{path} names files outside a version's folder", hint="do not trust this store"
        )
    return sums


def _check_manifest(staging: Path, sums: Checksums) -> None:
    """Hold what was pulled to its own manifest."""
    manifest = load_version(staging).manifest
    pulled: dict[str, Any] = {file.path: file.sha256 for file in sums.files}
    if manifest.version != sums.version:
        raise _damaged(f"{staging / 'manifest.json'} (version {manifest.version})", staging)
    for shard in manifest.shards:
        if pulled.get(shard.path) != shard.sha256:
            raise _damaged(str(staging / shard.path), staging)


def _damaged(what: str, folder: Path) -> ManifestMismatch:
    return ManifestMismatch(
        f"{what} differs from its checksum", hint=f"transfer it again, or rebuild {folder}"
    )
