"""Depthwise causal convolution with SiLU that restarts at every document of a packed row.

``y[t] = silu(bias + sum_k weight[:, width-1-k] * x[t-k])`` over those ``k`` for which ``t-k`` and
``t`` lie in one document. The kernels move as few bytes as there are: forward reads x and writes
y, backward reads x and dy and writes dx, nothing in between is stored.

Weight gradients leave as one partial sum per segment of rows and are added in a fixed order: no
atomics, the same bits every time.
"""

from __future__ import annotations

from typing import Any

import torch
import triton

from trainer.kernels.convolution_kernels import backward_kernel, forward_kernel

MAX_WIDTH = 4
TIME_TILE = 32
CHANNEL_TILE = 128
TILE_WARPS = 4
"""Forward tile: with 128 threads each holds four rows of 8 neighbouring channels (16 bytes)."""
SEGMENT = 128
"""Rows a program of backward owns: 5 % halo, and partial sums of 1/13 of x's size."""
CHANNEL_VECTOR = 256
VECTOR_WARPS = 2
"""Channels a program of backward owns: 4 a thread, which keeps the walk within 128 registers."""


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    documents: torch.Tensor | None,
) -> torch.Tensor:
    """Forward without autograd; arguments as in :func:`causal_conv1d`."""
    batch, length, channels = x.shape
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    grid = (triton.cdiv(channels, CHANNEL_TILE), triton.cdiv(length, TIME_TILE), batch)
    with torch.cuda.device_of(x):
        forward_kernel[grid](
            x, weight, bias, documents, y, length, channels,
            x.stride(0), x.stride(1), y.stride(0), y.stride(1), _batch_stride(documents),
            WIDTH=weight.shape[1], HAS_BIAS=bias is not None, HAS_DOCUMENTS=documents is not None,
            TIME=TIME_TILE, CHANNELS=CHANNEL_TILE, num_warps=TILE_WARPS, num_stages=1,
        )  # fmt: skip
    return y


def differentiate(
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
    documents: torch.Tensor | None,
    dy: torch.Tensor,
    *,
    dx: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Backward of ``inputs`` = (x, weight, bias): writes dx, returns dweight and dbias in float32.

    ``dy`` and ``dx`` are (batch, length, channels) with contiguous channels and any row stride, so
    that ``dx`` can be a slice of a larger gradient. They must not overlap.
    """
    x, weight, bias = inputs
    batch, length, channels = x.shape
    width = weight.shape[1]
    segments = triton.cdiv(length, SEGMENT)
    shape = (batch * segments, width + 1, channels)
    if x.numel() == 0:
        return weight.new_zeros(weight.shape, dtype=torch.float32), weight.new_zeros(channels)
    partial = torch.empty(shape, dtype=torch.float32, device=x.device)
    grid = (triton.cdiv(channels, CHANNEL_VECTOR), segments, batch)
    with torch.cuda.device_of(x):
        backward_kernel[grid](
            x, dy, weight, bias, documents, dx, partial, length, channels,
            x.stride(0), x.stride(1), dy.stride(0), dy.stride(1), dx.stride(0), dx.stride(1),
            _batch_stride(documents),
            WIDTH=width, HAS_BIAS=bias is not None, HAS_DOCUMENTS=documents is not None,
            ROWS=SEGMENT, CHANNELS=CHANNEL_VECTOR, num_warps=VECTOR_WARPS, num_stages=1,
        )  # fmt: skip
    total = partial.sum(0)
    return total[:width].t().contiguous(), total[width]


class _CausalConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        documents: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, bias, documents)
        return convolve(x, weight, bias, documents)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, bias, documents = ctx.saved_tensors
        if dy.stride(-1) != 1:
            dy = dy.contiguous()
        dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        dweight, dbias = differentiate((x, weight, bias), documents, dy, dx=dx)
        return dx, dweight.to(weight.dtype), None if bias is None else dbias.to(bias.dtype), None


def causal_conv1d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    seq_idx: torch.Tensor | None = None,
) -> torch.Tensor:
    """Depthwise causal convolution along time, then SiLU; differentiable in x, weight and bias.

    Args:
        x: (batch, length, channels) float32, bfloat16 or float16; channels contiguous, rows at any
            stride (a slice of a projection is taken as it is).
        weight: (channels, width), width 2 to 4, any of these dtypes; the last column meets row t.
        bias: (channels,) or None.
        seq_idx: (batch, length) int32 label of each row's document, or None for one document a
            row. A change of label between neighbours is a boundary: nothing crosses it.

    Returns:
        (batch, length, channels) in x's dtype, contiguous; sums are taken in float32.

    Raises:
        ValueError: A shape, stride or dtype that the kernels cannot take.
    """
    check_convolution(x, weight, bias, seq_idx)
    result: torch.Tensor = _CausalConvolution.apply(x, weight, bias, seq_idx)
    return result


def check_convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    seq_idx: torch.Tensor | None,
) -> None:
    """Refuse what the kernels would read wrongly.

    Raises:
        ValueError: See :func:`causal_conv1d`.
    """
    if x.dim() != 3 or x.stride(-1) != 1:
        raise ValueError(
            f"x must be (batch, length, channels) with contiguous channels, not "
            f"{tuple(x.shape)} with strides {x.stride()}"
        )
    if weight.shape[0] != x.shape[-1] or not 2 <= weight.shape[1] <= MAX_WIDTH:
        raise ValueError(
            f"weight must be ({x.shape[-1]}, 2 to {MAX_WIDTH}), not {tuple(weight.shape)}"
        )
    if not weight.is_contiguous() or (bias is not None and bias.shape != (x.shape[-1],)):
        raise ValueError("weight must be contiguous and bias (channels,)")
    if seq_idx is None:
        return
    if seq_idx.shape != x.shape[:2] or seq_idx.dtype != torch.int32 or seq_idx.stride(-1) != 1:
        raise ValueError(
            f"seq_idx must be int32 {tuple(x.shape[:2])} with contiguous rows, not "
            f"{seq_idx.dtype} {tuple(seq_idx.shape)}"
        )


def _batch_stride(documents: torch.Tensor | None) -> int:
    return 0 if documents is None else documents.stride(0)
