"""The student: a Mamba-2 from the recipe's shape, random or from pretrained weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, SourceError
from pipeline.hashing import content_hash, file_sha256
from pipeline.settings.recipe import Recipe
from pipeline.settings.training import ModelSettings
from pipeline.student import BOS_ID, EOS_ID, VOCAB_SIZE
from trainer.tokenizer import PAD_ID

_SHAPE = (
    "hidden_size",
    "num_hidden_layers",
    "expand",
    "head_dim",
    "state_size",
    "n_groups",
    "conv_kernel",
    "tie_word_embeddings",
)
"""Settings that weights must agree with; ``chunk_size`` changes speed, not the function."""


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


def resolve_init(recipe: Recipe, phase: str, out: Path) -> Init:
    """Decide what a phase starts from.

    Phase 1 starts from the recipe's weights or random ones, phase 2 from phase 1's checkpoint.

    Raises:
        SourceError: Phase 2 without a checkpoint of phase 1, or an unreadable folder.
        ConfigError: A hub id without a pinned revision.
    """
    settings = recipe.settings.model
    if phase != "1":
        folder = out / "checkpoints" / "phase-1"
        if not (folder / "training.json").is_file():
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


def build_config(settings: ModelSettings) -> Any:
    """The ``Mamba2Config`` of a recipe, with the student's token ids."""
    from transformers import Mamba2Config

    shape = {name: getattr(settings, name) for name in (*_SHAPE, "chunk_size")}
    return Mamba2Config(
        **shape,
        num_heads=settings.hidden_size * settings.expand // settings.head_dim,
        vocab_size=VOCAB_SIZE,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
    )


def count_parameters(settings: ModelSettings) -> int:
    """Parameters of the shape, counted on the meta device without memory."""
    import torch
    from transformers import Mamba2ForCausalLM

    with torch.device("meta"):
        model = Mamba2ForCausalLM(build_config(settings))
    return sum(parameter.numel() for parameter in model.parameters())


def load_model(settings: ModelSettings, init: Init, seed: int) -> Any:
    """The model a phase starts from, in float32 (AdamW needs float32 master weights at 5e-6).

    Raises:
        ConfigError: The weights have another shape than the recipe says.
        SourceError: The weights cannot be read or are incomplete.
    """
    from transformers import Mamba2ForCausalLM, set_seed

    set_seed(seed)
    if init.kind == "random":
        return Mamba2ForCausalLM(build_config(settings))
    _check_shape(settings, init)
    return _read_weights(settings, init)


def _read_weights(settings: ModelSettings, init: Init) -> Any:
    import torch
    from safetensors import SafetensorError
    from transformers import Mamba2ForCausalLM

    try:
        model, report = Mamba2ForCausalLM.from_pretrained(
            init.source,
            revision=init.revision or "main",
            config=build_config(settings),
            dtype=torch.float32,
            local_files_only=init.kind == "folder",
            output_loading_info=True,
        )
    except (OSError, SafetensorError, RuntimeError) as exc:
        raise SourceError(
            f"cannot load weights from {init.source}: {str(exc).splitlines()[0]}",
            hint="check model.init_from; a damaged download or checkpoint must be made again",
        ) from exc
    missing = sorted(report["missing_keys"])
    if missing:
        raise SourceError(
            f"{init.source} lacks {len(missing)} tensor(s) of the model, first {missing[0]}",
            hint="use a complete Mamba-2 checkpoint; nothing is filled in at random",
        )
    return model


def _check_shape(settings: ModelSettings, init: Init) -> None:
    """Compare the recipe's shape with the configuration that came with the weights."""
    found = _read_config(init)
    if found.get("model_type") != "mamba2":
        raise ConfigError(
            f"{init.source} is a {found.get('model_type')!r} model, not mamba2",
            hint="point model.init_from at Mamba-2 weights in transformers' format",
        )
    expected = {**{name: getattr(settings, name) for name in _SHAPE}, "vocab_size": VOCAB_SIZE}
    # A saved configuration omits nothing that differs from the class's defaults.
    defaults = type(build_config(settings))()
    for name, value in expected.items():
        actual = found.get(name, getattr(defaults, name))
        if actual != value:
            raise ConfigError(
                f"model.{name} is {value} in the recipe but {actual} in {init.source}",
                hint=f"set model.{name} = {json.dumps(actual)}, or use other weights",
            )


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
