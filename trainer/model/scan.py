"""Mamba-2's state-space scan in PyTorch: exact, chunked, with a fresh state for each document.

The recurrence of every head is ``S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T`` and
``y_t = S_t C_t + D x_t`` (Dao and Gu 2024, arXiv:2405.21060, section 6: within a chunk it is
attention with decay, between chunks the states are passed on). At the first token of a document
``S_{t-1}`` counts as zero. This is the reference that kernels are held against.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus
from torch.utils.checkpoint import checkpoint

_MAX_SCORES = 1 << 24
"""Entries of the (chunk, chunk) matrices of all heads alive at once; longer inputs are computed in
parts that backward computes again. 64 MiB in float32, of which a few copies exist."""


class _Chunks(NamedTuple):
    """Some chunks of a row: b batch, c chunks, q tokens of a chunk, g groups, h = g * r heads."""

    x: Tensor
    """(b, c, q, h, p), already times dt."""
    log_decay: Tensor
    """(b, c, q, h): dt * A, not positive."""
    B: Tensor
    """(b, c, q, g, n)."""
    C: Tensor
    """(b, c, q, g, n)."""
    documents: Tensor | None
    """(b, c, q) numbers of documents."""
    before: Tensor | None
    """(b,) number of the document that ``state`` belongs to."""
    state: Tensor | None
    """(b, h, p, n) before the first token; none is zero."""


class ScanInputs(NamedTuple):
    """What the scan of one layer reads."""

    x: Tensor
    """(batch, length, heads, head_dim)."""
    dt: Tensor
    """(batch, length, heads), before bias and softplus."""
    A: Tensor
    """(heads,), negative."""
    B: Tensor
    """(batch, length, groups, state_size)."""
    C: Tensor
    """(batch, length, groups, state_size)."""
    D: Tensor
    """(heads,)."""
    dt_bias: Tensor
    """(heads,)."""


class Carry(NamedTuple):
    """What a pass over a part of a row takes from the part before."""

    state: Tensor | None
    """(batch, heads, head_dim, state_size) before the first token; none is zero."""
    keep: Tensor | None
    """(batch, length) bool: tokens that are no padding; others leave the state as it is."""


def scan(
    inputs: ScanInputs,
    *,
    chunk_size: int,
    seq_idx: Tensor | None = None,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    carry: Carry | None = None,
) -> tuple[Tensor, Tensor]:
    """Outputs of the scan and the state after the last token.

    Args:
        inputs: Floating tensors on one device.
        chunk_size: Tokens computed at once; changes speed and rounding only.
        seq_idx: (batch, length) int, the number of each token's document; a change resets.
        dt_limit: Bounds of the step after softplus.
        carry: What a cached pass adds; by default rows start from zero and have no padding.

    Returns:
        y like ``x``, and the state in the precision of the computation: float32, or float64 for
        float64 inputs.
    """
    length, dtype = inputs.x.shape[1], torch.promote_types(inputs.x.dtype, torch.float32)
    size = max(1, min(chunk_size, length))
    x = inputs.x.to(dtype)
    step = discretise(inputs.dt, inputs.dt_bias, dt_limit)
    carry = carry or Carry(None, None)
    if carry.keep is not None:
        step = step * carry.keep[..., None]
    y, last = _scan_parts(
        _Chunks(
            x=_cut(x * step[..., None], size),
            # A step of 0 at the tokens added behind the last one leaves the state as it is.
            log_decay=_cut(step * inputs.A.to(dtype), size),
            B=_cut(inputs.B.to(dtype), size),
            C=_cut(inputs.C.to(dtype), size),
            documents=None if seq_idx is None else _cut_documents(seq_idx, size),
            before=None if seq_idx is None else seq_idx[:, 0],
            state=None if carry.state is None else carry.state.to(dtype),
        )
    )
    y = torch.addcmul(y.flatten(1, 2)[:, :length], x, inputs.D.to(dtype)[:, None])
    return y.to(inputs.x.dtype), last


def discretise(dt: Tensor, bias: Tensor, limit: tuple[float, float]) -> Tensor:
    """Step sizes, positive, in float32 or float64."""
    dtype = torch.promote_types(dt.dtype, torch.float32)
    step = softplus(dt.to(dtype) + bias.to(dtype))
    return step if tuple(limit) == (0.0, math.inf) else step.clamp(*limit)


def _cut(value: Tensor, size: int) -> Tensor:
    """(batch, length, ...) → (batch, chunks, size, ...), zeros added at the end."""
    missing = -value.shape[1] % size
    if missing:
        value = pad(value, (*([0, 0] * (value.ndim - 2)), 0, missing))
    return torch.unflatten(value, 1, (-1, size))


def _cut_documents(documents: Tensor, size: int) -> Tensor:
    missing = -documents.shape[1] % size
    if missing:
        documents = torch.cat([documents, documents[:, -1:].expand(-1, missing)], dim=1)
    return torch.unflatten(documents, 1, (-1, size))


def _scan_parts(cut: _Chunks) -> tuple[Tensor, Tensor]:
    """Scan all chunks at once, or in parts when their score matrices would be too large."""
    batch, num_chunks, size, heads = cut.log_decay.shape
    per_part = max(1, _MAX_SCORES // (batch * heads * size * size))
    if num_chunks <= per_part:
        return _scan_chunks(cut)
    outputs, part = [], cut
    for start in range(0, num_chunks, per_part):
        at = slice(start, start + per_part)
        documents = None if cut.documents is None else cut.documents[:, at]
        part = part._replace(
            x=cut.x[:, at],
            log_decay=cut.log_decay[:, at],
            B=cut.B[:, at],
            C=cut.C[:, at],
            documents=documents,
        )
        y, state = checkpoint(_scan_chunks, part, use_reentrant=False, preserve_rng_state=False)
        part = part._replace(
            state=state, before=None if documents is None else documents[:, -1, -1]
        )
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def _scan_chunks(cut: _Chunks) -> tuple[Tensor, Tensor]:
    """Outputs (b, c, q, heads, p) and the last state."""
    groups, width = cut.B.shape[3], cut.x.shape[-1]
    # Sums over a chunk grow to thousands while neighbours' difference decides: float64.
    total = cut.log_decay.transpose(2, 3).double().cumsum(dim=-1)  # (b, c, h, q)
    same = _Same(cut.documents, cut.before)
    values = cut.x.transpose(2, 3)  # (b, c, h, q, p)
    keys, queries = cut.B.transpose(2, 3), cut.C.transpose(2, 3)  # (b, c, g, q, n)
    y = _attend_within(total, values, keys, queries, same).transpose(2, 3)
    to_end = _mask_out((total[..., -1:] - total).to(values.dtype), same.with_end).exp()
    weighted = torch.unflatten(values * to_end[..., None], 2, (groups, -1))
    states = torch.unflatten(weighted.transpose(-1, -2).flatten(3, 4) @ keys, 3, (-1, width))
    starts, last = _pass_states(total[..., -1], states.flatten(2, 3), cut.state, same)
    if starts is None:
        return y, last
    # (b, c, g, q, n) @ (b, c, g, n, r * p), then each head's decay since the chunk's start.
    starts = torch.unflatten(starts, 2, (groups, -1)).flatten(3, 4)
    carried = queries @ starts.transpose(-1, -2)
    carried = torch.unflatten(carried, -1, (-1, width)).transpose(2, 3).flatten(3, 4)
    since = _mask_out(total.to(values.dtype), same.with_start).exp().transpose(2, 3)
    return torch.addcmul(y, carried, since[..., None]), last


class _Same:
    """Which pairs of places belong to the same document; none where all do."""

    def __init__(self, documents: Tensor | None, before: Tensor | None) -> None:
        self.within: Tensor | None = None
        """(b, c, 1, q, q)."""
        self.with_end: Tensor | None = None
        """(b, c, 1, q): with the chunk's last token."""
        self.with_start: Tensor | None = None
        """(b, c, 1, q): with the token before the chunk."""
        self.between: Tensor | None = None
        """(b, 1, c + 1, c + 1): the ends of chunks i and j, the place before the first included."""
        if documents is None or before is None:
            return
        ends = torch.cat([before[:, None], documents[:, :, -1]], dim=1)
        self.within = (documents[..., :, None] == documents[..., None, :])[:, :, None]
        self.with_end = (documents == ends[:, 1:, None])[:, :, None]
        self.with_start = (documents == ends[:, :-1, None])[:, :, None]
        self.between = (ends[:, :, None] == ends[:, None, :])[:, None]


def _mask_out(exponents: Tensor, same: Tensor | None) -> Tensor:
    return exponents if same is None else exponents.masked_fill(~same, -math.inf)


def _attend_within(
    total: Tensor, values: Tensor, keys: Tensor, queries: Tensor, same: _Same
) -> Tensor:
    """Outputs (b, c, h, q, p) caused by tokens of the same chunk."""
    size, groups = total.shape[-1], keys.shape[2]
    causal = torch.ones(size, size, dtype=torch.bool, device=total.device).tril()
    seen = causal if same.within is None else causal & same.within
    exponents = (total[..., :, None] - total[..., None, :]).to(values.dtype)
    decay = torch.unflatten(exponents.masked_fill(~seen, -math.inf).exp(), 2, (groups, -1))
    scores = decay * (queries @ keys.transpose(-1, -2))[:, :, :, None]
    return scores.flatten(2, 3) @ values


def _pass_states(
    total: Tensor, states: Tensor, state: Tensor | None, same: _Same
) -> tuple[Tensor | None, Tensor]:
    """States before each chunk (none if there is but one, from zero), and after the last.

    Args:
        total: (b, c, h) logarithm of each chunk's decay, float64.
        states: (b, c, h, p, n) that each chunk adds.
        state: (b, h, p, n) before the first chunk.
        same: Where documents end.
    """
    if state is None and states.shape[1] == 1:
        return None, states[:, 0]
    state = torch.zeros_like(states[:, 0]) if state is None else state
    states = torch.cat([state[:, None], states], dim=1)
    # Decay from the end of chunk j to the end of chunk i; index 0 is the place before the first.
    reach = pad(total, (0, 0, 1, 0)).cumsum(dim=1).transpose(1, 2)  # (b, h, c + 1)
    size = reach.shape[-1]
    seen = torch.ones(size, size, dtype=torch.bool, device=total.device).tril()
    if same.between is not None:
        seen = seen & same.between
    exponents = (reach[..., :, None] - reach[..., None, :]).to(states.dtype)
    decay = exponents.masked_fill(~seen, -math.inf).exp()
    passed = decay @ states.transpose(1, 2).flatten(3)
    passed = torch.unflatten(passed, -1, states.shape[-2:]).transpose(1, 2)
    return passed[:, :-1], passed[:, -1]
