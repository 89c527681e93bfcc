"""Weights, gradients and moments spread over the processes of a run (FSDP2), one block at a time.

Weights are gathered in a step's first pass and freed in its last, and gradients are reduced to the
process that owns the piece in the last: what a pass then does is what it does on one device. With
``training.gather_every_pass`` a block's weights are freed as soon as it is done with them, with
``training.reduce_every_pass`` no gradient waits. With
bf16 precision the gathered copies are bf16 and the pieces, which the optimiser updates, float32.
Models are built without memory and filled from the main process, so that no other one ever holds a
whole model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pipeline.settings.recipe import Recipe
from trainer.model import Init, build_config, load_model
from trainer.processes import Processes


def load_sharded(recipe: Recipe, init: Init, backend: str, processes: Processes) -> Any:
    """The model a phase starts from, each process holding its part of every weight.

    The values are those of :func:`trainer.model.load_model`, bit for bit.

    Args:
        recipe: Shape, seed, precision and activation policy.
        init: Where weights come from; only the main process reads them.
        backend: Of the mixer.
        processes: Joined processes.
    """
    import torch
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    from trainer.model.student import StudentModel

    settings, training = recipe.settings.model, recipe.settings.training
    how = {"backend": backend, "activation": training.activation}
    with torch.device("meta"):
        model = StudentModel(build_config(settings), **how)
    shard(model, bf16=training.precision == "bf16_autocast")
    if not training.gather_every_pass:
        model.set_reshard_after_forward(False)
    # What the training loop asks a model for, for all passes of a step but the last.
    model.no_sync = partial(
        hold,
        model,
        weights=not training.gather_every_pass,
        gradients=not training.reduce_every_pass,
    )
    device = torch.device("cuda", torch.cuda.current_device()) if _on_gpu() else "cpu"
    model.to_empty(device=device)
    if settings.tie_word_embeddings:
        # to_empty made two tensors of what is one.
        model.lm_head.weight = model.backbone.embeddings.weight
    full = {}
    if processes.is_main:
        full = load_model(settings, init, training.seed, **how).state_dict()
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, full, options=options)
    return model


def shard(model: Any, *, bf16: bool) -> None:
    """Apply FSDP2 to every block and to what remains."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    world = torch.distributed.get_world_size()
    mesh = init_device_mesh("cuda" if _on_gpu() else "cpu", (world,))
    # The residual stream is a float32 input of every block and stays one.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    for block in model.backbone.layers:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


@contextmanager
def hold(model: Any, *, weights: bool, gradients: bool) -> Iterator[None]:
    """Keep whole on each process what a pass gathered and made, for the next pass of the step.

    A step's last pass must run outside: the optimiser updates the pieces, and weights that stayed
    whole would be those of before.

    Args:
        model: Sharded.
        weights: Do not free them after the backward pass.
        gradients: Do not reduce them; they are reduced with those of a later pass.
    """
    model.set_requires_gradient_sync(not gradients)
    model.set_reshard_after_backward(not weights)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)
        model.set_reshard_after_backward(True)


def gather_weights(model: Any) -> dict[str, Any]:
    """All weights on the CPU of the main process; every process must call this."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return dict(get_model_state_dict(model, options=options))


def is_sharded(model: Any) -> bool:
    """Whether :func:`shard` was applied."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def _on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
