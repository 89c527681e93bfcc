"""The chunked state-space scan of Mamba-2, by mamba-ssm's Triton kernels, step by step.

mamba-ssm's own entry computes the states and scores of all chunks again in backward and copies
what it returns. Here forward may keep them (:class:`Kept`), which pays when the block is computed
again in backward anyway, and backward writes into tensors that the caller owns, for example slices
of one gradient.

Under the interpreter (``TRITON_INTERPRET=1``) the steps are PyTorch's, so that tests on a CPU run
everything around them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from trainer.kernels.availability import is_interpreted, load_mamba


class ScanTensors(NamedTuple):
    """What the scan of one layer reads; any strides with contiguous last dimensions."""

    x: torch.Tensor
    """(batch, length, heads, head_dim)."""
    dt: torch.Tensor
    """(batch, length, heads), before bias and softplus."""
    A: torch.Tensor
    """(heads,) float32, negative."""
    B: torch.Tensor
    """(batch, length, groups, state_size)."""
    C: torch.Tensor
    """(batch, length, groups, state_size)."""
    D: torch.Tensor
    """(heads,)."""
    dt_bias: torch.Tensor
    """(heads,)."""


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """How to scan."""

    chunk_size: int
    dt_limit: tuple[float, float] = (0.0, math.inf)
    """Bounds of the step after softplus."""


class Kept(NamedTuple):
    """What forward can hand to backward, for chunks of ``q`` rows."""

    decay: torch.Tensor
    """(batch, heads, chunks, q) float32: running sums of dt * A within each chunk."""
    dt: torch.Tensor
    """(batch, heads, chunks, q) float32 step sizes."""
    states: torch.Tensor
    """(batch, chunks, heads, head_dim, state_size) at the start of each chunk."""
    scores: torch.Tensor
    """(batch, chunks, groups, q, q) float32: C B^T, zero between documents."""


class ScanGradients(NamedTuple):
    """Where backward writes: shapes as in :class:`ScanTensors`."""

    x: torch.Tensor
    dt: torch.Tensor
    B: torch.Tensor
    C: torch.Tensor


class ParameterGradients(NamedTuple):
    """Gradients of a layer's scan parameters, each (heads,)."""

    A: torch.Tensor
    D: torch.Tensor
    dt_bias: torch.Tensor


def prepare_chunks(inputs: ScanTensors, options: ScanOptions, seq_idx: torch.Tensor | None) -> Kept:
    """Steps, states and scores of all chunks, from which outputs and gradients follow."""
    mamba = load_mamba()
    decay, dt = mamba._chunk_cumsum_fwd(
        inputs.dt, inputs.A, options.chunk_size, dt_bias=inputs.dt_bias, dt_softplus=True,
        dt_limit=options.dt_limit,
    )  # fmt: skip
    added = mamba._chunk_state_fwd(
        inputs.B, inputs.x, dt, decay, seq_idx=seq_idx, states_in_fp32=True
    )
    # In float32: backward's gradient of the decay between chunks is a sum over a whole state.
    states, _ = mamba._state_passing_fwd(
        added.flatten(-2), decay[..., -1], seq_idx=seq_idx, chunk_size=options.chunk_size
    )
    scores = mamba._bmm_chunk_fwd(
        inputs.C, inputs.B, options.chunk_size, seq_idx=seq_idx, output_dtype=torch.float32
    )
    return Kept(decay, dt, states.unflatten(-1, added.shape[-2:]), scores)


def scan_forward(
    inputs: ScanTensors, options: ScanOptions, seq_idx: torch.Tensor | None
) -> tuple[torch.Tensor, Kept | None]:
    """Outputs (batch, length, heads, head_dim), and what backward can use again."""
    if is_interpreted():
        with torch.no_grad():
            return _scan_in_torch(inputs, options, seq_idx), None
    kept = prepare_chunks(inputs, options, seq_idx)
    y, _ = load_mamba()._chunk_scan_fwd(
        kept.scores, inputs.x, kept.dt, kept.decay, inputs.C, kept.states, D=inputs.D,
        seq_idx=seq_idx,
    )  # fmt: skip
    return y, kept


def scan_backward(
    dy: torch.Tensor,
    inputs: ScanTensors,
    options: ScanOptions,
    seq_idx: torch.Tensor | None,
    out: tuple[ScanGradients, Kept | None],
) -> ParameterGradients:
    """Write the gradients of x, dt, B and C into ``out[0]``.

    Args:
        dy: (batch, length, heads, head_dim).
        inputs: As in forward.
        options: As in forward.
        seq_idx: As in forward.
        out: Where to write, and what forward kept (None: computed again).
    """
    gradients, kept = out
    if is_interpreted():
        return _differentiate_in_torch(dy, inputs, options, seq_idx, gradients)
    from trainer.kernels.score_gradients import differentiate_scores
    from trainer.kernels.state_gradients import differentiate_keys, differentiate_queries

    kept = kept or prepare_chunks(inputs, options, seq_idx)
    mamba, x, steps = load_mamba(), inputs.x, (kept.dt, kept.decay)
    dstates, dchunk, states = _differentiate_states(dy, inputs, kept, seq_idx)
    _, ddt, dD = mamba._chunk_scan_chunk_state_bwd_dx(
        x, *steps, inputs.B, kept.scores, dy, dstates, D=inputs.D, seq_idx=seq_idx, dx=gradients.x
    )
    dscores, dsums = differentiate_scores(x, dy, kept.scores, steps, seq_idx)
    dB, ddecay = differentiate_keys(x, dstates, inputs.B, steps, seq_idx)
    mamba._bmm_chunk_bwd(inputs.C, dscores, residual=dB, out=gradients.B)
    dC, from_start = differentiate_queries(dy, states, inputs.C, kept.decay, seq_idx)
    mamba._bmm_chunk_bwd(inputs.B, dscores.transpose(-1, -2), residual=dC, out=gradients.C)
    dsums += from_start
    dsums[..., -1] += dchunk
    # A row's decay is part of the running sums of all later rows of its chunk: add up from the end.
    ddecay = ddecay + dsums.flip(-1).cumsum(-1).flip(-1)
    _, dA, ddt_bias = mamba._chunk_cumsum_bwd(
        ddecay, ddt, inputs.dt, inputs.A, dt_bias=inputs.dt_bias, dt_softplus=True,
        dt_limit=options.dt_limit, ddt=gradients.dt,
    )  # fmt: skip
    return ParameterGradients(dA, dD, ddt_bias)


def _differentiate_states(
    dy: torch.Tensor, inputs: ScanTensors, kept: Kept, seq_idx: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the states, of each chunk's decay, and the states in x's dtype."""
    mamba = load_mamba()
    dtype, shape = inputs.x.dtype, kept.states.shape[-2:]
    through = mamba._chunk_scan_bwd_dstates(
        inputs.C, kept.decay, dy, seq_idx=seq_idx, dtype=torch.float32
    )
    dstates, dchunk, _, states = mamba._state_passing_bwd(
        kept.states.flatten(-2), kept.decay[..., -1], through.flatten(-2), seq_idx=seq_idx,
        has_initial_states=False, dstates_dtype=dtype, states_dtype=dtype,
        chunk_size=kept.decay.shape[-1],
    )  # fmt: skip
    return dstates.unflatten(-1, shape), dchunk, states.unflatten(-1, shape)


def _scan_in_torch(
    inputs: ScanTensors, options: ScanOptions, seq_idx: torch.Tensor | None
) -> torch.Tensor:
    from trainer.model.scan import ScanInputs, scan

    return scan(
        ScanInputs(*inputs),
        chunk_size=options.chunk_size,
        seq_idx=seq_idx,
        dt_limit=options.dt_limit,
    )[0]


def _differentiate_in_torch(
    dy: torch.Tensor,
    inputs: ScanTensors,
    options: ScanOptions,
    seq_idx: torch.Tensor | None,
    out: ScanGradients,
) -> ParameterGradients:
    with torch.enable_grad():
        leaves = ScanTensors(*(t.detach().requires_grad_() for t in inputs))
        y = _scan_in_torch(leaves, options, seq_idx)
    found = ScanTensors(*torch.autograd.grad(y, leaves, dy))
    for target, value in zip(out, (found.x, found.dt, found.B, found.C), strict=True):
        target.copy_(value)
    return ParameterGradients(found.A, found.D, found.dt_bias)


class _ChunkScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> torch.Tensor:
        *tensors, options, seq_idx = arguments
        inputs = ScanTensors(*tensors)
        y, _ = scan_forward(inputs, options, seq_idx)
        ctx.save_for_backward(*inputs, seq_idx)
        ctx.options = options
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *tensors, seq_idx = ctx.saved_tensors
        inputs = ScanTensors(*tensors)
        dy = dy if dy.stride(-1) == 1 else dy.contiguous()
        out = ScanGradients(*(torch.empty_like(t) for t in (inputs.x, inputs.dt, *inputs[3:5])))
        parameters = scan_backward(dy, inputs, ctx.options, seq_idx, (out, None))
        dA, dD, ddt_bias = (
            gradient.to(tensor.dtype)
            for gradient, tensor in zip(parameters, (inputs.A, *inputs[5:]), strict=True)
        )
        return out.x, out.dt, dA, out.B, out.C, dD, ddt_bias, None, None


def chunk_scan(
    *inputs: torch.Tensor,
    chunk_size: int,
    seq_idx: torch.Tensor | None = None,
    dt_limit: tuple[float, float] = (0.0, math.inf),
) -> torch.Tensor:
    """The scan alone, differentiable in all its inputs.

    Args:
        inputs: The seven tensors of :class:`ScanTensors`, in that order.
        chunk_size: Rows of a chunk, a power of two; changes speed and rounding only.
        seq_idx: (batch, length) int32; labels must differ between any two documents of a row.
        dt_limit: Bounds of the step after softplus.

    Returns:
        (batch, length, heads, head_dim) like x.

    Raises:
        ConfigError: mamba-ssm is missing or has another version.
    """
    options = ScanOptions(chunk_size, dt_limit)
    result: torch.Tensor = _ChunkScan.apply(*inputs, options, seq_idx)
    return result
