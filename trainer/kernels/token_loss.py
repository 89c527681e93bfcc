"""Loss of a tile of logits and its gradient in one pass over them.

PyTorch reads and writes a tile about ten times for this; at 1.3B and a vocabulary of 32,768 that is
2 % of a step. Here a program holds one token's logits in registers: they are read once and replaced
by the gradient.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

MAX_VOCABULARY = 65_536
"""What 16 warps hold in registers."""


@triton.jit
def _token_loss_kernel(
    logits, targets, losses, correct, vocabulary, row_stride,
    IGNORED: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One token."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    mask = columns < vocabulary
    logits += row * row_stride
    target = tl.load(targets + row)
    is_scored = target != IGNORED
    picked = tl.load(logits + tl.where(is_scored, target, 0)).to(tl.float32)
    values = tl.load(logits + columns, mask=mask, other=float("-inf")).to(tl.float32)
    top = tl.max(values, axis=0)
    values = tl.exp(values - top)
    total = tl.sum(values, axis=0)
    tl.store(losses + row, tl.where(is_scored, tl.log(total) - (picked - top), 0.0))
    tl.store(correct + row, (is_scored & (picked == top)).to(tl.int8))
    slope = values / total - tl.where(columns == target, 1.0, 0.0)
    slope = tl.where(is_scored, slope, 0.0)
    tl.store(logits + columns, slope.to(logits.dtype.element_ty), mask=mask)


def score_tile(
    logits: torch.Tensor, targets: torch.Tensor, ignored: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss and number of correct tokens; ``logits`` become the gradient of the sum.

    Args:
        logits: (tokens, vocabulary) in any float dtype, contiguous; overwritten.
        targets: (tokens,) int64; the right token, or ``ignored``.
        ignored: Tokens with this target have no loss and no gradient.

    Returns:
        Scalars, float32 and int64.

    Raises:
        ValueError: A vocabulary that does not fit in registers.
    """
    tokens, vocabulary = logits.shape
    if vocabulary > MAX_VOCABULARY:
        raise ValueError(f"a vocabulary of {vocabulary} is over {MAX_VOCABULARY}")
    losses = torch.empty(tokens, dtype=torch.float32, device=logits.device)
    correct = torch.empty(tokens, dtype=torch.int8, device=logits.device)
    columns = max(512, triton.next_power_of_2(vocabulary))
    if tokens:
        with torch.cuda.device_of(logits):
            _token_loss_kernel[(tokens,)](
                logits, targets, losses, correct, vocabulary, logits.stride(0),
                IGNORED=ignored, COLUMNS=columns, num_warps=max(1, min(16, columns // 512)),
                num_stages=1,
            )  # fmt: skip
    return losses.sum(), correct.sum(dtype=torch.int64)
