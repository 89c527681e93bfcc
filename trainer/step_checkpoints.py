"""Checkpoints inside a run: whole or not there, verified by hash, oldest pruned.

    steps/checkpoint-<step>/   weights, optimiser, schedule, random states, logs, checkpoint.json
    steps/.writing-<step>/     one that is being written, or that a kill left behind

``checkpoint.json`` lists every file with its size and hash. It is written last, then the folder is
renamed: what has the final name was complete. Hashes tell damage that came later.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import console
from pipeline.store import explain_disk_errors, fsync, write_json
from trainer.processes import Processes

MANIFEST = "checkpoint.json"
_PIECE = 1 << 24


@contextmanager
def write_checkpoint(root: Path, step: int, processes: Processes) -> Iterator[Path]:
    """Yield a folder for every process to write into; afterwards it is ``checkpoint-<step>``.

    A failure (a full disk) deletes what was written, so that the checkpoint before it and the space
    are kept.
    """
    temporary, final = root / f".writing-{step}", root / f"checkpoint-{step}"
    if processes.is_main:
        shutil.rmtree(temporary, ignore_errors=True)
        with explain_disk_errors(root):
            temporary.mkdir(parents=True)
    processes.wait()
    try:
        yield temporary
        processes.wait()
        if processes.is_main:
            _seal(temporary, step, processes.world_size)
            shutil.rmtree(final, ignore_errors=True)
            temporary.replace(final)
            fsync(root)
    finally:
        if processes.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
    processes.wait()


def prune(root: Path, keep: int) -> None:
    """Delete the oldest checkpoints beyond ``keep``."""
    for path in list_checkpoints(root)[keep:]:
        with explain_disk_errors(path):
            shutil.rmtree(path)


def list_checkpoints(root: Path) -> list[Path]:
    """Newest first."""
    found = [p for p in root.glob("checkpoint-*") if p.name.split("-")[1].isdigit()]
    return sorted(found, key=lambda path: -int(path.name.split("-")[1]))


def find_resumable(root: Path) -> Path | None:
    """The newest checkpoint whose files are what was written; damaged ones are set aside.

    A damaged one is renamed to ``damaged-…``, named with the reason, and the one before is tried.
    """
    for path in list_checkpoints(root):
        problem = find_problem(path)
        if problem is None:
            return path
        aside = path.with_name(f"damaged-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        path.replace(aside)
        console.warn(
            f"{path.name} is damaged ({problem}) and was set aside as {aside.name}; "
            "falling back to the one before"
        )
    return None


def find_problem(folder: Path) -> str | None:
    """Why a checkpoint cannot be resumed from, or none: every file is read and hashed."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files, step = dict(manifest["files"]), int(manifest["step"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        return f"{MANIFEST}: {str(exc).splitlines()[0]}"
    if folder.name != f"checkpoint-{step}":
        return f"{MANIFEST} belongs to step {step}"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size:,} bytes instead of {expected['bytes']:,}"
        if hash_file(path) != expected["xxh3"]:
            return f"the content of {name} has changed"
    return None


def hash_file(path: Path) -> str:
    """XXH3 of a file's bytes: tells damage at 10 GB/s, not tampering."""
    import xxhash

    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return str(digest.hexdigest())


def _seal(folder: Path, step: int, world_size: int) -> None:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        fsync(path)
        name = path.relative_to(folder).as_posix()
        files[name] = {"bytes": path.stat().st_size, "xxh3": hash_file(path)}
    write_json(folder / MANIFEST, {"step": step, "world_size": world_size, "files": files})
    fsync(folder)
