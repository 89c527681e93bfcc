"""Small models and documents for tests of the student's mathematics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Mamba2Config

from trainer.model.student import StudentModel

VOCABULARY = 64


def make_config(**changes: Any) -> Any:
    """Four heads or more, three convolution inputs before each token, chunks of 8."""
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "head_dim": 8,
        "num_heads": 8,
        "n_groups": 2,
        "state_size": 8,
        "chunk_size": 8,
        "vocab_size": VOCABULARY,
        "initializer_range": 0.2,
    }
    return Mamba2Config(
        **{**shape, **changes}, expand=2, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )


def make_model(dtype: torch.dtype = torch.float64, *, seed: int = 0, **changes: Any) -> Any:
    """A model in training mode; ``activation`` and ``backend`` go to the model."""
    how = {key: changes.pop(key) for key in ("activation", "backend") if key in changes}
    torch.manual_seed(seed)
    return StudentModel(make_config(**changes), **how).to(dtype).train()


def make_documents(lengths: Sequence[int], seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator) for length in lengths]


def pack(documents: Sequence[Tensor]) -> dict[str, Tensor]:
    """One row; every token is a label, the first ones of documents too."""
    ids = torch.cat(list(documents))[None]
    lengths = torch.tensor([len(document) for document in documents])
    numbers = torch.repeat_interleave(torch.arange(len(documents)), lengths)[None]
    return {"input_ids": ids, "labels": ids, "seq_idx": numbers}


def pad_rows(
    documents: Sequence[Tensor], left: Sequence[int], right: Sequence[int]
) -> dict[str, Tensor]:
    """One document a row with so much padding on either side; all rows must get one length."""
    ids = torch.stack(
        [
            torch.nn.functional.pad(document, (before, after), value=7)
            for document, before, after in zip(documents, left, right, strict=True)
        ]
    )
    mask = torch.stack(
        [
            torch.nn.functional.pad(torch.ones_like(document), (before, after))
            for document, before, after in zip(documents, left, right, strict=True)
        ]
    )
    return {
        "input_ids": ids,
        "labels": torch.where(mask == 1, ids, -100),
        "attention_mask": mask,
    }


def gradients(model: Any, batches: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Of the batches' losses added up."""
    model.zero_grad()
    for batch in batches:
        model(**batch).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def separate_gradients(model: Any, documents: Sequence[Tensor]) -> dict[str, Tensor]:
    """One document a pass, divided by the labels of all."""
    total = sum(len(document) - 1 for document in documents)
    return gradients(
        model,
        [{"input_ids": d[None], "labels": d[None], "num_items_in_batch": total} for d in documents],
    )


def largest_error(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Largest relative error of a parameter's gradient, in the 2-norm."""
    return max(float((found[n] - g).norm() / g.norm()) for n, g in wanted.items())
