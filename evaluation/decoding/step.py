"""One token through the student for all slots, updating their states in place.

The residual stream, the projections and the head are the same for both ways of computing what is
between the projections: PyTorch (any device) and Triton (:mod:`evaluation.decoding.kernels`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evaluation.decoding.choice import choose_tokens
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from evaluation.decoding.state import SlotStates
    from trainer.model.mixer import Mixer

KERNELS = ("torch", "triton")


@dataclass(frozen=True, slots=True)
class StepOperations:
    """What a step computes besides matrix products."""

    mix: Callable[[Mixer, Tensor, Tensor, Tensor, Tensor], Tensor]
    """(mixer, projected, window, state, steps) → (rows, inner) input of the output projection;
    window and state are advanced."""
    add_norm: Callable[..., tuple[Tensor, Tensor]]
    """As in :class:`trainer.model.operations.Operations`."""
    choose: Callable[..., Tensor]
    """As :func:`evaluation.decoding.choice.choose_tokens`."""


def load_step_operations(kernels: str) -> StepOperations:
    """The operations of ``torch`` or ``triton``.

    Raises:
        ConfigError: Another word, or Triton cannot run here.
    """
    if kernels == "torch":
        from trainer.model.operations import add_norm

        return StepOperations(mix_in_torch, add_norm, choose_tokens)
    if kernels != "triton":
        raise ConfigError(
            f"unknown decoding kernels {kernels!r}", hint=f"use one of {', '.join(KERNELS)}"
        )
    from evaluation.decoding.availability import require_triton

    require_triton()
    from evaluation.decoding.kernels import choose_in_triton, mix_in_triton
    from trainer.kernels.norms import add_norm as add_norm_in_triton

    return StepOperations(mix_in_triton, add_norm_in_triton, choose_in_triton)


def advance(model: Any, tokens: Tensor, states: SlotStates, operations: StepOperations) -> Tensor:
    """Logits (rows, vocabulary) float32 of what follows ``tokens`` (rows,) int64."""
    import torch

    backbone, eps = model.backbone, model.config.layer_norm_epsilon
    hidden, residual = backbone.embeddings(tokens), None
    residual_dtype = hidden.dtype
    if model.config.residual_in_fp32:
        residual_dtype = torch.promote_types(hidden.dtype, torch.float32)
    for layer, window, state in zip(backbone.layers, states.windows, states.states, strict=True):
        normed, residual = operations.add_norm(
            hidden, residual, layer.norm.weight, eps, residual_dtype=residual_dtype
        )
        mixer = layer.mixer
        projected = mixer.in_proj(normed)
        hidden = mixer.out_proj(operations.mix(mixer, projected, window, state, states.steps))
    states.steps += 1
    hidden, _ = operations.add_norm(
        hidden, residual, backbone.norm_f.weight, eps, residual_dtype=residual_dtype
    )
    logits: Tensor = model.lm_head(hidden.to(model.lm_head.weight.dtype))
    return logits.float()


def mix_in_torch(
    mixer: Mixer, projected: Tensor, window: Tensor, state: Tensor, steps: Tensor
) -> Tensor:
    """What a mixer does between its projections, for one token of each row.

    Args:
        mixer: The layer's.
        projected: (rows, inner + channels + heads).
        window: (rows, conv_kernel - 1, channels); advanced.
        state: (rows, heads, head_dim, state_size); advanced.
        steps: (rows,) int32 tokens that each row has read in steps.
    """
    import torch
    from torch.nn.functional import silu

    from trainer.model.decoding import convolve_last, step_state
    from trainer.model.operations import gated_norm

    gate, inputs, dt = torch.split(projected, mixer.splits, dim=-1)
    whole = torch.cat([window, inputs[:, None]], dim=1)
    window.copy_(whole[:, 1:])
    mixed = silu(convolve_last(whole, mixer.conv1d.weight.squeeze(1), mixer.conv1d.bias))
    wide = torch.promote_types(state.dtype, torch.float32)
    # A narrow state is kept narrow but advanced in float32, as kernels do.
    current = state.to(wide)
    y = step_state(mixer, mixer.scan_inputs(mixed[:, None], dt[:, None]), current)
    if current is not state:
        is_narrow = state.dtype == torch.bfloat16
        state.copy_(round_either_way(current, steps) if is_narrow else current)
    config = mixer.config
    return gated_norm(
        y[:, 0].flatten(1), gate, mixer.norm.weight, config.layer_norm_epsilon, config.n_groups
    )


def round_either_way(state: Tensor, steps: Tensor) -> Tensor:
    """The float32 state, each number moved to one of its two neighbours in bf16, still float32.

    Rounded to nearest, a head that loses less than half of bf16's spacing a step could neither
    forget nor add small amounts (measured: benchmarks/evaluation/state_drift.py). Here the lower
    neighbour's distance is the chance of the upper one, so that the mean stays right. Chance is a
    hash of the number, its place within its row and the row's step: no slot or neighbour moves it.

    Args:
        state: (rows, heads, head_dim, state_size) float32.
        steps: (rows,) int32. Without them a number that meets the same addition again and again
            would be rounded the same way each time.
    """
    import torch

    bits = state.view(torch.int32)
    place = torch.arange(state[0].numel(), dtype=torch.int32, device=state.device)
    own = place.view(state.shape[1:]) + (steps * _signed(0x85EBCA77))[:, None, None, None]
    mixed = bits ^ (own * _signed(0x9E3779B1))
    mixed = (mixed ^ ((mixed >> 16) & 0xFFFF)) * _signed(0x85EBCA6B)
    mixed = (mixed ^ ((mixed >> 13) & 0x7FFFF)) * _signed(0xC2B2AE35)
    noise = (mixed ^ (mixed >> 16)) & 0xFFFF
    return ((bits + noise) & -0x10000).view(torch.float32)


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value
