"""Memory of a training step by parts, and which setting to change when it does not fit.

Per token and block the estimate counts what the Triton path keeps for its backward pass; it was
within 10 % of the measured peaks at 1.3B and 7B, with and without recomputation (docs/design.md).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from pipeline.settings.training import ModelSettings, PhaseTraining, TrainingSettings
from pipeline.student import VOCAB_SIZE

GIB = 1 << 30
_HEADROOM_GIB = 1.0
"""The device's context, kernels and fragmentation."""
_LOSS_TOKENS = 2048
"""Tokens whose logits exist at once."""

# Bytes a parameter on the device: weights, gradients, optimiser, copies for the matmuls.
_DEVICE_BYTES = {
    "float32": (4.0, 4.0, 8.0, 0.0),
    "bf16_autocast": (4.0, 4.0, 8.0, 2.0),
    "host_master": (2.0, 2.0, 0.0, 0.0),
    "stochastic": (2.0, 2.0, 2.04, 0.0),
}
_HOST_BYTES = {"host_master": 12.0}


@dataclass(frozen=True, slots=True)
class Shape:
    """What the estimate depends on."""

    model: ModelSettings
    num_parameters: int
    micro_batch: int
    row_tokens: int
    """Longest row of a forward pass, padding included."""
    precision: str
    activation: str
    backend: str
    world_size: int = 1
    reduce_every_pass: bool = False
    gather_every_pass: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """GiB of one device, and of the host."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    loss: float
    host: float

    @property
    def device(self) -> float:
        """All of a device's parts, with headroom."""
        parts = self.weights + self.gradients + self.optimizer + self.activations + self.loss
        return parts + _HEADROOM_GIB


def estimate(shape: Shape) -> Estimate:
    """Peak memory of a forward and backward pass and the optimiser."""
    weights, gradients, optimizer, copies = _DEVICE_BYTES[shape.precision]
    owned = shape.num_parameters / shape.world_size / GIB
    whole = copies * shape.num_parameters / GIB
    if shape.world_size > 1:
        # In the dtype of the matmuls.
        whole = (copies or 4.0) * _gathered_parameters(shape) / GIB
        if not shape.reduce_every_pass:
            # Gradients of a step's earlier passes wait whole, in float32.
            whole += 4.0 * shape.num_parameters / GIB
    return Estimate(
        weights=weights * owned + whole,
        gradients=gradients * owned,
        optimizer=optimizer * owned,
        activations=_activation_bytes(shape) / GIB,
        loss=(2 * _LOSS_TOKENS * VOCAB_SIZE * 4 + 4 * VOCAB_SIZE * shape.model.hidden_size) / GIB,
        host=_HOST_BYTES.get(shape.precision, 0.0) * shape.num_parameters / GIB,
    )


def _gathered_parameters(shape: Shape) -> float:
    """Whole on each of several devices: all, or two blocks and the embeddings."""
    if not shape.gather_every_pass:
        return shape.num_parameters
    blocks = shape.model.num_hidden_layers
    embeddings = 2 * VOCAB_SIZE * shape.model.hidden_size
    return 2 * shape.num_parameters / blocks + embeddings


def _activation_bytes(shape: Shape) -> float:
    model = shape.model
    blocks = model.num_hidden_layers
    kept = {"none": blocks, "all": 1, "every_second": (blocks + 1) // 2}[shape.activation]
    tokens = shape.micro_batch * shape.row_tokens
    residual = 4.0 * model.hidden_size * blocks
    return tokens * (residual + kept * _block_bytes(shape))


def _block_bytes(shape: Shape) -> float:
    """Kept per token by one block whose activations are not recomputed."""
    model = shape.model
    inner = model.hidden_size * model.expand
    heads = inner // model.head_dim
    convolved = inner + 2 * model.n_groups * model.state_size
    projected = inner + convolved + heads
    size = 4.0 if shape.precision == "float32" else 2.0
    states = 4.0 * inner * model.state_size / model.chunk_size
    if shape.backend == "torch":
        # B and C repeated to every head, and each chunk's scores and decays.
        return 4.0 * (10 * inner + 6 * heads * model.state_size + 5 * heads * model.chunk_size)
    return size * (projected + convolved + 1.5 * inner + model.hidden_size) + states


def make_shape(
    model: ModelSettings,
    training: TrainingSettings,
    phase: PhaseTraining,
    *,
    num_parameters: int,
    backend: str,
) -> Shape:
    """The shape of a recipe's phase on one device, its rows as long as they may be."""
    row_tokens = phase.max_length if training.packing == "off" else training.row_tokens(phase)
    return Shape(
        model=model,
        num_parameters=num_parameters,
        micro_batch=training.micro_batch,
        row_tokens=row_tokens,
        precision=training.precision,
        activation=training.activation,
        backend=backend,
        reduce_every_pass=training.reduce_every_pass,
        gather_every_pass=training.gather_every_pass,
    )


def list_remedies(shape: Shape, available_gib: float) -> list[str]:
    """Changes of one setting that make a step fit, each with what it would then need.

    If none is enough alone, the ones that help are listed, the best first.
    """
    changes = [
        ("training.micro_batch = 1", replace(shape, micro_batch=1)),
        ('training.activation = "every_second"', replace(shape, activation="every_second")),
        ('training.activation = "all"', replace(shape, activation="all")),
        ('training.precision = "stochastic"', replace(shape, precision="stochastic")),
        ('training.precision = "host_master"', replace(shape, precision="host_master")),
        ("training.gather_every_pass = true", replace(shape, gather_every_pass=True)),
        ("training.reduce_every_pass = true", replace(shape, reduce_every_pass=True)),
        *[
            (f"{number} GPUs (torchrun --nproc-per-node {number})", _sharded(shape, number))
            for number in (2, 4, 8)
            if number > shape.world_size
        ],
    ]
    now = estimate(shape).device
    helping = [
        (text, estimate(changed).device)
        for text, changed in changes
        if changed != shape and estimate(changed).device < now
    ]
    enough = [change for change in helping if change[1] <= available_gib]
    chosen = enough[:3] or sorted(helping, key=lambda change: change[1])[:3]
    return [f"{text}: {now:.2f} → {needed:.2f} GiB" for text, needed in chosen]


def _sharded(shape: Shape, world_size: int) -> Shape:
    policy = "float32" if shape.precision == "float32" else "bf16_autocast"
    return replace(shape, world_size=world_size, precision=policy)


def available_gib() -> float:
    """Memory of the GPU, or of this machine where there is none."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[1]) / GIB
    return host_gib()


def host_gib() -> float:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
