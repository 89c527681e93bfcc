"""Next-token loss without ever holding the logits of all tokens.

Tokens are scored in tiles. While a tile's logits are at hand, its share of the gradients is
computed too, so that backward neither keeps nor computes logits again: three matrix products a
tile instead of the four of a recomputation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainer.model.documents import mask_first_labels

IGNORED = -100
_TILE_ENTRIES = {"cpu": 1 << 22, "cuda": 1 << 27}
"""Logits of a tile. On a CPU a tile should stay in its cache; on a GPU 2^27 are 256 MiB in bf16:
4,096 tokens of a vocabulary of 32,768, which keep the matrix units busy."""


class TokenLoss(NamedTuple):
    """Sums over labelled tokens."""

    total: Tensor
    """Scalar float32 or float64: the sum of -log p(label)."""
    num_correct: Tensor
    """Scalar int64: tokens whose label is the likeliest token."""
    num_tokens: Tensor
    """Scalar int64: labelled tokens."""


def sum_token_loss(
    hidden: Tensor, weight: Tensor, labels: Tensor, documents: Tensor | None
) -> TokenLoss:
    """Negative log-likelihood of each labelled token given the tokens before it.

    Args:
        hidden: (batch, length, hidden_size) after the last norm.
        weight: (vocabulary, hidden_size) of the output layer.
        labels: (batch, length); token t + 1's label is scored at token t. -100 is not scored, nor
            is the first token of a document.
        documents: (batch, length) from :func:`~trainer.model.documents.label_documents`.
    """
    targets = mask_first_labels(labels[:, 1:], documents, IGNORED).reshape(-1)
    states = hidden[:, :-1].flatten(0, 1)
    if states.device.type == "cpu":
        # Prompt and padding are not scored at all. Elsewhere counting them would wait for the
        # device, which costs more than the few per cent of tokens without a label.
        scored = (targets != IGNORED).nonzero().squeeze(1)
        states, targets = states.index_select(0, scored), targets[scored]
    dtype = _matmul_dtype(states.device.type, weight)
    with torch.autocast(states.device.type, enabled=False):
        sums: tuple[Tensor, Tensor] = _TiledLoss.apply(  # type: ignore[no-untyped-call]
            states.to(dtype), weight.to(dtype), targets
        )
    return TokenLoss(*sums, (targets != IGNORED).sum())


def _matmul_dtype(device: str, weight: Tensor) -> torch.dtype:
    enabled = torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if enabled else weight.dtype


class _TiledLoss(torch.autograd.Function):
    """(states (n, d), weight (v, d), targets (n,)) → (sum of losses, number correct)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        exact = torch.promote_types(states.dtype, torch.float32)
        total = torch.zeros((), dtype=exact, device=states.device)
        num_correct = torch.zeros((), dtype=torch.int64, device=states.device)
        need_states, need_weight = ctx.needs_input_grad[:2]
        dstates = torch.empty_like(states) if need_states else None
        dweight = torch.zeros_like(weight, dtype=exact) if need_weight else None
        size = max(1, _TILE_ENTRIES.get(states.device.type, 1 << 26) // weight.shape[0])
        for start in range(0, states.shape[0], size):
            tile = slice(start, start + size)
            loss, correct, slope = _score_tile(states[tile] @ weight.t(), targets[tile])
            total += loss
            num_correct += correct
            if dstates is not None:
                torch.mm(slope, weight, out=dstates[tile])
            if dweight is not None:
                _add_product(dweight, slope, states[tile])
        ctx.save_for_backward(dstates, dweight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(num_correct)
        return total, num_correct

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        dstates, dweight = ctx.saved_tensors
        return (
            None if dstates is None else (dstates * scale).to(dstates.dtype),
            None if dweight is None else (dweight * scale).to(ctx.weight_dtype),
            None,
        )


def _score_tile(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, number of correct tokens, and the loss's gradient by the logits, in their dtype.

    On a GPU a kernel does it in one pass; float64, which only checks use, stays with PyTorch.
    """
    if logits.device.type == "cuda" and logits.dtype != torch.float64:
        from trainer.kernels.token_loss import MAX_VOCABULARY, score_tile

        if logits.shape[1] <= MAX_VOCABULARY:
            return *score_tile(logits, targets, IGNORED), logits
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss, correct = _score(wide, targets)
    return loss, correct, wide.to(logits.dtype)


def _add_product(total: Tensor, slope: Tensor, states: Tensor) -> None:
    if slope.dtype == total.dtype:
        total.addmm_(slope.t(), states)
    else:
        total += slope.t() @ states


def _score(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and number of correct tokens of a tile; ``logits`` become the loss's gradient.

    The gradient of -log softmax at the target is softmax minus the target's indicator.
    """
    scored = targets != IGNORED
    places = targets.clamp(min=0)[:, None]
    logits -= logits.amax(dim=1, keepdim=True)
    picked = logits.gather(1, places).squeeze(1)
    # The likeliest token's logit is 0 now.
    correct = ((picked == 0) & scored).sum()
    total = logits.exp_().sum(dim=1)
    loss = torch.where(scored, total.log() - picked, 0).sum()
    logits *= (scored / total)[:, None]
    logits.scatter_add_(1, places, -scored.to(logits.dtype)[:, None])
    return loss, correct
