"""Find checkpoints and load them as something that answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import SourceError
from pipeline.hashing import content_hash, file_sha256
from pipeline.settings.recipe import Recipe
from pipeline.student import VOCAB_SIZE

_CONFIG = "config.json"
_WEIGHTS = "*.safetensors"


def find_checkpoints(recipe: Recipe, out: Path) -> list[Path]:
    """The recipe's checkpoints that have been trained so far.

    Raises:
        SourceError: There is none.
    """
    folders = [out / "checkpoints" / name for name in recipe.settings.evaluation.checkpoints]
    found = [folder for folder in folders if (folder / _CONFIG).is_file()]
    if not found:
        names = ", ".join(recipe.settings.evaluation.checkpoints)
        raise SourceError(
            f"no checkpoint under {out / 'checkpoints'} (looked for {names})",
            hint="train first (python -m trainer.sft --phase 1), or pass --checkpoint FOLDER",
        )
    return found


def hash_checkpoint(folder: Path) -> str:
    """Content hash of a checkpoint's configuration and weights.

    Raises:
        SourceError: The folder is missing or holds no model.
    """
    weights = sorted(folder.glob(_WEIGHTS))
    if not folder.is_dir():
        raise SourceError(f"checkpoint folder not found: {folder}", hint="check the path")
    if not weights or not (folder / _CONFIG).is_file():
        raise SourceError(
            f"{folder} holds no model (wants {_CONFIG} and {_WEIGHTS})",
            hint="pass a folder written by python -m trainer.sft or by save_pretrained",
        )
    return content_hash({path.name: file_sha256(path) for path in [folder / _CONFIG, *weights]})


def load_model(folder: Path) -> Any:
    """The checkpoint's causal language model, ready to decode, on a GPU when there is one.

    Raises:
        SourceError: The weights or the configuration are damaged, do not fit each other, or are
            those of another architecture or vocabulary.
    """
    import torch
    from safetensors import SafetensorError
    from transformers.utils import logging

    from trainer.model.student import StudentModel

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    _check_architecture(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model, report = StudentModel.from_pretrained(
            folder,
            dtype=torch.float32 if device == "cpu" else "auto",
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as exc:
        raise _unusable(folder, str(exc).strip().splitlines()[0]) from exc
    missing = sorted(str(name) for name in report["missing_keys"])
    if missing:
        raise _unusable(folder, f"{len(missing)} weights are missing, e.g. {missing[0]}")
    if model.config.vocab_size != VOCAB_SIZE:
        raise _unusable(
            folder, f"its vocabulary has {model.config.vocab_size:,} tokens, not {VOCAB_SIZE:,}"
        )
    if not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
        raise _unusable(folder, "some weights are NaN or infinite")
    return model.eval().to(device)


def _check_architecture(folder: Path) -> None:
    try:
        found = json.loads((folder / _CONFIG).read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError) as exc:
        raise _unusable(folder, str(exc).splitlines()[0]) from exc
    if found != "mamba2":
        raise _unusable(folder, f"it is a {found!r} model, not mamba2")


def _unusable(folder: Path, reason: str) -> SourceError:
    return SourceError(
        f"the checkpoint {folder} cannot be loaded: {reason}",
        hint="train it again, or pass another --checkpoint",
    )
