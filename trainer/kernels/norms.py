"""RMSNorms of the Mamba-2 block: gated and grouped, and residual addition with norm in one pass.

Each kernel reads every input once and writes every output once; statistics and products are
float32 whatever the tensors are. Backward recomputes the row's statistics from the inputs it needs
anyway. Weight gradients leave as one partial sum per program and are added in a fixed order, so
that the same input gives the same bits.

The formulas are those of transformers' ``MambaRMSNormGated`` (gate first, then norm per group) and
``Mamba2RMSNorm``; only the rounding to the activation dtype happens once instead of twice.
"""

from __future__ import annotations

from typing import Any

import torch
import triton

from trainer.kernels.norm_kernels import (
    add_backward_kernel,
    add_forward_kernel,
    gated_backward_kernel,
    gated_forward_kernel,
)

_TILE = 2048
"""Elements a program of 4 warps holds of each tensor: 16 a thread."""
_PROGRAMS = 2048
"""Programs of a backward pass: about four waves on 132 multiprocessors."""
_MAX_PARTIALS = 512


def normalise_gated(
    x: torch.Tensor, gate: torch.Tensor, weight: torch.Tensor, eps: float, num_groups: int
) -> torch.Tensor:
    """Forward without autograd; arguments as in :func:`gated_norm`."""
    rows, gates = _as_rows(x), _as_rows(gate)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    size = x.shape[-1] // num_groups
    tile, columns, warps = _choose_tile(size)
    with torch.cuda.device_of(x):
        gated_forward_kernel[(triton.cdiv(rows.shape[0], tile) * num_groups,)](
            rows, gates, weight, y, rows.shape[0], num_groups, size,
            rows.stride(0), gates.stride(0), x.shape[-1], eps,
            ROWS=tile, COLUMNS=columns, num_warps=warps, num_stages=1,
        )  # fmt: skip
    return y


def differentiate_gated(
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    dy: torch.Tensor,
    eps: float,
    num_groups: int,
    *,
    dgate: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the gated norm of ``inputs`` = (x, gate, weight).

    Writes the gate's gradient into ``dgate``, which may be a slice with any row stride, and
    returns dx (contiguous, in x's dtype) and the weight's gradient in float32.
    """
    x, gate, weight = inputs
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if x.numel() == 0:
        return dx, torch.zeros(weight.shape, dtype=torch.float32, device=x.device)
    rows, gates, dys, dgates = _as_rows(x), _as_rows(gate), _as_rows(dy), _as_rows(dgate)
    if dgates.data_ptr() != dgate.data_ptr():
        raise ValueError("dgate must have rows at one stride: it is written in place")
    size = x.shape[-1] // num_groups
    tile, columns, warps = _choose_tile(size)
    blocks, per_program = _divide(rows.shape[0], tile, num_groups)
    partial = torch.empty(blocks, x.shape[-1], dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        gated_backward_kernel[(blocks * num_groups,)](
            rows, gates, weight, dys, dx, dgates, partial,
            rows.shape[0], num_groups, size, per_program,
            rows.stride(0), gates.stride(0), dys.stride(0), x.shape[-1], dgates.stride(0), eps,
            ROWS=tile, COLUMNS=columns, num_warps=warps, num_stages=1,
        )  # fmt: skip
    return dx, partial.sum(0)


class _GatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
        x, gate, weight, eps, num_groups = inputs
        ctx.save_for_backward(x, gate, weight)
        ctx.options = (eps, num_groups)
        return normalise_gated(x, gate, weight, eps, num_groups)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, gate, weight = ctx.saved_tensors
        dgate = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
        dx, dweight = differentiate_gated((x, gate, weight), dy, *ctx.options, dgate=dgate)
        return dx, dgate, dweight.to(weight.dtype), None, None


def gated_norm(
    x: torch.Tensor, gate: torch.Tensor, weight: torch.Tensor, eps: float, num_groups: int
) -> torch.Tensor:
    """``norm(x * silu(gate)) * weight`` with the norm taken per group of channels.

    Args:
        x: (..., channels), float32, bfloat16 or float16.
        gate: As x; a slice of a projection is taken as it is when its rows have one stride.
        weight: (channels,).
        eps: Added to the mean square.
        num_groups: Groups that the channels are divided into; each has its own mean square.

    Returns:
        (..., channels) in x's dtype, contiguous.

    Raises:
        ValueError: Shapes that do not fit, or channels that the groups do not divide.
    """
    channels = x.shape[-1]
    if gate.shape != x.shape or weight.shape != (channels,) or channels % num_groups:
        raise ValueError(
            f"x {tuple(x.shape)}, gate {tuple(gate.shape)} and weight {tuple(weight.shape)} with "
            f"{num_groups} groups do not fit"
        )
    result: torch.Tensor = _GatedNorm.apply(x, gate, weight, eps, num_groups)
    return result


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        x, residual, weight, eps, residual_dtype = inputs
        ctx.set_materialize_grads(False)
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        total = torch.empty(x.shape, dtype=residual_dtype, device=x.device)
        _add_and_normalise((x, residual, weight), eps, y, total)
        ctx.save_for_backward(total, weight)
        ctx.eps = eps
        ctx.dtypes = (x.dtype, None if residual is None else residual.dtype)
        return y, total

    @staticmethod
    def backward(
        ctx: Any, dy: torch.Tensor | None, dtotal: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        total, weight = ctx.saved_tensors
        x_dtype, residual_dtype = ctx.dtypes
        if dy is None:
            if dtotal is None:
                return None, None, None, None, None
            dresidual = None if residual_dtype is None else dtotal.to(residual_dtype)
            return dtotal.to(x_dtype), dresidual, None, None, None
        dx = torch.empty(total.shape, dtype=x_dtype, device=total.device)
        is_split = residual_dtype not in (None, x_dtype)
        dresidual = (
            torch.empty(total.shape, dtype=residual_dtype, device=dx.device) if is_split else dx
        )
        dweight = _differentiate_added((total, weight), (dy, dtotal), ctx.eps, (dx, dresidual))
        return (
            dx,
            None if residual_dtype is None else dresidual,
            dweight.to(weight.dtype),
            None,
            None,
        )


def _add_and_normalise(
    inputs: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor],
    eps: float,
    y: torch.Tensor,
    total: torch.Tensor | None,
) -> None:
    """Write the norm of the sum into ``y`` and, where wanted, the sum into ``total``."""
    x, residual, weight = inputs
    rows, size = _as_rows(x), x.shape[-1]
    if y.numel() == 0:
        return
    tile, columns, warps = _choose_tile(size)
    with torch.cuda.device_of(x):
        add_forward_kernel[(triton.cdiv(rows.shape[0], tile),)](
            rows, None if residual is None else residual.contiguous(), weight, y, total,
            rows.shape[0], size, rows.stride(0), eps,
            HAS_RESIDUAL=residual is not None, KEEPS_TOTAL=total is not None,
            ROWS=tile, COLUMNS=columns, num_warps=warps, num_stages=1,
        )  # fmt: skip


def normalise(
    total: torch.Tensor, weight: torch.Tensor, eps: float, *, dtype: torch.dtype
) -> torch.Tensor:
    """The norm that :func:`add_norm` gave with this sum, computed again; not differentiable.

    Args:
        total: (..., channels), the sum.
        weight: (channels,).
        eps: Added to the mean square.
        dtype: Of the result.
    """
    y = torch.empty(total.shape, dtype=dtype, device=total.device)
    _add_and_normalise((total, None, weight), eps, y, None)
    return y


def _differentiate_added(
    saved: tuple[torch.Tensor, torch.Tensor],
    gradients: tuple[torch.Tensor, torch.Tensor | None],
    eps: float,
    out: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Write dx and dresidual (``out``, possibly one tensor) and return the weight's gradient."""
    total, weight = saved
    dy, dtotal = gradients
    if total.numel() == 0:
        return torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
    rows = _as_rows(total)
    tile, columns, warps = _choose_tile(total.shape[-1])
    blocks, per_program = _divide(rows.shape[0], tile, 1)
    partial = torch.empty(blocks, total.shape[-1], dtype=torch.float32, device=total.device)
    with torch.cuda.device_of(total):
        add_backward_kernel[(blocks,)](
            total, weight, dy.contiguous(), None if dtotal is None else dtotal.contiguous(),
            out[0], out[1], partial, rows.shape[0], total.shape[-1], per_program, eps,
            HAS_TOTAL=dtotal is not None, SPLIT=out[1] is not out[0],
            ROWS=tile, COLUMNS=columns, num_warps=warps, num_stages=1,
        )  # fmt: skip
    return partial.sum(0)


def add_norm(
    x: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    eps: float,
    *,
    residual_dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add to the residual stream and normalise the sum, in one pass.

    Args:
        x: (..., channels), the block's output (or the embeddings, at the first block).
        residual: (..., channels) in any float dtype; None at the first block.
        weight: (channels,) of the RMSNorm.
        eps: Added to the mean square.
        residual_dtype: dtype that the stream is kept in, float32 or x's.

    Returns:
        The norm of the sum in x's dtype, and the sum in ``residual_dtype``.

    Raises:
        ValueError: Shapes that do not fit.
    """
    fits = residual is None or residual.shape == x.shape
    if not fits or weight.shape != (x.shape[-1],):
        raise ValueError(
            f"x {tuple(x.shape)}, residual {None if residual is None else tuple(residual.shape)} "
            f"and weight {tuple(weight.shape)} do not fit"
        )
    normed, total = _AddNorm.apply(x, residual, weight, eps, residual_dtype)
    return normed, total


def _as_rows(x: torch.Tensor) -> torch.Tensor:
    """(rows, channels) with contiguous channels: a view where rows have one stride, else a copy."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(-1) == 1 else rows.contiguous()


def _choose_tile(size: int) -> tuple[int, int, int]:
    """Rows and columns of a tile, and its warps: 16 elements of each tensor a thread."""
    columns = triton.next_power_of_2(size)
    rows = max(1, _TILE // columns)
    return rows, columns, max(4, min(16, rows * columns // 512))


def _divide(num_rows: int, tile: int, num_groups: int) -> tuple[int, int]:
    """Programs along the rows of a backward pass, and rows of each (a multiple of the tile)."""
    wanted = min(_MAX_PARTIALS, max(1, _PROGRAMS // num_groups), triton.cdiv(num_rows, tile))
    per_program = triton.cdiv(triton.cdiv(num_rows, wanted), tile) * tile
    return triton.cdiv(num_rows, per_program), per_program
