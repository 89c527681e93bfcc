"""Which tokens of a row belong together: one description for packing and for padding.

Three inputs can tell it: ``seq_idx`` (a number per token, another number is another document),
``position_ids`` (a 0 starts a document) and ``attention_mask`` (0 is padding, which becomes a
document of its own). Whatever is given ends as one running number per token.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def label_documents(
    input_ids: Tensor,
    *,
    seq_idx: Tensor | None = None,
    position_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
) -> Tensor | None:
    """Running number of the document of each token, or none when every row is one document.

    Args:
        input_ids: (batch, length), for shape and device.
        seq_idx: (batch, length) or (length,); any integers, equal within a document.
        position_ids: (batch, length) or (1, length); 0 at the first token of each document.
        attention_mask: (batch, length), 0 at padding; a change starts a document.

    Returns:
        (batch, length) int32 that starts at 0 and grows by 1 at each boundary; none when no row
        has a boundary, which only a CPU checks (elsewhere it would wait for the device).

    Raises:
        ValueError: A shape does not fit, or two descriptions put documents' boundaries at
            different tokens.
    """
    given = [value for value in (seq_idx, position_ids, attention_mask) if value is not None]
    if not given or input_ids.shape[1] == 0:
        return None
    shape = input_ids.shape
    mask = None if attention_mask is None else _expand(attention_mask, shape, "attention_mask") != 0
    # Made on the device: a copy to it would wait for what it computes.
    starts = torch.zeros(shape, dtype=torch.bool, device=input_ids.device)
    if mask is not None:
        starts = _find_changes(mask)
    named: dict[str, Tensor] = {}
    if seq_idx is not None:
        named["seq_idx"] = _find_changes(_expand(seq_idx, shape, "seq_idx"))
    if position_ids is not None:
        named["position_ids"] = _find_restarts(_expand(position_ids, shape, "position_ids"))
    if len(given) > 1:
        _check_agreement(named, mask, starts)
    if mask is None:
        starts = next(iter(named.values()))
    else:
        for found in named.values():
            starts = starts | (found & mask)
    if starts.device.type == "cpu" and not bool(starts.any()):
        return None
    return starts.cumsum(dim=1, dtype=torch.int32)


def _expand(value: Tensor, shape: torch.Size, name: str) -> Tensor:
    if value.ndim == 1:
        value = value[None]
    if value.ndim != 2 or value.shape[1] != shape[1] or value.shape[0] not in (1, shape[0]):
        raise ValueError(f"{name} has shape {tuple(value.shape)}, the tokens {tuple(shape)}")
    return value.expand(shape)


def _find_changes(labels: Tensor) -> Tensor:
    """(batch, length) bool: another value than at the token before; never at the first."""
    starts = torch.zeros(labels.shape, dtype=torch.bool, device=labels.device)
    starts[:, 1:] = labels[:, 1:] != labels[:, :-1]
    return starts


def _find_restarts(positions: Tensor) -> Tensor:
    starts = positions == 0
    starts[:, 0] = False
    return starts


def _check_agreement(named: dict[str, Tensor], mask: Tensor | None, masked: Tensor) -> None:
    """Hold descriptions against each other where real tokens begin or go on.

    Between two real tokens all must say the same. Where the mask changes there is a boundary
    anyway, and what the others say about padding does not matter.
    """
    everywhere = torch.ones_like(masked)
    inside = everywhere if mask is None else mask & ~masked
    for (name, starts), (other, others) in pairwise(named.items()):
        if bool(((starts != others) & inside).any()):
            raise ValueError(
                f"{name} and {other} put boundaries of documents at different tokens; "
                "pass one of them, or make them agree"
            )


def mask_first_labels(targets: Tensor, documents: Tensor | None, ignored: int) -> Tensor:
    """Targets without those whose document has not begun at the predicting token.

    Args:
        targets: (batch, length - 1): the label of the next token at each token.
        documents: (batch, length) from :func:`label_documents`.
        ignored: What to put there.
    """
    if documents is None:
        return targets
    return targets.masked_fill(documents[:, 1:] != documents[:, :-1], ignored)
