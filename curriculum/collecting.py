"""Delete what nothing refers to: old dataset versions, and prepared sources that none came from.

Kept are the newest versions of every phase, every version that a checkpoint was trained on, each
source's newest preparation (and judging), and all that a kept version's manifest names. Command:
``python -m curriculum gc --dry-run``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curriculum.preparation import use_lock
from pipeline import console
from pipeline.errors import ManifestMismatch
from pipeline.manifest import LATEST, MANIFEST
from pipeline.store import exclusive_lock, explain_disk_errors, shared_lock

ROOTS = ("datasets", "prepared", "judged")
"""Folders of a run folder that hold versions; datasets are made of the others."""
TRASH = ".trash-"
UNFINISHED = (".work-", ".staging-", ".spool-", ".pull-", ".tmp-")
"""Beginnings of the names of what a killed run left and the next one goes on with."""


@dataclass(frozen=True, slots=True)
class Found:
    """A folder or file that a collection looked at."""

    path: Path
    kind: str
    num_bytes: int
    keeps: str
    """Why it stays; empty when nothing holds it."""


def collect_garbage(
    out: Path, *, keep: int = 1, unfinished: bool = False, dry_run: bool = False
) -> list[Found]:
    """Delete unreferenced versions and preparations of a run folder; what was found, and kept why.

    Args:
        out: Run folder.
        keep: Newest versions kept of each phase.
        unfinished: Also delete what interrupted runs would go on with.
        dry_run: Delete nothing.

    Raises:
        StoreError: A build, a preparation or a transfer is running there.
        ManifestMismatch: A manifest or a checkpoint's record cannot be read: nothing is deleted.
    """
    with ExitStack() as held:
        if out.is_dir():
            held.enter_context(shared_lock(use_lock(out), "this run folder", alone=True))
        locks = (lock for root in ROOTS for lock in out.glob(f"{root}/*/.lock-*"))
        for lock in sorted(locks):
            held.enter_context(exclusive_lock(lock, "this run folder"))
        found = [*_survey(out, keep)]
        if unfinished:
            found += _leftovers(out, UNFINISHED)
        # What an interrupted collection had already taken out.
        found += _leftovers(out, (TRASH,))
        if not dry_run:
            for one in found:
                if not one.keeps:
                    _delete(one.path)
    return found


def show_collection(found: list[Found], *, dry_run: bool) -> None:
    """Print what was kept and why, and what is gone."""
    kept = [[one.kind, str(one.path), _size(one), one.keeps] for one in found if one.keeps]
    gone = [[one.kind, str(one.path), _size(one)] for one in found if not one.keeps]
    if kept:
        console.table("kept", ["what", "path", "size", "because"], kept)
    if gone:
        title = "would be deleted" if dry_run else "deleted"
        console.table(title, ["what", "path", "size"], gone)
    else:
        console.say("nothing to delete")


def _survey(out: Path, keep: int) -> Iterator[Found]:
    datasets = [path.parent for path in sorted(out.glob(f"datasets/*/*/{MANIFEST}"))]
    datasets = [folder for folder in datasets if not folder.name.startswith(".")]
    trained = _trained_versions(out)
    texts = []
    for folder in datasets:
        keeps = _reason_to_keep(folder, keep, trained)
        if keeps:
            texts.append((folder / MANIFEST).read_text(encoding="utf-8"))
        yield Found(folder, "dataset", _bytes(folder), keeps)
    made = [p for root in ROOTS[1:] for p in sorted(out.glob(f"{root}/*/*/{MANIFEST}"))]
    for path in made:
        folder = path.parent
        if folder.name.startswith("."):
            continue
        keeps = "newest of its source" if folder in _newest(folder.parent, 1) else ""
        # Any mention counts as a reference.
        if any(folder.name in text for text in texts):
            keeps = "a kept dataset came from it"
        kind = "prepared source" if path.parents[2].name == ROOTS[1] else "judged source"
        yield Found(folder, kind, _bytes(folder), keeps)


def _reason_to_keep(folder: Path, keep: int, trained: dict[str, str]) -> str:
    _read_json(folder / MANIFEST)
    pointer = folder.parent / LATEST
    if pointer.is_file() and pointer.read_text(encoding="utf-8").strip() == folder.name:
        return "latest of its phase"
    if folder in _newest(folder.parent, keep):
        return f"among the {keep} newest of its phase"
    return trained.get(folder.name, "")


def _newest(root: Path, count: int) -> list[Path]:
    manifests = [p for p in root.glob(f"*/{MANIFEST}") if not p.parent.name.startswith(".")]
    manifests.sort(key=lambda path: (path.stat().st_mtime_ns, path.parent.name), reverse=True)
    return [path.parent for path in manifests[:count]]


def _trained_versions(out: Path) -> dict[str, str]:
    """Dataset versions that a checkpoint of this run folder was trained on."""
    found = {}
    for path in sorted((out / "checkpoints").rglob("training.json")):
        version = _read_json(path).get("dataset_version")
        if isinstance(version, str):
            found[version] = f"{path.parent.relative_to(out).as_posix()} was trained on it"
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as exc:
        raise ManifestMismatch(
            f"{path} is not readable ({exc}); nothing was deleted",
            hint="delete or repair that folder, then collect again",
        ) from exc
    return value if isinstance(value, dict) else {}


def _leftovers(out: Path, starts: tuple[str, ...]) -> Iterator[Found]:
    for root in ROOTS:
        for path in sorted(out.glob(f"{root}/*/.*")):
            if path.name.startswith(starts):
                yield Found(path, "left over", _bytes(path), "")


def _delete(path: Path) -> None:
    """Take a folder out of sight in one step, then delete it."""
    with explain_disk_errors(path):
        trash = path
        if not path.name.startswith(TRASH):
            trash = path.with_name(TRASH + path.name)
            path.replace(trash)
        if trash.is_dir():
            shutil.rmtree(trash)
        else:
            trash.unlink()


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    # Preparations of a grown source share files: each counts its part.
    return sum(stat.st_size // stat.st_nlink for stat in (file.stat() for file in files))


def _size(found: Found) -> str:
    return f"{found.num_bytes / 1e6:,.1f} MB"
