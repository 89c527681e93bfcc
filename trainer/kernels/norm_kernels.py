"""The Triton kernels of ``trainer.kernels.norms``: tiles of whole rows, statistics in float32."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gated_forward_kernel(
    x, gate, weight, y, num_rows, num_groups, group_size, x_row, gate_row, y_row, eps,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Norm of x * silu(gate), in one group of some rows."""
    group = tl.program_id(0) % num_groups
    rows = (tl.program_id(0) // num_groups) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    inside = columns < group_size
    mask = (rows < num_rows)[:, None] & inside[None, :]
    rows = rows.to(tl.int64)[:, None]
    columns = (group * group_size + columns)[None, :]
    h = tl.load(x + rows * x_row + columns, mask=mask, other=0.0).to(tl.float32)
    z = tl.load(gate + rows * gate_row + columns, mask=mask, other=0.0).to(tl.float32)
    w = tl.load(weight + columns, mask=inside[None, :], other=0.0).to(tl.float32)
    h *= z * tl.sigmoid(z)
    scale = tl.rsqrt(tl.sum(h * h, axis=1) / group_size + eps)
    out = h * scale[:, None] * w
    tl.store(y + rows * y_row + columns, out.to(y.dtype.element_ty), mask=mask)


@triton.jit
def gated_backward_kernel(
    x, gate, weight, dy, dx, dgate, partial,
    num_rows, num_groups, group_size, rows_per_program,
    x_row, gate_row, dy_row, dx_row, dgate_row, eps,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of one group of the rows of a program, tile by tile."""
    group = tl.program_id(0) % num_groups
    block = tl.program_id(0) // num_groups
    columns = tl.arange(0, COLUMNS)
    inside = columns < group_size
    columns = (group * group_size + columns)[None, :]
    w = tl.load(weight + columns, mask=inside[None, :], other=0.0).to(tl.float32)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(0, rows_per_program, ROWS):
        rows = block * rows_per_program + start + tl.arange(0, ROWS)
        mask = (rows < num_rows)[:, None] & inside[None, :]
        rows = rows.to(tl.int64)[:, None]
        a = tl.load(x + rows * x_row + columns, mask=mask, other=0.0).to(tl.float32)
        z = tl.load(gate + rows * gate_row + columns, mask=mask, other=0.0).to(tl.float32)
        g = tl.load(dy + rows * dy_row + columns, mask=mask, other=0.0).to(tl.float32)
        s = tl.sigmoid(z)
        silu = z * s
        h = a * silu
        scale = tl.rsqrt(tl.sum(h * h, axis=1) / group_size + eps)[:, None]
        along = tl.sum(h * g * w, axis=1)[:, None] * scale * scale / group_size
        total += g * h * scale
        dh = (g * w - h * along) * scale
        out = (dh * silu).to(dx.dtype.element_ty)
        tl.store(dx + rows * dx_row + columns, out, mask=mask)
        out = (dh * a * s * (1.0 + z * (1.0 - s))).to(dgate.dtype.element_ty)
        tl.store(dgate + rows * dgate_row + columns, out, mask=mask)
    partial += block.to(tl.int64) * num_groups * group_size
    tl.store(partial + columns, tl.sum(total, axis=0)[None, :], mask=inside[None, :])


@triton.jit
def add_forward_kernel(
    x, residual, weight, y, total, num_rows, size, x_row, eps,
    HAS_RESIDUAL: tl.constexpr, KEEPS_TOTAL: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sum of x and residual and the norm of it, for some whole rows."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    inside = columns < size
    mask = (rows < num_rows)[:, None] & inside[None, :]
    rows = rows.to(tl.int64)[:, None]
    columns = columns[None, :]
    h = tl.load(x + rows * x_row + columns, mask=mask, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        h += tl.load(residual + rows * size + columns, mask=mask, other=0.0).to(tl.float32)
    if KEEPS_TOTAL:
        rounded = h.to(total.dtype.element_ty)
        tl.store(total + rows * size + columns, rounded, mask=mask)
        # The norm is of what is stored, so that backward can start from it.
        h = rounded.to(tl.float32)
    w = tl.load(weight + columns, mask=inside[None, :], other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(h * h, axis=1) / size + eps)
    out = h * scale[:, None] * w
    tl.store(y + rows * size + columns, out.to(y.dtype.element_ty), mask=mask)


@triton.jit
def add_backward_kernel(
    total, weight, dy, dtotal, dx, dresidual, partial, num_rows, size, rows_per_program, eps,
    HAS_TOTAL: tl.constexpr, SPLIT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of the rows of a program; dx and dresidual may be one tensor."""
    columns = tl.arange(0, COLUMNS)
    inside = columns < size
    columns = columns[None, :]
    w = tl.load(weight + columns, mask=inside[None, :], other=0.0).to(tl.float32)
    sums = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(0, rows_per_program, ROWS):
        rows = tl.program_id(0) * rows_per_program + start + tl.arange(0, ROWS)
        mask = (rows < num_rows)[:, None] & inside[None, :]
        offsets = rows.to(tl.int64)[:, None] * size + columns
        h = tl.load(total + offsets, mask=mask, other=0.0).to(tl.float32)
        g = tl.load(dy + offsets, mask=mask, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(h * h, axis=1) / size + eps)[:, None]
        along = tl.sum(h * g * w, axis=1)[:, None] * scale * scale / size
        sums += g * h * scale
        dh = (g * w - h * along) * scale
        if HAS_TOTAL:
            dh += tl.load(dtotal + offsets, mask=mask, other=0.0).to(tl.float32)
        tl.store(dx + offsets, dh.to(dx.dtype.element_ty), mask=mask)
        if SPLIT:
            tl.store(dresidual + offsets, dh.to(dresidual.dtype.element_ty), mask=mask)
    partial += tl.program_id(0).to(tl.int64) * size
    tl.store(partial + columns, tl.sum(sums, axis=0)[None, :], mask=inside[None, :])
