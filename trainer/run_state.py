"""Weights and optimiser of a run, to a checkpoint's folder and back, exactly.

One process writes ``model.safetensors`` and ``optimizer.pt``. Several write ``sharded/`` with
``torch.distributed.checkpoint``, each its own part, which any number of processes can read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import SourceError
from trainer.sharding import gather_weights, is_sharded

WEIGHTS, OPTIMIZER, SCHEDULE, SHARDED = (
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "sharded",
)
CARRIED = "optimizer"
"""Folder of a published checkpoint whose moments the next phase may go on with."""


def save_state(model: Any, optimizer: Any, folder: Path) -> None:
    """Write weights and optimiser; every process must call this."""
    import torch
    from safetensors.torch import save_model

    if is_sharded(model):
        _save_sharded(model, optimizer, folder / SHARDED)
        return
    save_model(model, str(folder / WEIGHTS))
    torch.save(optimizer.state_dict(), folder / OPTIMIZER)


def load_weights(model: Any, folder: Path) -> None:
    """Read weights back into a model that is not sharded; sharded ones come with the optimiser.

    Raises:
        SourceError: The checkpoint is of a run with another number of processes than one, or one.
    """
    from safetensors.torch import load_model

    if is_sharded(model):
        return
    if not (folder / WEIGHTS).is_file():
        raise _other_processes(folder)
    load_model(model, str(folder / WEIGHTS))


def load_optimizer(model: Any, optimizer: Any, folder: Path) -> None:
    """Read the optimiser back, and a sharded model's weights with it.

    Raises:
        SourceError: See :func:`load_weights`.
    """
    import torch

    if is_sharded(model):
        if not (folder / SHARDED).is_dir():
            raise _other_processes(folder)
        _load_sharded(model, optimizer, folder / SHARDED)
        return
    state = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
    optimizer.load_state_dict(state)


def save_moments(model: Any, optimizer: Any, folder: Path) -> None:
    """Put the optimiser's state into a model folder, for ``training.carry_optimizer``."""
    import torch

    target = folder / CARRIED
    if is_sharded(model):
        _save_sharded(model, optimizer, target, with_model=False)
        return
    target.mkdir(parents=True, exist_ok=True)
    torch.save(optimizer.state_dict(), target / OPTIMIZER)


def load_moments(model: Any, optimizer: Any, folder: Path) -> None:
    """Take over the moments of the phase before; rates and decay stay the new phase's.

    Raises:
        SourceError: The checkpoint was trained without ``carry_optimizer``, or by one process
            where there are several now, or the other way round.
    """
    import torch

    source = folder / CARRIED
    fits = source.is_dir() and (source / OPTIMIZER).is_file() != is_sharded(model)
    if not fits:
        raise SourceError(
            f"training.carry_optimizer: {folder} holds no moments that fit this run",
            hint="train the phase before with training.carry_optimizer = true and as many "
            "processes (one, or several), or set it to false",
        )
    kept = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    if is_sharded(model):
        _load_sharded(model, optimizer, source, with_model=False)
    else:
        state = torch.load(source / OPTIMIZER, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, kept, strict=True):
        group.pop("initial_lr", None)
        group.update(settings)


def full_weights(model: Any, optimizer: Any) -> dict[str, Any]:
    """What is published: the exact weights, float32 where the run keeps float32 ones."""
    from trainer.optim.host_master import HostMasterAdamW

    if is_sharded(model):
        return gather_weights(model)
    weights: dict[str, Any] = dict(model.state_dict())
    if isinstance(optimizer, HostMasterAdamW):
        named = dict(model.named_parameters(remove_duplicate=False))
        weights |= {name: optimizer.master_of(parameter) for name, parameter in named.items()}
    return weights


def _save_sharded(model: Any, optimizer: Any, folder: Path, *, with_model: bool = True) -> None:
    from torch.distributed.checkpoint.state_dict_saver import save

    save(_sharded_state(model, optimizer, with_model=with_model), checkpoint_id=str(folder))


def _load_sharded(model: Any, optimizer: Any, folder: Path, *, with_model: bool = True) -> None:
    from torch.distributed.checkpoint.state_dict import (
        set_model_state_dict,
        set_optimizer_state_dict,
    )
    from torch.distributed.checkpoint.state_dict_loader import load

    state = _sharded_state(model, optimizer, with_model=with_model)
    load(state, checkpoint_id=str(folder))
    if with_model:
        set_model_state_dict(model, state["model"])
    set_optimizer_state_dict(model, optimizer, state["optimizer"])


def _sharded_state(model: Any, optimizer: Any, *, with_model: bool) -> dict[str, Any]:
    from torch.distributed.checkpoint.state_dict import (
        get_model_state_dict,
        get_optimizer_state_dict,
    )

    state: dict[str, Any] = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    if with_model:
        state["model"] = get_model_state_dict(model)
    return state


def _other_processes(folder: Path) -> SourceError:
    return SourceError(
        f"{folder} was written by a run of one process and this one has several, or the other way "
        "round",
        hint="go on with as many processes as before, or delete the checkpoint's run folder",
    )
