"""Weights of transformers' ``Qwen2ForCausalLM``, in memory or in a folder, for our decode loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from evaluation.throughput.transformer import Layer, StaticTransformer
from pipeline.errors import ConfigError, SourceError
from pipeline.settings.throughput import TransformerShape


def convert(model: Any) -> StaticTransformer:
    """The same function as ``model``, a ``Qwen2ForCausalLM``, with its weights copied together.

    Raises:
        ConfigError: The model uses what our loop does not know (a window, scaled positions).
    """
    shape = read_shape(model.config)
    layers = []
    for block in model.model.layers:
        heads = [block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj]
        layers.append(
            Layer(
                norm=block.input_layernorm.weight.detach(),
                qkv=torch.cat([part.weight.detach() for part in heads]),
                qkv_bias=torch.cat([part.bias.detach() for part in heads]),
                out=block.self_attn.o_proj.weight.detach(),
                mlp_norm=block.post_attention_layernorm.weight.detach(),
                gate_up=torch.cat(
                    [block.mlp.gate_proj.weight.detach(), block.mlp.up_proj.weight.detach()]
                ),
                down=block.mlp.down_proj.weight.detach(),
            )
        )
    embeddings = model.model.embed_tokens.weight.detach()
    tied = shape.tie_word_embeddings
    tensors = {
        "embeddings": embeddings,
        "norm": model.model.norm.weight.detach(),
        "head": embeddings if tied else model.lm_head.weight.detach(),
        "layers": layers,
    }
    return StaticTransformer(shape, tensors, compiles=embeddings.device.type == "cuda")


def read_shape(config: Any) -> TransformerShape:
    """The shape that a ``Qwen2Config`` describes.

    Raises:
        ConfigError: Another architecture, a sliding window, or scaled rotary positions.
    """
    if config.model_type != "qwen2":
        raise ConfigError(
            f"a {config.model_type!r} model, not qwen2",
            hint="point throughput.transformer_from at Qwen2 or Qwen2.5 weights",
        )
    rope = config.rope_parameters
    if config.use_sliding_window or rope.get("rope_type", "default") != "default":
        raise ConfigError(
            "this Qwen2 has a sliding window or scaled positions, which the decode loop lacks",
            hint="use weights without them, or throughput.engine = vllm",
        )
    heads = config.num_attention_heads
    return TransformerShape(
        name="Qwen2",
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        tie_word_embeddings=config.tie_word_embeddings,
        rope_theta=rope["rope_theta"],
        rms_norm_eps=config.rms_norm_eps,
    )


def load(folder: Path, *, device: torch.device, dtype: torch.dtype) -> StaticTransformer:
    """Weights of a folder in transformers' format.

    Raises:
        SourceError: The folder holds no readable model.
        ConfigError: The model is not one that the loop computes.
    """
    from transformers import AutoConfig, Qwen2ForCausalLM

    if not (folder / "config.json").is_file():
        raise SourceError(
            f"{folder} holds no config.json",
            hint="point throughput.transformer_from at a transformers model folder",
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        read_shape(config)
        model = Qwen2ForCausalLM.from_pretrained(folder, local_files_only=True, dtype=dtype)
    except (OSError, ValueError) as exc:
        raise SourceError(
            f"cannot load weights from {folder}: {str(exc).splitlines()[0]}",
            hint="check throughput.transformer_from; a damaged download must be made again",
        ) from exc
    return convert(model.to(device).eval())
