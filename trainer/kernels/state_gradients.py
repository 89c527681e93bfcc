"""Gradients of B and C through the states, by mamba-ssm's kernels, without a copy of each result.

mamba-ssm lets several programs share a group's heads where there are few programs, and always adds
their parts up, even a single one: that copies 134 MB a layer at 1.3B and 16,384 tokens.
"""

from __future__ import annotations

import importlib
import math
from typing import Any, NamedTuple

import torch
import triton


class GroupGradient(NamedTuple):
    """What one of the two kernels computes."""

    value: torch.Tensor
    """(batch, length, groups, state_size) float32."""
    decay: torch.Tensor
    """(batch, heads, chunks, q) float32: its part in the gradient of the decays."""


def differentiate_keys(
    x: torch.Tensor,
    dstates: torch.Tensor,
    B: torch.Tensor,
    steps: tuple[torch.Tensor, torch.Tensor],
    seq_idx: torch.Tensor | None,
) -> GroupGradient:
    """Gradient of B from the states at the chunks' ends.

    Args:
        x: (batch, length, heads, head_dim).
        dstates: (batch, chunks, heads, head_dim, state_size) in x's dtype.
        B: (batch, length, groups, state_size).
        steps: Step sizes and running sums of decays, (batch, heads, chunks, q) float32.
        seq_idx: (batch, length) int32 or None.

    Returns:
        The decays' part is a gradient of their running sum at the chunk's end less that at a row,
        summed over the rows before: it counts from the chunk's start.
    """
    kernel = _find("ssd_chunk_state", "_chunk_state_bwd_db_kernel")
    dt, decay = steps
    launch = _Launch(x, B, decay, seq_idx)
    kernel[launch.grid](
        x, dstates, B, dt, decay, seq_idx, launch.out, launch.sums,
        *launch.sizes(dstates),
        *x.stride(), *dstates.stride(), *B.stride(), *_by_chunk(dt), *_by_chunk(decay),
        *_strides(seq_idx), *launch.out.stride(), *launch.sum_strides(), *launch.options(),
        BLOCK_SIZE_K=max(16, triton.next_power_of_2(x.shape[-1])),
    )  # fmt: skip
    result = launch.finish()
    return result._replace(decay=result.decay.cumsum(-1))


def differentiate_queries(
    dy: torch.Tensor,
    states: torch.Tensor,
    C: torch.Tensor,
    decay: torch.Tensor,
    seq_idx: torch.Tensor | None,
) -> GroupGradient:
    """Gradient of C from the states at the chunks' starts.

    Args:
        dy: (batch, length, heads, head_dim).
        states: (batch, chunks, heads, head_dim, state_size) in dy's dtype.
        C: (batch, length, groups, state_size).
        decay: (batch, heads, chunks, q) float32 running sums of decays.
        seq_idx: (batch, length) int32 or None.

    Returns:
        The decays' part is the gradient of their running sums.
    """
    kernel = _find("ssd_chunk_scan", "_chunk_scan_bwd_dc_kernel")
    launch = _Launch(dy, C, decay, seq_idx)
    kernel[launch.grid](
        dy, states, C, decay, seq_idx, launch.out, launch.sums,
        *launch.sizes(states),
        *dy.stride(), *states.stride(), *C.stride(), *_by_chunk(decay),
        *_strides(seq_idx), *launch.out.stride(), *launch.sum_strides(), *launch.options(),
        BLOCK_SIZE_K=max(16, triton.next_power_of_2(dy.shape[-1])),
    )  # fmt: skip
    return launch.finish()


class _Launch:
    """What the two launches have in common."""

    def __init__(
        self,
        rows: torch.Tensor,
        grouped: torch.Tensor,
        decay: torch.Tensor,
        seq_idx: torch.Tensor | None,
    ) -> None:
        batch, length, heads, _ = rows.shape
        groups, state = grouped.shape[2:]
        chunks, chunk = decay.shape[2:]
        ratio = heads // groups
        processors = torch.cuda.get_device_properties(rows.device).multi_processor_count
        self.per_program = max(min(math.ceil(batch * chunks * heads / processors), ratio), 1)
        splits = triton.cdiv(ratio, self.per_program)
        self.has_documents = seq_idx is not None
        self.out = rows.new_empty(batch, length, splits, groups, state, dtype=torch.float32)
        # The smallest tile is 32 wide; the kernels' hooks fill this with zeros before each launch.
        self.sums = rows.new_empty(*decay.shape, triton.cdiv(state, 32), dtype=torch.float32)
        self.dimensions = (batch, length, heads, chunk, chunks, groups)

        def grid(tile: dict[str, Any]) -> tuple[int, int, int]:
            tiles = triton.cdiv(chunk, tile["BLOCK_SIZE_M"])
            tiles *= triton.cdiv(state, tile["BLOCK_SIZE_N"])
            return tiles, batch * chunks, splits * groups

        self.grid = grid

    def sizes(self, states: torch.Tensor) -> tuple[int, ...]:
        batch, length, heads, chunk, _, groups = self.dimensions
        width, state = states.shape[-2:]
        return chunk, state, width, batch, length, heads, self.per_program, groups

    def sum_strides(self) -> tuple[int, ...]:
        return (*_by_chunk(self.sums), self.sums.stride(4))

    def options(self) -> tuple[bool, bool, bool]:
        """Sums of decays wanted, documents, and a fixed order of addition."""
        return True, self.has_documents, True

    def finish(self) -> GroupGradient:
        value = self.out.sum(2) if self.out.shape[2] > 1 else self.out.squeeze(2)
        return GroupGradient(value, self.sums.sum(-1))


def _find(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"mamba_ssm.ops.triton.{module}"), name)


def _by_chunk(value: torch.Tensor) -> tuple[int, int, int, int]:
    """Strides of batch, chunk, head and row of (batch, heads, chunks, q, ...)."""
    return value.stride(0), value.stride(2), value.stride(1), value.stride(3)


def _strides(seq_idx: torch.Tensor | None) -> tuple[int, ...]:
    return (0, 0) if seq_idx is None else seq_idx.stride()
