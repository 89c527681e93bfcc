"""The Triton kernels of ``trainer.kernels.convolution``.

Backward walks along time with the last rows in registers, so each pre-activation is computed once
and serves dx, dweight and dbias. A program owns some rows and reads three more on either side.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _load_row(pointers, time, first, length, mask, stride):
    """Row ``time`` relative to the program's ``first``; zero outside the sequence."""
    inside = (first + time >= 0) & (first + time < length)
    return tl.load(pointers + time * stride, mask=mask & inside, other=0.0)


@triton.jit
def _load_label(documents, time, first, length):
    """Label of a row's document. Rows outside the sequence have zero data, so any label will do."""
    inside = (first + time >= 0) & (first + time < length)
    return tl.load(documents + time, mask=inside, other=-1)


@triton.jit
def _load_labels(documents, time, first, length):
    """Labels of four rows."""
    return (
        _load_label(documents, time, first, length),
        _load_label(documents, time + 1, first, length),
        _load_label(documents, time + 2, first, length),
        _load_label(documents, time + 3, first, length),
    )


@triton.jit
def _load_taps(weight, channels, mask, WIDTH: tl.constexpr):
    """Weights of rows t, t-1, t-2, t-3; absent ones are zero."""
    w0 = tl.load(weight + channels * WIDTH + (WIDTH - 1), mask=mask, other=0.0).to(tl.float32)
    w1 = tl.load(weight + channels * WIDTH + (WIDTH - 2), mask=mask, other=0.0).to(tl.float32)
    w2 = tl.zeros_like(w0)
    w3 = tl.zeros_like(w0)
    if WIDTH > 2:
        w2 = tl.load(weight + channels * WIDTH + (WIDTH - 3), mask=mask, other=0.0).to(tl.float32)
    if WIDTH > 3:
        w3 = tl.load(weight + channels * WIDTH, mask=mask, other=0.0).to(tl.float32)
    return w0, w1, w2, w3


@triton.jit
def forward_kernel(
    x, weight, bias, documents, y,
    length, num_channels,
    x_batch, x_row, y_batch, y_row, documents_batch,
    WIDTH: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_DOCUMENTS: tl.constexpr,
    TIME: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """One tile of (TIME, CHANNELS) outputs; the rows before it come from the caches."""
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    first = tl.program_id(1) * TIME
    batch = tl.program_id(2).to(tl.int64)
    rows = tl.arange(0, TIME)
    time = first + rows
    channel_mask = channels < num_channels
    row_mask = time < length
    x += batch * x_batch + first.to(tl.int64) * x_row
    y += batch * y_batch + first.to(tl.int64) * y_row
    pointers = x + rows[:, None] * x_row + channels[None, :]

    same = row_mask & (time >= 1)
    w0, w1, w2, w3 = _load_taps(weight, channels, channel_mask, WIDTH)
    total = tl.load(pointers, mask=row_mask[:, None] & channel_mask[None, :], other=0.0)
    total = total.to(tl.float32) * w0[None, :]
    if HAS_BIAS:
        total += tl.load(bias + channels, mask=channel_mask, other=0.0).to(tl.float32)[None, :]
    if HAS_DOCUMENTS:
        documents += batch * documents_batch + time
        here = tl.load(documents, mask=row_mask, other=-1)
        before = tl.load(documents - 1, mask=same, other=-1)
        same = same & (here == before)
    past = tl.load(pointers - x_row, mask=same[:, None] & channel_mask[None, :], other=0.0)
    total += past.to(tl.float32) * w1[None, :]
    if WIDTH > 2:
        same = same & (time >= 2)
        if HAS_DOCUMENTS:
            here = before
            before = tl.load(documents - 2, mask=same, other=-1)
            same = same & (here == before)
        past = tl.load(pointers - 2 * x_row, mask=same[:, None] & channel_mask[None, :], other=0.0)
        total += past.to(tl.float32) * w2[None, :]
    if WIDTH > 3:
        same = same & (time >= 3)
        if HAS_DOCUMENTS:
            here = before
            before = tl.load(documents - 3, mask=same, other=-1)
            same = same & (here == before)
        past = tl.load(pointers - 3 * x_row, mask=same[:, None] & channel_mask[None, :], other=0.0)
        total += past.to(tl.float32) * w3[None, :]
    out = total * tl.sigmoid(total)
    pointers = y + rows[:, None] * y_row + channels[None, :]
    tl.store(pointers, out.to(y.dtype.element_ty), mask=row_mask[:, None] & channel_mask[None, :])


@triton.jit
def _load_four(pointers, time, first, length, mask, stride):
    """Four rows at once, so that their loads are in flight together."""
    return (
        _load_row(pointers, time, first, length, mask, stride),
        _load_row(pointers, time + 1, first, length, mask, stride),
        _load_row(pointers, time + 2, first, length, mask, stride),
        _load_row(pointers, time + 3, first, length, mask, stride),
    )


@triton.jit
def _store_row(pointers, value, time, first, length, mask, stride, ROWS: tl.constexpr):
    """Write row ``time`` if it is one of the program's own and exists."""
    inside = (time >= 0) & (time < ROWS) & (first + time < length)
    tl.store(pointers + time * stride, value.to(pointers.dtype.element_ty), mask=mask & inside)


@triton.jit
def _walk(row, labels, past, pending, taps, sums, is_own, HAS_DOCUMENTS: tl.constexpr):
    """One row of backward.

    Takes the row's (x, dy), the documents of it and of its three predecessors, the predecessors'
    x and their unfinished dx, the weights with the bias, and the sums of the weight gradients.
    Returns the finished dx of the third predecessor, the unfinished ones of the row and its first
    two, and the sums, to which only a program's own rows add.
    """
    x0 = row[0].to(tl.float32)
    x1 = past[0].to(tl.float32)
    x2 = past[1].to(tl.float32)
    x3 = past[2].to(tl.float32)
    k1 = labels[0] == labels[1]
    k2 = k1 & (labels[1] == labels[2])
    k3 = k2 & (labels[2] == labels[3])
    if HAS_DOCUMENTS:
        x1 = tl.where(k1, x1, 0.0)
        x2 = tl.where(k2, x2, 0.0)
        x3 = tl.where(k3, x3, 0.0)
    pre = taps[4] + taps[0] * x0 + taps[1] * x1 + taps[2] * x2 + taps[3] * x3
    gate = tl.sigmoid(pre)
    gradient = row[1].to(tl.float32) * gate * (1.0 + pre * (1.0 - gate))
    to1 = taps[1] * gradient
    to2 = taps[2] * gradient
    to3 = taps[3] * gradient
    if HAS_DOCUMENTS:
        to1 = tl.where(k1, to1, 0.0)
        to2 = tl.where(k2, to2, 0.0)
        to3 = tl.where(k3, to3, 0.0)
    own = tl.where(is_own, gradient, 0.0)
    sums = (
        sums[0] + own * x0, sums[1] + own * x1, sums[2] + own * x2, sums[3] + own * x3,
        sums[4] + own,
    )  # fmt: skip
    return pending[2] + to3, (taps[0] * gradient, pending[0] + to1, pending[1] + to2), sums


@triton.jit
def backward_kernel(
    x, dy, weight, bias, documents, dx, partial,
    length, num_channels,
    x_batch, x_row, dy_batch, dy_row, dx_batch, dx_row, documents_batch,
    WIDTH: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_DOCUMENTS: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Rows [first, first + ROWS) of dx, and their share of the weight gradients.

    Row t-3 of dx is complete when the pre-activation gradient of row t is known, so the walk ends
    three rows past its own; weight gradients of those belong to the next program.
    """
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    first = tl.program_id(1) * ROWS
    batch = tl.program_id(2).to(tl.int64)
    mask = channels < num_channels
    x += batch * x_batch + first.to(tl.int64) * x_row + channels
    dy += batch * dy_batch + first.to(tl.int64) * dy_row + channels
    dx += batch * dx_batch + first.to(tl.int64) * dx_row + channels
    w0, w1, w2, w3 = _load_taps(weight, channels, mask, WIDTH)
    zero = tl.zeros_like(w0)
    b = zero
    if HAS_BIAS:
        b += tl.load(bias + channels, mask=mask, other=0.0).to(tl.float32)
    taps = (w0, w1, w2, w3, b)
    _, p3, p2, p1 = _load_four(x, -4, first, length, mask, x_row)
    s1, s2, s3, n0, n1, n2, n3 = first, first, first, first, first, first, first
    if HAS_DOCUMENTS:
        documents += batch * documents_batch + first
        _, s3, s2, s1 = _load_labels(documents, -4, first, length)
    pending = (zero, zero, zero)
    sums = (zero, zero, zero, zero, zero)
    for time in range(0, ROWS + 4, 4):
        own = time < ROWS
        a0, a1, a2, a3 = _load_four(x, time, first, length, mask, x_row)
        y0, y1, y2, y3 = _load_four(dy, time, first, length, mask, dy_row)
        if HAS_DOCUMENTS:
            n0, n1, n2, n3 = _load_labels(documents, time, first, length)
        out, pending, sums = _walk(
            (a0, y0), (n0, s1, s2, s3), (p1, p2, p3), pending, taps, sums, own, HAS_DOCUMENTS
        )
        _store_row(dx, out, time - 3, first, length, mask, dx_row, ROWS)
        out, pending, sums = _walk(
            (a1, y1), (n1, n0, s1, s2), (a0, p1, p2), pending, taps, sums, own, HAS_DOCUMENTS
        )
        _store_row(dx, out, time - 2, first, length, mask, dx_row, ROWS)
        out, pending, sums = _walk(
            (a2, y2), (n2, n1, n0, s1), (a1, a0, p1), pending, taps, sums, own, HAS_DOCUMENTS
        )
        _store_row(dx, out, time - 1, first, length, mask, dx_row, ROWS)
        out, pending, sums = _walk(
            (a3, y3), (n3, n2, n1, n0), (a2, a1, a0), pending, taps, sums, own, HAS_DOCUMENTS
        )
        _store_row(dx, out, time, first, length, mask, dx_row, ROWS)
        p1, p2, p3 = a3, a2, a1
        s1, s2, s3 = n3, n2, n1
    partial += (batch * tl.num_programs(1) + tl.program_id(1)) * (WIDTH + 1) * num_channels
    _store_sums(partial + channels, sums, num_channels, mask, WIDTH)


@triton.jit
def _store_sums(pointers, sums, stride, mask, WIDTH: tl.constexpr):
    """Weight gradients in the order of the weight's columns, then the bias's."""
    tl.store(pointers + (WIDTH - 1) * stride, sums[0], mask=mask)
    tl.store(pointers + (WIDTH - 2) * stride, sums[1], mask=mask)
    if WIDTH > 2:
        tl.store(pointers + (WIDTH - 3) * stride, sums[2], mask=mask)
    if WIDTH > 3:
        tl.store(pointers, sums[3], mask=mask)
    tl.store(pointers + WIDTH * stride, sums[4], mask=mask)
