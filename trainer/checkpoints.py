"""Published checkpoints: find what is finished, rename what is complete into place, lose none.

    <out>/checkpoints/phase-N/                      the model folder, with training.json
    <out>/checkpoints/archive/phase-N-<key>/        what other settings or data produced before
    <out>/checkpoints/.staging-phase-N-<key>/       a run under way: steps/, model/, logs

A folder under its final name is complete, because it is renamed into place as a whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.errors import ManifestMismatch, StoreError
from pipeline.store import explain_disk_errors, fsync

TRAINING = "training.json"
"""Written last into a finished model folder."""


def find_finished(root: Path, phase: str, key: str) -> Path | None:
    """The published checkpoint with this key; one in the archive is brought back.

    Raises:
        ManifestMismatch: It is there but its weights are damaged.
    """
    final = root / f"phase-{phase}"
    if read_key(final) == key:
        _check_weights(final)
        return final
    archived = root / "archive" / f"phase-{phase}-{key}"
    if read_key(archived) != key:
        return None
    _check_weights(archived)
    publish(archived, root, phase)
    return final


def read_key(folder: Path) -> str | None:
    """The key of a finished model folder, or none if there is none.

    Raises:
        ManifestMismatch: ``training.json`` is not readable.
    """
    return read_training(folder)["key"] if (folder / TRAINING).is_file() else None


def read_training(folder: Path) -> dict[str, Any]:
    """What ``training.json`` says.

    Raises:
        ManifestMismatch: It is not readable.
    """
    path = folder / TRAINING
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values["key"] = str(values["key"])
    except (ValueError, KeyError) as exc:
        raise ManifestMismatch(
            f"{path} is damaged: {exc}", hint=f"move {folder} away and train again"
        ) from exc
    return values


def publish(folder: Path, root: Path, phase: str) -> Path:
    """Rename a complete model folder to ``phase-N``; what is there moves to the archive first.

    Raises:
        StoreError: Something that is no checkpoint of ours is in the way, or the disk refuses.
    """
    final = root / f"phase-{phase}"
    with explain_disk_errors(final):
        if final.exists():
            _archive(final, root / "archive")
        folder.replace(final)
        fsync(root)
    return final


def _archive(folder: Path, archive: Path) -> None:
    key = read_key(folder)
    target = archive / f"{folder.name}-{key}"
    if key is None or target.exists():
        raise StoreError(
            f"{folder} cannot move to {target}: "
            + ("it has no training.json" if key is None else "there is one already"),
            hint=f"move {folder} away by hand and run the same command again",
        )
    archive.mkdir(parents=True, exist_ok=True)
    folder.replace(target)
    console.say(f"the earlier checkpoint {folder.name} was kept as {target}")


def _read_weights(folder: Path) -> None:
    """Open every weight file; safetensors compares its header with the file's length."""
    from safetensors import safe_open

    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError("no weights")
    for path in paths:
        with safe_open(path, framework="pt") as file:
            file.keys()


def _check_weights(folder: Path) -> None:
    from safetensors import SafetensorError

    try:
        _read_weights(folder)
    except (OSError, SafetensorError) as exc:
        raise ManifestMismatch(
            f"the weights of the finished checkpoint {folder} are damaged: {exc}",
            hint=f"delete {folder} and run the same command again",
        ) from exc
