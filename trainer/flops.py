"""Floating-point operations of a Mamba-2's training, and what devices can do.

Counting as in ``docs/design.md``: 6 a matmul parameter and token (the output head counts, the
embedding's lookup does not), plus three times the scan's forward pass. Recomputed activations
do not count: MFU is of useful work.
"""

from __future__ import annotations

from pipeline.settings.training import ModelSettings
from pipeline.student import VOCAB_SIZE

PEAK_FLOPS = {
    # What a large bf16 matmul reaches on this card (measured), not the 989 of the data sheet.
    "H100": 780e12,
    "H200": 780e12,
    # Data sheets, dense bf16.
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "4090": 165e12,
}
"""Part of a GPU's name → bf16 operations a second."""


def matmul_parameters(model: ModelSettings) -> int:
    """Parameters that multiply: projections of every block and the output head."""
    inner = model.hidden_size * model.expand
    heads = inner // model.head_dim
    width = 2 * inner + 2 * model.n_groups * model.state_size + heads
    blocks = model.num_hidden_layers * (model.hidden_size * width + inner * model.hidden_size)
    return blocks + VOCAB_SIZE * model.hidden_size


def flops_per_token(model: ModelSettings) -> float:
    """Of a forward and backward pass."""
    inner = model.hidden_size * model.expand
    chunk, state = model.chunk_size, model.state_size
    scan = model.num_hidden_layers * (
        chunk * state * model.n_groups + chunk * inner + 4 * state * inner
    )
    return 6.0 * matmul_parameters(model) + 3.0 * scan


def peak_flops(device: str) -> float | None:
    """Of a device by its name; none where it is not known, as for CPUs."""
    return next((peak for name, peak in PEAK_FLOPS.items() if name in device), None)
