"""Convolution, scan and gated norm as one operation, which keeps the least for backward.

Kept are the projection it reads and the scan's output; the convolution is computed again in
backward (2 % of a step), and all gradients of the projection are written straight into slices of
one tensor: nothing is concatenated. For a block that is computed again in backward as a whole, the
scan's states and scores are kept as well: they live only until that block's backward, and are not
computed a third time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from trainer.kernels import convolution, norms
from trainer.kernels.mamba_scan import (
    Kept,
    ScanGradients,
    ScanOptions,
    ScanTensors,
    scan_backward,
    scan_forward,
)


class MixerWeights(NamedTuple):
    """The parameters of one layer's mixer, without its projections."""

    conv_weight: torch.Tensor
    """(inner + 2 * groups * state_size, width)."""
    conv_bias: torch.Tensor | None
    """(inner + 2 * groups * state_size,)."""
    dt_bias: torch.Tensor
    """(heads,)."""
    A: torch.Tensor
    """(heads,) float32, negative."""
    D: torch.Tensor
    """(heads,)."""
    norm_weight: torch.Tensor
    """(inner,)."""


@dataclass(frozen=True, slots=True)
class MixerShape:
    """What the tensors do not say; inner = heads * head_dim."""

    num_heads: int
    head_dim: int
    num_groups: int
    state_size: int
    eps: float
    """Of the gated norm."""
    scan: ScanOptions

    @property
    def parts(self) -> list[int]:
        """Columns of the projection: gate, convolution's input, dt."""
        inner = self.num_heads * self.head_dim
        return [inner, inner + 2 * self.num_groups * self.state_size, self.num_heads]

    def name_scan_inputs(
        self, convolved: torch.Tensor, dt: torch.Tensor, weights: MixerWeights
    ) -> ScanTensors:
        """The convolution's output as the scan reads it; views only."""
        x, B, C = self.split_channels(convolved)
        return ScanTensors(x, dt, weights.A, B, C, weights.D, weights.dt_bias)

    def split_channels(self, convolved: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Views x (batch, length, heads, head_dim), B and C (batch, length, groups, state)."""
        state = self.num_groups * self.state_size
        x, B, C = convolved.split([self.num_heads * self.head_dim, state, state], dim=-1)
        grouped = (self.num_groups, self.state_size)
        return (
            x.unflatten(-1, (self.num_heads, self.head_dim)),
            B.unflatten(-1, grouped),
            C.unflatten(-1, grouped),
        )


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> torch.Tensor:
        projected, *tensors, shape, seq_idx, keep = arguments
        weights = MixerWeights(*tensors)
        gate, mixed, dt = projected.split(shape.parts, dim=-1)
        convolved = convolution.convolve(mixed, weights.conv_weight, weights.conv_bias, seq_idx)
        inputs = shape.name_scan_inputs(convolved, dt, weights)
        y, kept = scan_forward(inputs, shape.scan, seq_idx)
        y = y.flatten(2)
        extra = (convolved, *(kept or ())) if keep else ()
        ctx.save_for_backward(projected, *weights, y, seq_idx, *extra)
        ctx.shape = shape
        return norms.normalise_gated(y, gate, weights.norm_weight, shape.eps, shape.num_groups)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        shape: MixerShape = ctx.shape
        projected, *rest = ctx.saved_tensors
        weights = MixerWeights(*rest[:6])
        y, seq_idx, *extra = rest[6:]
        gate, mixed, dt = projected.split(shape.parts, dim=-1)
        dprojected = torch.empty_like(projected)
        dgate, dmixed, ddt = dprojected.split(shape.parts, dim=-1)
        dy, dnorm = norms.differentiate_gated(
            (y, gate, weights.norm_weight), dy, shape.eps, shape.num_groups, dgate=dgate
        )
        if extra:
            convolved, kept = extra[0], Kept(*extra[1:]) if extra[1:] else None
        else:
            convolved, kept = (
                convolution.convolve(mixed, weights.conv_weight, weights.conv_bias, seq_idx),
                None,
            )
        dconvolved = torch.empty_like(convolved)
        dx, dB, dC = shape.split_channels(dconvolved)
        scan = scan_backward(
            dy.unflatten(-1, (shape.num_heads, shape.head_dim)),
            shape.name_scan_inputs(convolved, dt, weights),
            shape.scan,
            seq_idx,
            (ScanGradients(dx, ddt, dB, dC), kept),
        )
        dweight, dbias = convolution.differentiate(
            (mixed, weights.conv_weight, weights.conv_bias), seq_idx, dconvolved, dx=dmixed
        )
        found = (dweight, dbias, scan.dt_bias, scan.A, scan.D, dnorm)
        gradients = (
            None if weight is None else gradient.to(weight.dtype)
            for gradient, weight in zip(found, weights, strict=True)
        )
        return dprojected, *gradients, None, None, None


def mix(
    projected: torch.Tensor,
    weights: MixerWeights,
    shape: MixerShape,
    seq_idx: torch.Tensor | None = None,
    *,
    keep: bool = False,
) -> torch.Tensor:
    """What a Mamba-2 mixer does between its two projections.

    Args:
        projected: (batch, length, inner + channels + heads): gate, convolution's input and dt, as
            the input projection gives them; contiguous.
        weights: Parameters; differentiable, as is ``projected``.
        shape: How the columns are divided.
        seq_idx: (batch, length) int32, another label for each document of a row, or None.
        keep: Keep the convolution's output and the scan's states and scores for backward. About
            twice the memory of the rest; meant for blocks that are computed again in backward.

    Returns:
        (batch, length, inner), the output projection's input, in ``projected``'s dtype.

    Raises:
        ValueError: Shapes that do not fit.
        ConfigError: mamba-ssm is missing or has another version.
    """
    if projected.shape[-1] != sum(shape.parts) or not projected.is_contiguous():
        raise ValueError(
            f"projected must be contiguous with {sum(shape.parts)} columns, not "
            f"{tuple(projected.shape)} with strides {projected.stride()}"
        )
    mixed = projected.split(shape.parts, dim=-1)[1]
    convolution.check_convolution(mixed, weights.conv_weight, weights.conv_bias, seq_idx)
    result: torch.Tensor = _Mix.apply(projected, *weights, shape, seq_idx, keep)
    return result
