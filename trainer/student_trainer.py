"""TRL's ``SFTTrainer`` with the two things Mamba-2 on a CPU needs otherwise.

Heavy imports are at the top on purpose: only :mod:`trainer.sft` imports this module, lazily.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from trl import SFTTrainer

from trainer.data import IGNORED


def list_decayed(model: Any) -> list[str]:
    """Names of the parameters that weight decay may shrink: matrices and convolutions.

    Vectors stay: norms and biases as usual, and ``A_log``, ``D`` and ``dt_bias``, which mamba-ssm
    marks as not to be decayed. The stock trainer decides by name and would decay two of them.
    """
    return [name for name, parameter in model.named_parameters() if parameter.ndim >= 2]


class StudentTrainer(SFTTrainer):  # type: ignore[misc]
    """SFT of the student: weight decay by shape, and a loss that is quick on a CPU."""

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """See :func:`list_decayed`."""
        return list_decayed(model)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean negative log-likelihood of the labelled tokens of the whole optimiser step.

        On a GPU it is TRL's own, which never holds all logits. On a CPU that code scores prompt and
        padding too, in tiles of 32,768 tokens with some ten temporary copies; scoring only what
        follows the first labelled token gives the same loss 3 to 4 times faster (measured on 2
        cores, vocabulary 32,768).
        """
        if inputs["input_ids"].is_cuda:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"][:, 1:]
        start = int((labels != IGNORED).any(dim=0).nonzero()[0])
        labels = labels[:, start:]
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            logits_to_keep=labels.shape[1] + 1,
            use_cache=False,
        )
        total = cross_entropy(
            outputs.logits[:, :-1].flatten(0, 1),
            labels.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        num_items = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        loss = total / torch.as_tensor(num_items)
        return (loss, outputs) if return_outputs else loss
