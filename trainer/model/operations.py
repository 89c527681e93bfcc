"""What a block computes besides matrix products, by backend; and these operations in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from pipeline.errors import ConfigError
from trainer.model.scan import ScanInputs, scan

BACKENDS = ("torch", "triton", "split")


@dataclass(frozen=True, slots=True)
class Operations:
    """One backend's operations; all are differentiable and keep documents apart."""

    causal_conv1d: Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]
    """(x, weight, bias, seq_idx) → convolution and SiLU, like ``x`` (batch, length, channels)."""
    gated_norm: Callable[[Tensor, Tensor, Tensor, float, int], Tensor]
    """(x, gate, weight, eps, num_groups) → RMS norm of ``x * silu(gate)`` in each group."""
    add_norm: Callable[..., tuple[Tensor, Tensor]]
    """(x, residual, weight, eps, residual_dtype=) → (norm of the sum, the sum)."""
    normalise: Callable[..., Tensor]
    """(total, weight, eps, dtype=) → add_norm's norm of a sum it gave; not differentiable."""
    chunk_scan: Callable[..., Tensor]
    """(x, dt, A, B, C, D, dt_bias, chunk_size=, seq_idx=, dt_limit=) → y like ``x``."""
    fused_mixer: Callable[..., Tensor] | None = None
    """mamba-ssm's convolution, scan, gated norm and output projection in one operation."""
    mix: Callable[..., Tensor] | None = None
    """Our convolution, scan and gated norm in one operation that saves memory and copies."""


def load_operations(backend: str) -> Operations:
    """The operations of a backend.

    Raises:
        ConfigError: An unknown backend, or its packages are missing.
    """
    if backend == "torch":
        return Operations(causal_conv1d, gated_norm, add_norm, normalise, _scan_in_torch)
    if backend not in BACKENDS:
        raise ConfigError(f"unknown backend {backend!r}", hint=f"use one of {', '.join(BACKENDS)}")
    from trainer.kernels.availability import require

    require(backend)
    from trainer.kernels import convolution, mamba_scan, norms
    from trainer.kernels.mixer import mix

    fused = None
    if backend == "split":
        from mamba_ssm.ops.triton.ssd_combined import mamba_split_conv1d_scan_combined

        fused = mamba_split_conv1d_scan_combined
    return Operations(
        convolution.causal_conv1d,
        norms.gated_norm,
        norms.add_norm,
        norms.normalise,
        mamba_scan.chunk_scan,
        fused,
        mix if backend == "triton" else None,
    )


def _scan_in_torch(*inputs: Tensor, **options: Any) -> Tensor:
    return scan(ScanInputs(*inputs), **options)[0]


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor | None = None
) -> Tensor:
    """SiLU of a depthwise causal convolution that sees no token of another document.

    Args:
        x: (batch, length, channels), any strides.
        weight: (channels, width).
        bias: (channels,) or none.
        seq_idx: (batch, length) int, the number of each token's document, or none.
    """
    return silu(convolve(x, weight, bias, seq_idx))


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor | None) -> Tensor:
    """The convolution of :func:`causal_conv1d` before its SiLU."""
    y: Tensor = _CausalConvolution.apply(x, weight.to(x.dtype), bias, seq_idx)  # type: ignore[no-untyped-call]
    return y


class _CausalConvolution(torch.autograd.Function):
    """Sum of shifted products: in this layout several times faster on a CPU than ``conv1d``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight, seq_idx)
        ctx.bias_dtype = None if bias is None else bias.dtype
        y = x * weight[:, -1]
        if bias is not None:
            y += bias.to(x.dtype)
        for shift, tap in _taps(x, weight):
            y[:, shift:].addcmul_(_visible(x[:, :-shift], seq_idx, shift), tap)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, seq_idx = ctx.saved_tensors
        dx, dweight = dy * weight[:, -1], torch.zeros_like(weight)
        dweight[:, -1] = (dy * x).sum((0, 1))
        for shift, tap in _taps(x, weight):
            seen = _visible(dy[:, shift:], seq_idx, shift)
            dx[:, :-shift].addcmul_(seen, tap)
            dweight[:, -1 - shift] = (seen * x[:, :-shift]).sum((0, 1))
        dbias = None if ctx.bias_dtype is None else dy.sum((0, 1)).to(ctx.bias_dtype)
        return dx, dweight, dbias, None


def _taps(x: Tensor, weight: Tensor) -> list[tuple[int, Tensor]]:
    """Weights (channels,) of the tokens before, by distance; those beyond the row are left out."""
    width = min(weight.shape[1], x.shape[1])
    return [(shift, weight[:, -1 - shift]) for shift in range(1, width)]


def _visible(values: Tensor, seq_idx: Tensor | None, shift: int) -> Tensor:
    """Values of pairs (token, token ``shift`` later); zero where these are of two documents."""
    if seq_idx is None:
        return values
    other = seq_idx[:, shift:] != seq_idx[:, :-shift]
    return values.masked_fill(other[..., None], 0)


def gated_norm(x: Tensor, gate: Tensor, weight: Tensor, eps: float, num_groups: int) -> Tensor:
    """RMS norm of ``x * silu(gate)`` within each of ``num_groups`` parts of the channels.

    Args:
        x: (batch, length, channels).
        gate: Like ``x``.
        weight: (channels,).
        eps: Added to the mean square.
        num_groups: Divides the channels.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    values = x.to(dtype) * silu(gate.to(dtype))
    grouped = torch.unflatten(values, -1, (num_groups, -1))
    scale = torch.rsqrt(grouped.square().mean(-1, keepdim=True) + eps)
    normed = (grouped * scale).flatten(-2) * weight.to(dtype)
    return normed.to(x.dtype)


def add_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, *, residual_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Add a block's output to the residual stream and normalise the sum.

    Args:
        x: (batch, length, channels), a block's output or the embeddings.
        residual: Like ``x``; none before the first block.
        weight: (channels,).
        eps: Added to the mean square.
        residual_dtype: Of the residual stream.

    Returns:
        The norm in ``x``'s dtype, and the sum in ``residual_dtype``.
    """
    dtype = torch.promote_types(x.dtype, residual_dtype)
    total = (x.to(dtype) if residual is None else residual.to(dtype) + x).to(residual_dtype)
    return _normalise(total, weight, eps, x.dtype), total


@torch.no_grad()
def normalise(total: Tensor, weight: Tensor, eps: float, *, dtype: torch.dtype) -> Tensor:
    """The norm that :func:`add_norm` gave with this sum, computed again; not differentiable.

    Args:
        total: (batch, length, channels), the sum.
        weight: (channels,).
        eps: Added to the mean square.
        dtype: Of the result.
    """
    return _normalise(total, weight, eps, dtype)


def _normalise(total: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    values = total.to(torch.promote_types(total.dtype, torch.float32))
    scale = torch.rsqrt(values.square().mean(-1, keepdim=True) + eps)
    return (values * scale * weight.to(values.dtype)).to(dtype)
