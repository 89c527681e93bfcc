"""The mixer's pass with a cache: reading a prompt, or a part of it, and one token at a time.

It runs on PyTorch with every backend, since a step is bound by its small matrix products. Padding,
on either side, leaves convolution and state untouched.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu

from trainer.model.cache import StateCache
from trainer.model.mixer import Mixer
from trainer.model.operations import convolve, gated_norm
from trainer.model.scan import Carry, ScanInputs, discretise, scan


class Span:
    """The tokens of one cached pass.

    Args:
        cache: What was read before; every layer's part is replaced.
        attention_mask: (batch, at least length), 0 at padding; its last columns count.
        length: Tokens of the pass.

    Raises:
        ValueError: Padding between two tokens, or before a token that continues a row.
    """

    def __init__(self, cache: StateCache, attention_mask: Tensor | None, length: int) -> None:
        self.cache = cache
        self.keep: Tensor | None = None
        """(batch, length) bool, or none without padding."""
        self.last: Tensor | None = None
        """(batch,) index of each row's last token, or none without padding."""
        if attention_mask is None or (length == 1 and not cache.is_empty):
            return
        if attention_mask.shape[1] < length:
            raise ValueError(
                f"attention_mask has {attention_mask.shape[1]} columns, the tokens {length}"
            )
        mask = attention_mask[:, -length:] != 0
        if bool(mask.all()):
            return
        self.keep, self.last = mask, find_last_tokens(mask)
        if not cache.is_empty and not bool(mask[:, 0].all()):
            raise ValueError("padding on the left of tokens that continue a cached row")


def find_last_tokens(mask: Tensor) -> Tensor:
    """(batch,) index of each row's last token that is not padding.

    Args:
        mask: (batch, length) bool, false at padding.

    Raises:
        ValueError: A row is padding only, or has padding between two tokens.
    """
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, positions, -1).amax(dim=1)
    first = torch.where(mask, positions, mask.shape[1]).amin(dim=1)
    if bool((mask.sum(dim=1) != last - first + 1).any()):
        raise ValueError("attention_mask: with a cache, padding may stand at the ends of rows only")
    return last


def mix_cached(mixer: Mixer, hidden: Tensor, span: Span, layer: int) -> Tensor:
    """What :class:`Mixer` computes, from and into the cache.

    Args:
        mixer: The layer's mixer.
        hidden: (batch, length, hidden_size).
        span: The pass.
        layer: Number of the layer.
    """
    gate, xbc, dt = torch.split(mixer.in_proj(hidden), mixer.splits, dim=-1)
    window = _extend_window(mixer, xbc, span, layer)
    weight = mixer.conv1d.weight.squeeze(1)
    state = span.cache.states[layer]
    if hidden.shape[1] == 1 and state is not None:
        mixed = silu(convolve_last(window, weight, mixer.conv1d.bias))
        y = step_state(mixer, mixer.scan_inputs(mixed[:, None], dt), state)
    else:
        mixed = silu(convolve(window, weight, mixer.conv1d.bias, None)[:, weight.shape[1] - 1 :])
        y, span.cache.states[layer] = scan(
            mixer.scan_inputs(mixed, dt),
            chunk_size=mixer.config.chunk_size,
            dt_limit=mixer.dt_limit,
            carry=Carry(state, span.keep),
        )
    eps, groups = mixer.config.layer_norm_epsilon, mixer.config.n_groups
    out: Tensor = mixer.out_proj(gated_norm(y.flatten(2), gate, mixer.norm.weight, eps, groups))
    return out


def _extend_window(mixer: Mixer, xbc: Tensor, span: Span, layer: int) -> Tensor:
    """Inputs (batch, width - 1 + length, channels) of the convolution; the cache keeps the last."""
    kept = mixer.conv1d.kernel_size[0] - 1
    if span.keep is not None:
        xbc = xbc * span.keep[..., None]
    before = span.cache.convolutions[layer]
    if before is None:
        before = xbc.new_zeros(xbc.shape[0], kept, xbc.shape[2])
    window = torch.cat([before, xbc], dim=1)
    if span.last is None:
        span.cache.convolutions[layer] = window[:, window.shape[1] - kept :]
    else:
        places = span.last[:, None] + 1 + torch.arange(kept, device=xbc.device)
        places = places[..., None].expand(-1, -1, xbc.shape[2])
        span.cache.convolutions[layer] = window.gather(1, places)
    return window


def convolve_last(window: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(batch, channels) outputs at the window's last token."""
    y = (window * weight.to(window.dtype).t()).sum(1)
    return y if bias is None else y + bias.to(window.dtype)


def step_state(mixer: Mixer, inputs: ScanInputs, state: Tensor) -> Tensor:
    """Advance the state in place by one token; outputs (batch, 1, heads, head_dim)."""
    groups = inputs.B.shape[2]
    step = discretise(inputs.dt[:, 0], inputs.dt_bias, mixer.dt_limit).to(state.dtype)
    x = inputs.x[:, 0].to(state.dtype)
    grouped = torch.unflatten(state, 1, (groups, -1))  # (batch, groups, heads a group, p, n)
    state *= torch.exp(step * inputs.A.to(state.dtype))[..., None, None]
    scaled = torch.unflatten(x * step[..., None], 1, (groups, -1))
    grouped.addcmul_(scaled[..., None], inputs.B[:, 0, :, None, None].to(state.dtype))
    query = inputs.C[:, 0, :, :, None].to(state.dtype)
    y = torch.unflatten(grouped.flatten(2, 3) @ query, 2, (-1, x.shape[-1]))
    y = torch.addcmul(y.squeeze(-1).flatten(1, 2), x, inputs.D.to(state.dtype)[:, None])
    return y[:, None].to(inputs.x.dtype)
