"""The student's shape: transformers' ``Mamba2Config`` from a recipe, and its parameters."""

from __future__ import annotations

import json
from typing import Any

from pipeline.errors import ConfigError
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

    from trainer.model.student import StudentModel

    with torch.device("meta"):
        model = StudentModel(build_config(settings))
    return sum(parameter.numel() for parameter in model.parameters())


def check_shape(settings: ModelSettings, found: dict[str, Any], source: str) -> None:
    """Compare the recipe's shape with the configuration that came with weights.

    Args:
        settings: The recipe's shape.
        found: The weights' ``config.json``.
        source: Where the weights come from, for the message.

    Raises:
        ConfigError: Another architecture, or a value that differs.
    """
    if found.get("model_type") != "mamba2":
        raise ConfigError(
            f"{source} is a {found.get('model_type')!r} model, not mamba2",
            hint="point model.init_from at Mamba-2 weights in transformers' format",
        )
    expected = {**{name: getattr(settings, name) for name in _SHAPE}, "vocab_size": VOCAB_SIZE}
    # A saved configuration omits nothing that differs from the class's defaults.
    defaults = type(build_config(settings))()
    for name, value in expected.items():
        actual = found.get(name, getattr(defaults, name))
        if actual != value:
            raise ConfigError(
                f"model.{name} is {value} in the recipe but {actual} in {source}",
                hint=f"set model.{name} = {json.dumps(actual)}, or use other weights",
            )
