"""Triton kernels of a decoding step: convolution, state and choice of a token, one launch each.

A step moves the whole state of every slot through the chip once, and that is its cost at large
batches; what PyTorch adds are some thirty small launches a layer. All sums are float32, whatever
the tensors are. On a CPU they run in Triton's interpreter, for tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from evaluation.decoding.random_numbers import draw_uniform

if TYPE_CHECKING:
    from torch import Tensor

    from evaluation.decoding.choice import Sampling
    from trainer.model.mixer import Mixer

_CHANNELS = 256
"""Of a program of the convolution: 2 a thread."""
_STATE_WARPS = 4
_VOCABULARY_WARPS = 16
_STEPS = tl.constexpr(31)
"""Halvings of the range of a float32 from 0 to 1: to the last bit."""
_ONE = tl.constexpr(0x3F800001)
"""One bit above 1.0."""


@triton.jit
def convolution_kernel(
    inputs, window, weight, bias, mixed,
    channels, inputs_row,
    WIDTH: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Convolution and SiLU at the new token; the window moves on by one."""
    row = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = place < channels
    new = tl.load(inputs + row * inputs_row + place, mask=mask, other=0.0)
    tap = tl.load(weight + place * WIDTH + (WIDTH - 1), mask=mask, other=0.0)
    total = new.to(tl.float32) * tap.to(tl.float32)
    if HAS_BIAS:
        total += tl.load(bias + place, mask=mask, other=0.0).to(tl.float32)
    window += row * (WIDTH - 1) * channels + place
    for age in tl.static_range(WIDTH - 1):
        held = tl.load(window + age * channels, mask=mask, other=0.0)
        tap = tl.load(weight + place * WIDTH + age, mask=mask, other=0.0)
        total += held.to(tl.float32) * tap.to(tl.float32)
        if age > 0:
            tl.store(window + (age - 1) * channels, held, mask=mask)
    tl.store(window + (WIDTH - 2) * channels, new, mask=mask)
    out = total * tl.sigmoid(total)
    tl.store(mixed + row * channels + place, out.to(mixed.dtype.element_ty), mask=mask)


@triton.jit
def _softplus(raw):
    """``log(1 + exp(raw))``, exact to a few units in the last place.

    The sum rounds small exponentials by 1e-4 and more of themselves, and small steps are those of
    heads that remember long: dividing by what the sum made of them takes that back (Goldberg 1991,
    theorem 4). Above 20 it is the identity to the last bit, and exp is kept from overflowing.
    """
    power = tl.exp(tl.minimum(raw, 20.0))
    total = 1.0 + power
    added = total - 1.0
    is_lost = added == 0.0
    step = tl.where(is_lost, power, tl.log(total) * (power / tl.where(is_lost, 1.0, added)))
    return tl.where(raw > 20.0, raw, step)


@triton.jit
def _round_either_way(values, place, step):
    """As ``evaluation.decoding.step.round_either_way``, in bf16."""
    bits = values.to(tl.uint32, bitcast=True)
    own = place.to(tl.uint32) + step.to(tl.uint32) * 0x85EBCA77
    mixed = bits ^ (own * 0x9E3779B1)
    mixed = (mixed ^ (mixed >> 16)) * 0x85EBCA6B
    mixed = (mixed ^ (mixed >> 13)) * 0xC2B2AE35
    noise = (mixed ^ (mixed >> 16)) & 0xFFFF
    return ((bits + noise) & 0xFFFF0000).to(tl.float32, bitcast=True).to(tl.bfloat16)


@triton.jit
def state_kernel(
    mixed, dt, state, steps, dt_bias, A_log, D, y,
    channels, dt_row, heads, head_dim, state_size, heads_per_group, inner, groups, low, high,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One head of one slot: ``S = exp(dt A) S + dt x B^T`` in place, ``y = S C + D x``."""
    # Neighbouring programs read neighbouring memory: heads of one slot.
    head, slot = tl.program_id(0), tl.program_id(1).to(tl.int64)
    p, n = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    in_p, in_n = p < head_dim, n < state_size
    mixed += slot * channels
    group = head // heads_per_group
    x = tl.load(mixed + head * head_dim + p, mask=in_p, other=0.0).to(tl.float32)
    B = tl.load(mixed + inner + group * state_size + n, mask=in_n, other=0.0).to(tl.float32)
    behind = inner + groups * state_size
    C = tl.load(mixed + behind + group * state_size + n, mask=in_n, other=0.0).to(tl.float32)
    raw = tl.load(dt + slot * dt_row + head).to(tl.float32)
    raw += tl.load(dt_bias + head).to(tl.float32)
    step = _softplus(raw)
    step = tl.minimum(tl.maximum(step, low), high)
    decay = tl.exp(-step * tl.exp(tl.load(A_log + head).to(tl.float32)))
    skip = tl.load(D + head).to(tl.float32)
    place = ((slot * heads + head) * head_dim + p[:, None]) * state_size + n[None, :]
    mask = in_p[:, None] & in_n[None, :]
    values = tl.load(state + place, mask=mask, other=0.0).to(tl.float32)
    values = values * decay + (x * step)[:, None] * B[None, :]
    if state.dtype.element_ty == tl.bfloat16:
        within = (head * head_dim + p[:, None]) * state_size + n[None, :]
        rounded = _round_either_way(values, within, tl.load(steps + slot))
        tl.store(state + place, rounded, mask=mask)
    else:
        tl.store(state + place, values, mask=mask)
    out = tl.sum(values * C[None, :], axis=1) + skip * x
    tl.store(y + slot * inner + head * head_dim + p, out.to(y.dtype.element_ty), mask=in_p)


@triton.jit
def _least_of_mass(weights, bits, wanted):
    """Bits of the largest weight such that all that are at least it sum up to ``wanted``."""
    low, high = 0, _ONE
    for _ in range(_STEPS):
        middle = (low + high) // 2
        is_enough = tl.sum(tl.where(bits >= middle, weights, 0.0), axis=0) >= wanted
        low = tl.where(is_enough, middle, low)
        high = tl.where(is_enough, high, middle)
    return low


@triton.jit
def choice_kernel(
    logits, penalties, uniform, tokens,
    vocabulary, temperature, top_p, top_k,
    HAS_PENALTY: tl.constexpr, IS_GREEDY: tl.constexpr, HAS_TOP_K: tl.constexpr,
    HAS_TOP_P: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The token of one row; the rules of ``evaluation.decoding.choice``."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    mask = place < vocabulary
    scores = tl.load(logits + row * vocabulary + place, mask=mask, other=-float("inf"))
    if HAS_PENALTY:
        penalty = tl.load(penalties + row * vocabulary + place, mask=mask, other=1.0)
        scores = tl.minimum(scores * penalty, scores / penalty)
    if IS_GREEDY:
        tl.store(tokens + row, tl.argmax(scores, axis=0).to(tl.int64))
    else:
        weights = tl.exp((scores - tl.max(scores, axis=0)) / temperature)
        bits = weights.to(tl.int32, bitcast=True)
        if HAS_TOP_K:
            least = _least_of_mass(tl.where(mask, 1.0, 0.0), bits, top_k)
            weights = tl.where(bits >= least, weights, 0.0)
        if HAS_TOP_P:
            least = _least_of_mass(weights, bits, tl.sum(weights, axis=0) * top_p)
            weights = tl.where(bits >= least, weights, 0.0)
        sums = tl.cumsum(weights, axis=0)
        target = tl.load(uniform + row) * tl.max(sums, axis=0)
        # The target may round to the last sum: then it is the last token with weight.
        last = tl.max(tl.where(weights > 0, place, 0), axis=0)
        chosen = tl.min(tl.where((sums > target) & (weights > 0), place, last), axis=0)
        tl.store(tokens + row, chosen.to(tl.int64))


def mix_in_triton(
    mixer: Mixer, projected: Tensor, window: Tensor, state: Tensor, steps: Tensor
) -> Tensor:
    """As :func:`evaluation.decoding.step.mix_in_torch`."""
    import torch

    from trainer.kernels.norms import normalise_gated

    config, conv = mixer.config, mixer.conv1d
    inner, channels, heads = mixer.splits
    gate, inputs, dt = torch.split(projected, mixer.splits, dim=-1)
    rows = len(projected)
    mixed = projected.new_empty(rows, channels)
    y = projected.new_empty(rows, inner)
    with torch.cuda.device_of(projected):
        convolution_kernel[(triton.cdiv(channels, _CHANNELS), rows)](
            inputs, window, conv.weight, conv.bias, mixed, channels, projected.stride(0),
            WIDTH=conv.kernel_size[0], HAS_BIAS=conv.bias is not None, BLOCK=_CHANNELS,
        )  # fmt: skip
        state_kernel[(heads, rows)](
            mixed, dt, state, steps, mixer.dt_bias, mixer.A_log, mixer.D, y,
            channels, projected.stride(0), heads, config.head_dim, config.state_size,
            heads // config.n_groups, inner, config.n_groups, *mixer.dt_limit,
            ROWS=triton.next_power_of_2(config.head_dim),
            COLUMNS=triton.next_power_of_2(config.state_size), num_warps=_STATE_WARPS,
        )  # fmt: skip
    eps, groups = config.layer_norm_epsilon, config.n_groups
    normed: Tensor = normalise_gated(y, gate, mixer.norm.weight, eps, groups)
    return normed


def choose_in_triton(
    logits: Tensor, sampling: Sampling, seeds: Tensor, positions: Tensor, penalties: Tensor | None
) -> Tensor:
    """As :func:`evaluation.decoding.choice.choose_tokens`; ``logits`` stay as they are."""
    import torch

    rows, vocabulary = logits.shape
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    uniform: Any = seeds  # not read by a greedy choice
    if not sampling.is_greedy:
        uniform = draw_uniform(seeds, positions).float()
    with torch.cuda.device_of(logits):
        choice_kernel[(rows,)](
            logits, penalties, uniform, tokens, vocabulary,
            float(sampling.temperature), float(sampling.top_p), float(sampling.top_k),
            HAS_PENALTY=penalties is not None, IS_GREEDY=sampling.is_greedy,
            HAS_TOP_K=0 < sampling.top_k < vocabulary, HAS_TOP_P=sampling.top_p < 1,
            BLOCK=triton.next_power_of_2(vocabulary), num_warps=_VOCABULARY_WARPS,
        )  # fmt: skip
    return tokens
