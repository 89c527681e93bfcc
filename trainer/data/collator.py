"""Rows of a forward pass as tensors, padded to one length that suits the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainer.data.settings import PAD_MULTIPLE

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""Label of a token without loss."""
PAD_ID = 0
"""As in :mod:`trainer.tokenizer`; nothing depends on it, since padding is a document of its own."""

Row = dict[str, npt.NDArray[Any]]
"""``input_ids``, ``labels`` and ``seq_idx`` of one packed row, all of its length; it may be 0."""


@dataclass(frozen=True, slots=True)
class Collator:
    """Pads rows on the right to a multiple of ``pad_multiple`` tokens; picklable.

    Padding has labels of -100 and is a document of its own, whose number follows the row's last.
    """

    pad_multiple: int = PAD_MULTIPLE

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Stack rows.

        Returns:
            ``input_ids`` and ``labels`` (rows, length) int64, ``seq_idx`` (rows, length) int32.
        """
        import torch

        length = padded_length(max(len(row["input_ids"]) for row in rows), self.pad_multiple)
        shape = (len(rows), length)
        ids = np.full(shape, PAD_ID, np.int64)
        labels = np.full(shape, IGNORED, np.int64)
        documents = np.empty(shape, np.int32)
        for place, row in enumerate(rows):
            size = len(row["input_ids"])
            ids[place, :size] = row["input_ids"]
            labels[place, :size] = row["labels"]
            documents[place, :size] = row["seq_idx"]
            documents[place, size:] = row["seq_idx"][-1] + 1 if size else 0
        return {
            "input_ids": torch.from_numpy(ids),
            "labels": torch.from_numpy(labels),
            "seq_idx": torch.from_numpy(documents),
        }


def padded_length(size: int, multiple: int) -> int:
    """Smallest multiple that holds ``size`` tokens and is not 0."""
    return max(1, -(-size // multiple)) * multiple
