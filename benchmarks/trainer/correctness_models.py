"""Models and documents of the correctness table, with what was computed kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Mamba2Config

from trainer.model.student import StudentModel
from trainer.probe_gradients import DocumentGradients, NamedGradients, Rows

MULTIPLE = 128
LENGTHS = {
    "cuda": [700, 2, 37, 350, 3, 511, 129, 255],
    "cpu": [170, 2, 37, 90, 3, 63, 65],
}
"""1,987 tokens, padded to 2,048, and a quarter of that."""
VOCABULARY = 4096


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to compute gradients."""

    backend: str
    dtype: torch.dtype
    """Of the weights."""
    autocast: bool = False
    activation: str = "none"

    @property
    def dtype_name(self) -> str:
        """``float64``, ``float32``, ``bfloat16`` or ``autocast``."""
        return "autocast" if self.autocast else str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        return f"{self.backend}, {self.dtype_name}"


class Bench:
    """One model's weights in every kind, and one row of documents.

    Args:
        device: ``cpu`` or ``cuda``.
        backends: Those that run here.
    """

    def __init__(self, device: str, backends: Sequence[str]) -> None:
        self.device, self.backends = device, backends
        self.config = make_config(device)
        torch.manual_seed(0)
        self.weights = StudentModel(self.config).double().state_dict()
        for name, value in self.weights.items():
            if name.endswith("in_proj.weight"):
                value.normal_(std=value.shape[1] ** -0.5)
            # Representable in bf16, so that every kind is of the same model.
            self.weights[name] = value.bfloat16().double()
        self.rows: Rows = [
            [torch.randint(3, VOCABULARY, (length,)).tolist() for length in LENGTHS[device]]
        ]
        if "triton" in backends:
            prepare_kernels(self.config, sum(LENGTHS[device]))
        self._kept: dict[tuple[str, Kind], NamedGradients] = {}
        self.reference = self.separate(Kind("torch", torch.float64))

    def packed(self, kind: Kind) -> NamedGradients:
        """All documents in one row."""
        return self._keep("packed", kind)

    def separate(self, kind: Kind) -> NamedGradients:
        """Each document alone."""
        return self._keep("separate", kind)

    def leaking(self, kind: Kind) -> NamedGradients:
        """All documents in one row, and the model is not told."""
        return self._keep("leaking", kind)

    def fresh(self, kind: Kind) -> NamedGradients:
        """:meth:`packed`, computed now."""
        return self.gradients_of(kind).packed(self.rows)

    def loss(self, kind: Kind, *, with_labels: bool) -> float:
        """Mean loss of the row."""
        batch = self.gradients_of(kind).make_batch(self.rows, with_labels=with_labels)
        return float(self.make_model(kind)(**batch).loss)

    def make_model(self, kind: Kind) -> StudentModel:
        """The model on the device, in training mode."""
        model = StudentModel(self.config, backend=kind.backend, activation=kind.activation)
        model.double().load_state_dict(self.weights)
        prepared: StudentModel = model.to(self.device, kind.dtype).train()
        return prepared

    def gradients_of(self, kind: Kind) -> DocumentGradients:
        """What computes gradients in this way."""

        def compute(model: Any, batch: dict[str, Any]) -> Any:
            with torch.autocast(self.device, dtype=torch.bfloat16, enabled=kind.autocast):
                return model(**batch).loss

        return DocumentGradients(self.make_model(kind), compute, MULTIPLE)

    def _keep(self, what: str, kind: Kind) -> NamedGradients:
        if (what, kind) not in self._kept:
            compute = self.gradients_of(kind)
            if what == "separate":
                found = compute.one_by_one(self.rows)
            else:
                found = compute.packed(self.rows, with_labels=what == "packed")
            self._kept[what, kind] = found
        return self._kept[what, kind]


def list_kinds(bench: Bench) -> list[Kind]:
    """All that run here; float64 only on PyTorch. bf16 on a CPU is slow and left to the tests."""
    kinds = [Kind("torch", torch.float64), Kind("torch", torch.float32)]
    if bench.device == "cuda":
        for backend in bench.backends:
            kinds += [
                *([] if backend == "torch" else [Kind(backend, torch.float32)]),
                Kind(backend, torch.bfloat16),
                Kind(backend, torch.float32, autocast=True),
            ]
    return kinds


def make_config(device: str, **changes: Any) -> Any:
    """4 layers of d = 512 with 8 groups on a GPU; 2 of d = 128 on a CPU."""
    large = {"hidden_size": 512, "num_hidden_layers": 4, "head_dim": 64, "state_size": 128}
    small = {"hidden_size": 128, "num_hidden_layers": 2, "head_dim": 16, "state_size": 32}
    shape: dict[str, Any] = large if device == "cuda" else small
    shape["num_heads"] = 2 * shape["hidden_size"] // shape["head_dim"]
    shape |= {"n_groups": 8, "chunk_size": 256 if device == "cuda" else 64, **changes}
    return Mamba2Config(
        **shape, vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )


def prepare_kernels(config: Any, length: int) -> None:
    """Compile in parallel; in float32 the scan's smallest tiles, since others may not fit."""
    from trainer.kernels.precompile import Workload, precompile_all
    from trainer.kernels.tiles import list_smallest_tiles, pin_tiles

    began = time.perf_counter()
    pin_tiles(list_smallest_tiles())
    rounded = -(-length // MULTIPLE) * MULTIPLE
    workloads = [
        Workload(config, dtype, size, weight_dtype=weights, has_documents=documents)
        for dtype, weights in (
            (torch.float32, None),
            (torch.bfloat16, None),
            (torch.bfloat16, torch.float32),
        )
        for size, documents in ((MULTIPLE, True), (rounded, True), (rounded, False))
    ]
    compiled = precompile_all(workloads)
    seconds = time.perf_counter() - began
    print(f"{seconds:6.1f} s  {compiled.num_kernels} kernels compiled", file=sys.stderr, flush=True)
