"""Gradients of the scan's scores and of the decays within a chunk, in one pass over the heads.

mamba-ssm multiplies dy by x twice for them: once for the gradient of ``C B^T`` summed over the
heads of a group, and again, with prefix sums over whole tiles, for that of the decay. Here one
product serves both. With ``W[m, n]`` a head's gradient of the logarithm of the decay from row n to
row m > n, the gradient of the running sum of decays at row t is row sum t minus column sum t of W;
both come from the same float32 values, so that what cancels in the sum from the end does cancel.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_BLOCK = 64
_WARPS = 4
_STAGES = 3


@triton.jit
def _clear(pointers, count, stride, mask, BLOCK: tl.constexpr):
    """Zeros for the sums of so many heads."""
    for head in range(count):
        tl.store(pointers + head * stride, tl.zeros((BLOCK,), dtype=tl.float32), mask=mask)


@triton.jit
def _match(documents, m, n, limit):
    """Which pairs of rows are of one document."""
    here = tl.load(documents + m, mask=m < limit, other=-1)
    there = tl.load(documents + n, mask=n < limit, other=-2)
    return here[:, None] == there[None, :]


@triton.jit
def _multiply(dy, x, columns, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """Products of the tile's rows of dy with its rows of x."""
    if WIDTH == COLUMNS:
        product = tl.dot(tl.load(dy), tl.trans(tl.load(x)))
    else:
        inside = (columns < WIDTH)[None, :]
        left = tl.load(dy, mask=inside, other=0.0)
        product = tl.dot(left, tl.trans(tl.load(x, mask=inside, other=0.0)))
    return product


@triton.jit
def _weigh(decay, dt, m, n, CHUNK: tl.constexpr):
    """Step of row n times what of it is left at row m."""
    from_start = tl.load(decay + m, mask=m < CHUNK, other=0.0)
    to_start = tl.load(decay + n, mask=n < CHUNK, other=0.0)
    step = tl.load(dt + n, mask=n < CHUNK, other=0.0)
    # Above the diagonal the difference is positive and without meaning: kept from overflowing.
    return step[None, :] * tl.exp(tl.minimum(from_start[:, None] - to_start[None, :], 0.0))


@triton.jit
def _score_gradient_kernel(
    x, dy, scores, dt, decay, documents, dscores, row_sums, column_sums,
    length, num_chunks, num_heads, heads_per_group,
    x_batch, x_row, dy_batch, dy_row, documents_batch,
    CHUNK: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    TILES: tl.constexpr, HAS_DOCUMENTS: tl.constexpr,
):  # fmt: skip
    """One tile of one group's (CHUNK, CHUNK) matrix; rows are dy's, columns x's."""
    tile_m = tl.program_id(0) // TILES
    tile_n = tl.program_id(0) % TILES
    batch = (tl.program_id(1) // num_chunks).to(tl.int64)
    chunk = tl.program_id(1) % num_chunks
    group = tl.program_id(2)
    m = tile_m * BLOCK + tl.arange(0, BLOCK)
    n = tile_n * BLOCK + tl.arange(0, BLOCK)
    inside = (m < CHUNK)[:, None] & (n < CHUNK)[None, :]
    matrix = (batch * num_chunks + chunk) * tl.num_programs(2) + group
    offsets = matrix * CHUNK * CHUNK + m[:, None] * CHUNK + n[None, :]
    head = group * heads_per_group
    # (batch, heads, chunks, CHUNK), and the same with one row of sums a tile.
    line = (batch * num_heads + head) * num_chunks + chunk
    row_sums += (line * TILES + tile_n) * CHUNK + m
    column_sums += (line * TILES + tile_m) * CHUNK + n
    if tile_n > tile_m:
        zero = tl.zeros((BLOCK, BLOCK), dtype=dscores.dtype.element_ty)
        tl.store(dscores + offsets, zero, mask=inside)
        stride = num_chunks * TILES * CHUNK
        _clear(row_sums, heads_per_group, stride, m < CHUNK, BLOCK)
        _clear(column_sums, heads_per_group, stride, n < CHUNK, BLOCK)
        return
    first = chunk * CHUNK
    limit = min(CHUNK, length - first)
    columns = tl.arange(0, COLUMNS)
    # Rows past the sequence are read as its last one: their steps are zero and their scores are
    # masked, which costs less than a mask on every load.
    seen = inside & (m[:, None] > n[None, :]) & (m < limit)[:, None]
    score = tl.load(scores + offsets, mask=seen, other=0.0).to(tl.float32)
    dy += batch * dy_batch + first.to(tl.int64) * dy_row + head * WIDTH
    x += batch * x_batch + first.to(tl.int64) * x_row + head * WIDTH
    dy += tl.minimum(m, limit - 1)[:, None] * dy_row + columns[None, :]
    x += tl.minimum(n, limit - 1)[:, None] * x_row + columns[None, :]
    decay, dt = decay + line * CHUNK, dt + line * CHUNK
    total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for _ in range(heads_per_group):
        product = _multiply(dy, x, columns, WIDTH, COLUMNS)
        product *= _weigh(decay, dt, m, n, CHUNK)
        total += product
        product *= score
        tl.store(row_sums, tl.sum(product, axis=1), mask=m < CHUNK)
        tl.store(column_sums, tl.sum(product, axis=0), mask=n < CHUNK)
        dy, x = dy + WIDTH, x + WIDTH
        decay, dt = decay + num_chunks * CHUNK, dt + num_chunks * CHUNK
        row_sums += num_chunks * TILES * CHUNK
        column_sums += num_chunks * TILES * CHUNK
    same = (m[:, None] >= n[None, :]) & (m < limit)[:, None]
    if HAS_DOCUMENTS:
        same = same & _match(documents + batch * documents_batch + first, m, n, limit)
    tl.store(
        dscores + offsets, tl.where(same, total, 0.0).to(dscores.dtype.element_ty), mask=inside
    )


def differentiate_scores(
    x: torch.Tensor,
    dy: torch.Tensor,
    scores: torch.Tensor,
    steps: tuple[torch.Tensor, torch.Tensor],
    seq_idx: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the scores and of the running sums of decays, as far as within chunks.

    Args:
        x: (batch, length, heads, head_dim), heads and channels contiguous.
        dy: The same.
        scores: (batch, chunks, groups, q, q) float32, zero between documents; contiguous.
        steps: Step sizes and running sums of decays, (batch, heads, chunks, q) float32.
        seq_idx: (batch, length) int32 or None.

    Returns:
        (batch, chunks, groups, q, q) in x's dtype, zero above the diagonal and between documents;
        (batch, heads, chunks, q) float32.
    """
    batch, length, heads, width = x.shape
    _, chunks, groups, chunk, _ = scores.shape
    block = max(16, min(_BLOCK, triton.next_power_of_2(chunk)))
    tiles = triton.cdiv(chunk, block)
    dscores = torch.empty_like(scores, dtype=x.dtype)
    sums = torch.empty(2, batch, heads, chunks, tiles, chunk, dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        _score_gradient_kernel[(tiles * tiles, chunks * batch, groups)](
            x, dy, scores, *steps, seq_idx, dscores, sums[0], sums[1],
            length, chunks, heads, heads // groups,
            x.stride(0), x.stride(1), dy.stride(0), dy.stride(1),
            0 if seq_idx is None else seq_idx.stride(0),
            CHUNK=chunk, WIDTH=width, COLUMNS=max(16, triton.next_power_of_2(width)), BLOCK=block,
            TILES=tiles, HAS_DOCUMENTS=seq_idx is not None, num_warps=_WARPS, num_stages=_STAGES,
        )  # fmt: skip
    rows, columns = sums.sum(-2)
    return dscores, rows - columns
