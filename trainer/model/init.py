"""What training starts from: random weights, a folder, the hub, or the phase before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, SourceError
from pipeline.hashing import content_hash, file_sha256
from pipeline.settings.recipe import Recipe
from pipeline.settings.training import ModelSettings
from trainer.model.config import build_config, check_shape

if TYPE_CHECKING:
    from trainer.model.student import StudentModel


@dataclass(frozen=True, slots=True)
class Init:
    """Where training starts."""

    kind: str
    """``random``, ``folder`` or ``hub``."""
    source: str
    """Folder or hub id; empty for random weights."""
    revision: str | None
    identity: str
    """Content hash of the weights (for the hub: its id and commit); part of the checkpoint's key.
    Never a path, so that the same weights give the same key in any folder."""


def is_phase_one_there(out: Path) -> bool:
    """Whether the run folder has the checkpoint that later phases start from."""
    return (_phase_one(out) / "training.json").is_file()


def _phase_one(out: Path) -> Path:
    return out / "checkpoints" / "phase-1"


def resolve_init(recipe: Recipe, phase: str, out: Path) -> Init:
    """Decide what a phase starts from.

    Phase 1 starts from the recipe's weights or random ones, phase 2 from phase 1's checkpoint.

    Raises:
        SourceError: Phase 2 without a checkpoint of phase 1, or an unreadable folder.
        ConfigError: A hub id without a pinned revision.
    """
    settings = recipe.settings.model
    if phase != "1":
        folder = _phase_one(out)
        if not is_phase_one_there(out):
            raise SourceError(
                f"phase {phase} starts from phase 1's checkpoint, and {folder} has none",
                hint="run `python -m trainer.sft --phase 1` with the same --recipe and --out first",
            )
        return Init("folder", str(folder), None, hash_weights(folder))
    if settings.init_from is None:
        return Init("random", "", None, "random")
    folder = recipe.file(settings.init_from)
    if folder.is_dir():
        return Init("folder", str(folder), None, hash_weights(folder))
    if settings.init_from.startswith((".", "/")) or settings.init_from.count("/") != 1:
        raise SourceError(
            f"model.init_from: no folder {folder}",
            hint="give a folder relative to the recipe, or a hub id like owner/name",
        )
    if settings.revision is None:
        raise ConfigError(
            f"model.init_from = {settings.init_from!r} is a hub id without model.revision",
            hint="pin a commit in model.revision, or give a local folder",
        )
    identity = content_hash([settings.init_from, settings.revision])
    return Init("hub", settings.init_from, settings.revision, identity)


def hash_weights(folder: Path) -> str:
    """Content hash of a model folder's configuration and weights.

    Raises:
        SourceError: The folder holds no safetensors weights.
    """
    weights = sorted(folder.glob("*.safetensors"))
    config = folder / "config.json"
    if not weights or not config.is_file():
        raise SourceError(
            f"{folder} holds no model (config.json and *.safetensors)",
            hint="point model.init_from at a transformers model folder",
        )
    return content_hash({path.name: file_sha256(path) for path in [config, *weights]})


def load_model(
    settings: ModelSettings,
    init: Init,
    seed: int,
    *,
    backend: str = "torch",
    activation: str = "none",
) -> StudentModel:
    """The model a phase starts from, in float32 (AdamW needs float32 masters at 5e-6).

    Args:
        settings: The recipe's shape.
        init: Random weights, a folder or a hub id.
        seed: Seed of random weights; the global generators are set to it.
        backend: ``torch``, ``triton`` or ``split``: what computes the mixer.
        activation: ``none``, ``all`` or ``every_second``: which blocks are recomputed in backward.

    Raises:
        ConfigError: The weights have another shape than the recipe says, or the backend's kernels
            are missing.
        SourceError: The weights cannot be read or are incomplete.
    """
    import torch
    from transformers import set_seed

    from trainer.model.student import StudentModel

    set_seed(seed)
    if init.kind == "random":
        return StudentModel(build_config(settings), backend=backend, activation=activation)
    check_shape(settings, _read_config(init), init.source)
    how = {"backend": backend, "activation": activation, "dtype": torch.float32}
    return _read_weights(settings, init, how)


def _read_weights(settings: ModelSettings, init: Init, how: dict[str, Any]) -> StudentModel:
    from safetensors import SafetensorError

    from trainer.model.student import StudentModel

    try:
        loaded: tuple[StudentModel, dict[str, Any]] = StudentModel.from_pretrained(
            init.source,
            revision=init.revision or "main",
            config=build_config(settings),
            local_files_only=init.kind == "folder",
            output_loading_info=True,
            **how,
        )
    except (OSError, SafetensorError, RuntimeError) as exc:
        raise SourceError(
            f"cannot load weights from {init.source}: {str(exc).splitlines()[0]}",
            hint="check model.init_from; a damaged download or checkpoint must be made again",
        ) from exc
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise SourceError(
            f"{init.source} lacks {len(missing)} tensor(s) of the model, first {missing[0]}",
            hint="use a complete Mamba-2 checkpoint; nothing is filled in at random",
        )
    return model


def _read_config(init: Init) -> dict[str, Any]:
    try:
        if init.kind == "folder":
            path = Path(init.source) / "config.json"
        else:
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(init.source, "config.json", revision=init.revision))
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise SourceError(
            f"cannot read config.json of {init.source}: {str(exc).splitlines()[0]}",
            hint="check model.init_from, model.revision and the network",
        ) from exc
    return values
