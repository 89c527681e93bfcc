"""Models of the throughput benchmark, with random weights made on the GPU: ours and the peers."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

from pipeline.settings.training import ModelSettings
from trainer.model import build_config

SIZES = {
    "370m": ModelSettings(hidden_size=1024, num_hidden_layers=48),
    "1.3b": ModelSettings(hidden_size=2048, num_hidden_layers=48),
    "2.7b": ModelSettings(hidden_size=2560, num_hidden_layers=64),
    "7b": ModelSettings(hidden_size=4096, num_hidden_layers=64),
}

Step = Callable[[dict[str, Any]], None]
"""Forward and backward of one micro-batch: input_ids, labels, and seq_idx or attention_mask."""


def make_ours(
    size: str, activation: str, *, autocast: bool = False, num_layers: int | None = None
) -> tuple[Any, Step]:
    """The student with the triton backend; bf16 weights, or float32 ones under autocast."""
    from trainer.model.student import StudentModel

    dtype = torch.float32 if autocast else torch.bfloat16
    config = build_config(SIZES[size])
    config.num_hidden_layers = num_layers or config.num_hidden_layers
    model = _on_gpu(partial(StudentModel, config, backend="triton", activation=activation), dtype)

    def step(batch: dict[str, Any]) -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            loss = model(**batch).loss
        loss.backward()

    return model, step


def make_transformers(size: str, *, autocast: bool) -> tuple[Any, Step]:
    """The model of transformers, checkpointed, with the loss of TRL's trainer."""
    stand_in_for_convolution()
    from transformers import Mamba2ForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    dtype = torch.float32 if autocast else torch.bfloat16
    model = _on_gpu(partial(Mamba2ForCausalLM, build_config(SIZES[size])), dtype)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))

    def step(batch: dict[str, Any]) -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            loss = model(**batch, fused_lm_head=True).loss
        loss.backward()

    return model, step


def make_mamba_ssm(size: str, *, checkpointed: bool) -> tuple[Any, Step]:
    """mamba-ssm's MambaLMHeadModel in bf16; our loss, since its own holds all logits."""
    stand_in_for_convolution()
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel
    from torch.utils.checkpoint import checkpoint

    from pipeline.student import VOCAB_SIZE
    from trainer.model.loss import sum_token_loss

    shape = SIZES[size]
    config = MambaConfig(
        d_model=shape.hidden_size,
        n_layer=shape.num_hidden_layers,
        vocab_size=VOCAB_SIZE,
        ssm_cfg={"layer": "Mamba2", "ngroups": shape.n_groups, "d_state": shape.state_size},
        tie_embeddings=False,
    )
    model = MambaLMHeadModel(config, device="cuda", dtype=torch.bfloat16).train()
    if checkpointed:
        for layer in model.backbone.layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)

    def step(batch: dict[str, Any]) -> None:
        hidden = model.backbone(batch["input_ids"])
        loss = sum_token_loss(hidden, model.lm_head.weight, batch["labels"], None)
        (loss.total / loss.num_tokens).backward()

    return model, step


def _on_gpu(build: Callable[[], Any], dtype: torch.dtype) -> Any:
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("cuda"):
            return build().to(dtype).train()
    finally:
        torch.set_default_dtype(default)


def stand_in_for_convolution() -> bool:
    """Let peers that need causal-conv1d use our convolution where it is not installed.

    Both peers crash or leave their fast path without it. Ours is as fast as it, so their figures
    are what they are with causal-conv1d, or better.

    Returns:
        Whether ours stands in.
    """
    from trainer.kernels.availability import load_mamba

    if "causal_conv1d" in sys.modules:
        return hasattr(sys.modules["causal_conv1d"], "is_stand_in")
    is_missing = importlib.util.find_spec("causal_conv1d") is None
    if is_missing:
        _add_module("causal_conv1d", is_stand_in=True, causal_conv1d_fn=_convolve_channels_first)
        _add_module(
            "causal_conv1d.cpp_functions",
            causal_conv1d_fwd_function=_forward,
            causal_conv1d_bwd_function=_backward,
            causal_conv1d_update_function=None,
        )
    scan = load_mamba()
    if is_missing and scan.causal_conv1d_fwd_function is None:
        # It was imported before the stand-in existed.
        scan.causal_conv1d_fn = _convolve_channels_first
        scan.causal_conv1d_fwd_function = _forward
        scan.causal_conv1d_bwd_function = _backward
    return is_missing


def _add_module(name: str, **members: Any) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__path__ = []
    vars(module).update(members)
    sys.modules[name] = module


def _convolve_channels_first(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    seq_idx: torch.Tensor | None = None,
    activation: str | None = "silu",
    **unused: Any,
) -> torch.Tensor:
    from trainer.kernels.convolution import causal_conv1d

    return causal_conv1d(x.transpose(1, 2), weight, bias, seq_idx).transpose(1, 2)


def _forward(x: Any, weight: Any, bias: Any, seq_idx: Any, *unused: Any) -> torch.Tensor:
    from trainer.kernels.convolution import convolve

    return convolve(x.transpose(1, 2), weight, bias, seq_idx).transpose(1, 2)


def _backward(x: Any, weight: Any, bias: Any, dy: Any, seq_idx: Any, *rest: Any) -> tuple[Any, ...]:
    from trainer.kernels.convolution import differentiate

    dx = rest[2]
    dweight, dbias = differentiate(
        (x.transpose(1, 2), weight, bias), seq_idx, dy.transpose(1, 2), dx=dx.transpose(1, 2)
    )
    return dx, dweight.to(weight.dtype), None if bias is None else dbias.to(bias.dtype)
