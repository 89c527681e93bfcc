"""Gradients of documents packed into rows and of the same documents one by one.

Both go through the trainer's collator and loss, on a small model of the class to be trained. What
is done with the difference is said in :mod:`trainer.probe` and ``benchmarks/trainer``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from trainer.data.collator import Collator
from trainer.model.student import StudentModel

NUM_LAYERS = 2
VOCABULARY = 1024
"""Of the small model: neither depth nor vocabulary decides whether documents meet."""

NamedGradients = dict[str, torch.Tensor]
Rows = Sequence[Sequence[list[int]]]
"""Rows of documents of token ids."""

LossFunction = Callable[[Any, dict[str, Any]], Any]
"""(model, batch) → mean loss of the batch's labelled tokens. The batch is what the collator gives:
``input_ids``, ``labels`` and ``seq_idx`` on the device."""


def build_small(model: StudentModel, device: torch.device, dtype: torch.dtype) -> StudentModel:
    """The model's width with two layers, and weights under which states live long."""
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = min(NUM_LAYERS, config.num_hidden_layers)
    config.vocab_size = min(VOCABULARY, config.vocab_size)
    with torch.device(device):
        small = StudentModel(config, backend=model.backend, activation=model.activation)
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            if name.endswith("in_proj.weight"):
                # Wide projections by the configuration's own range would saturate step and decay.
                parameter.normal_(std=parameter.shape[1] ** -0.5)
    prepared: StudentModel = small.to(dtype).train()
    return prepared


def draw_rows(chunk: int, vocabulary: int) -> Rows:
    """Two rows of documents: boundaries within, at and next to a chunk's, short ones in between."""
    lengths = [[37, 2, 5, max(3, chunk - 44), chunk // 2 + 3], [chunk + 1, 1, 3, chunk // 4 + 2]]
    return [
        [torch.randint(3, vocabulary, (length,), device="cpu").tolist() for length in row]
        for row in lengths
    ]


class DocumentGradients:
    """Gradients of a mean loss over documents, by name, in float64 on the CPU."""

    def __init__(self, model: StudentModel, loss_fn: LossFunction, pad_multiple: int) -> None:
        self._model, self._loss_fn = model, loss_fn
        self._collate = Collator(pad_multiple)
        self._device = next(model.parameters()).device

    def one_by_one(self, rows: Rows) -> NamedGradients:
        """Each document alone in a batch, weighted by its labels."""
        documents = [document for row in rows for document in row if len(document) > 1]
        total = sum(len(document) - 1 for document in documents)
        self._model.zero_grad()
        for document in documents:
            self._backward([[document]], (len(document) - 1) / total)
        return self._take()

    def packed(self, rows: Rows, *, with_labels: bool = True) -> NamedGradients:
        """All rows in one batch; without labels each row is one document."""
        self._model.zero_grad()
        self._backward(rows, 1.0, with_labels=with_labels)
        return self._take()

    def _backward(self, rows: Rows, weight: float, *, with_labels: bool = True) -> None:
        batch = self.make_batch(rows, with_labels=with_labels)
        (self._loss_fn(self._model, batch) * weight).backward()

    def make_batch(self, rows: Rows, *, with_labels: bool = True) -> dict[str, torch.Tensor]:
        """Rows of documents as the trainer's collator gives them, on the model's device."""
        batch = self._collate([make_row(row) for row in rows])
        if not with_labels:
            del batch["seq_idx"]
        return {name: value.to(self._device) for name, value in batch.items()}

    def _take(self) -> NamedGradients:
        found = {}
        for name, parameter in self._model.named_parameters():
            assert parameter.grad is not None, f"no gradient reaches {name}"
            found[name] = parameter.grad.detach().to("cpu").double()
        return found


def make_row(documents: Sequence[list[int]]) -> dict[str, Any]:
    """A packed row: every token but a document's first is a label."""
    lengths = [len(document) for document in documents]
    return {
        "input_ids": np.concatenate([np.array(d) for d in documents]),
        "labels": np.concatenate([np.array([-100, *d[1:]]) for d in documents]),
        "seq_idx": np.repeat(np.arange(len(documents)), lengths),
    }


def own_loss(dtype: Any) -> LossFunction:
    """The model's own loss; under autocast when it computes in another dtype than its weights."""

    def compute(model: Any, batch: dict[str, Any]) -> Any:
        device, weights = batch["input_ids"].device.type, next(model.parameters()).dtype
        with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype != weights):
            return model(**batch).loss

    return compute


def relative_error(found: NamedGradients, wanted: NamedGradients) -> float:
    """2-norm of the difference of all gradients over the 2-norm of the wanted ones."""
    difference = sum(float((found[name] - wanted[name]).square().sum()) for name in wanted)
    size = sum(float(gradient.square().sum()) for gradient in wanted.values())
    return math.sqrt(difference / size)


def find_worst(found: NamedGradients, wanted: NamedGradients) -> tuple[str, float]:
    """The parameter whose gradient differs most from the wanted one, and by how much of it."""
    errors = {
        name: float((found[name] - gradient).norm() / gradient.norm())
        for name, gradient in wanted.items()
    }
    name = max(errors, key=errors.__getitem__)
    return name, errors[name]
