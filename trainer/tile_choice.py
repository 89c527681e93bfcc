"""The tiles of the scan's kernels, chosen once for a run and kept.

Two tiles round differently, and Triton times them anew in every process: without this a resumed run
could end in other bits than one that was never stopped, and two processes of a run could round
differently. They are timed on one block at the length of the run's rows, so that the short rows
of the leak probe do not decide.

    <staging>/tiles.json                    what this run uses, also after a kill
    $TRITON_CACHE_DIR/tiles-<key>.json      what the next run of this kind on this machine takes
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.hashing import content_hash
from pipeline.settings.training import ModelSettings, TrainingSettings
from pipeline.store import write_json
from trainer.job import Job
from trainer.kernels.availability import MAMBA_VERSION, is_interpreted
from trainer.kernels.precompile import cache_folder
from trainer.kernels.tiles import Tile, pin_tiles, read_tiles
from trainer.model import build_config
from trainer.processes import Processes, device_name
from trainer.recipe import phase_settings

TILES = "tiles.json"
MAX_TOKENS = 16_384
"""Of the rows that tiles are timed on; longer ones only repeat the same work."""


def settle_tiles(job: Job, processes: Processes) -> None:
    """Pin each of the scan's kernels to one tile, in every process; mamba-ssm must be loaded.

    Args:
        job: Its staging folder holds the run's tiles; they are chosen if it has none.
        processes: The main one chooses for all.
    """
    if is_interpreted():
        return
    pin_tiles(processes.share(_find_tiles(job) if processes.is_main else None))


def _find_tiles(job: Job) -> dict[str, Tile]:
    """The run's own tiles, those of a run like it on this machine, or new ones."""
    training = job.recipe.settings.training
    row_tokens = training.row_tokens(phase_settings(job.recipe, job.phase))
    model = job.recipe.settings.model
    length = -(-min(row_tokens, MAX_TOKENS) // model.chunk_size) * model.chunk_size
    own, device = job.staging / TILES, device_name()
    stored = _read(own)
    if stored is not None and stored["device"] == device:
        return dict(stored["tiles"])
    if stored is not None:
        console.warn(
            f"this run began on {stored['device']} and goes on with {device}: its kernels round "
            "differently, so it will not end in the same bits"
        )
    shared = cache_folder() / f"tiles-{_name_key(model, training, length)}.json"
    known = _read(shared)
    if known is None:
        known = {"device": device, "tiles": choose_tiles(model, training, length)}
        write_json(shared, known)
    write_json(own, known)
    return dict(known["tiles"])


def choose_tiles(model: ModelSettings, training: TrainingSettings, length: int) -> dict[str, Tile]:
    """Let Triton time the proposed tiles on one block's forward and backward pass.

    Args:
        model: Shape of the student.
        training: Precision, recomputation and rows of a pass.
        length: Tokens of a row, whole chunks.
    """
    import torch

    from trainer.model.student import StudentModel

    config = build_config(model)
    config.num_hidden_layers = 1
    has_masters = training.precision in ("float32", "bf16_autocast")
    with torch.device("cuda"):
        student = StudentModel(config, backend="triton", activation=training.activation)
        student = student.to(torch.float32 if has_masters else torch.bfloat16).train()
        ids = torch.ones(training.micro_batch, length, dtype=torch.int64)
        documents = (torch.arange(length, dtype=torch.int32) // 2048).expand_as(ids).contiguous()
    with torch.autocast("cuda", torch.bfloat16, enabled=training.precision != "float32"):
        loss = student(ids, seq_idx=documents, labels=ids).loss
    loss.backward()
    tiles = read_tiles()
    del student, loss
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return tiles


def _name_key(model: ModelSettings, training: TrainingSettings, length: int) -> str:
    """Whatever may make another tile the fastest."""
    import triton

    shape = model.model_dump(mode="json", exclude={"init_from", "revision", "num_hidden_layers"})
    policy = [training.precision, training.activation, training.micro_batch, length]
    where = [triton.__version__, MAMBA_VERSION, device_name()]
    return content_hash([shape, policy, where])[:16]


def _read(path: Path) -> dict[str, Any] | None:
    """A file of tiles; none if it is not there."""
    if not path.is_file():
        return None
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values
