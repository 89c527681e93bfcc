"""What decides the rows of a training run, taken from a recipe and the number of processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from pipeline.settings.training import PhaseTraining, TrainingSettings

Packing = Literal["off", "exact", "best_fit"]
Order = Literal["as_given", "shuffled"]

PAD_MULTIPLE = 128
"""A row length that is no multiple of 16 makes the kernels 6 % slower (measured), and few distinct
lengths have to be compiled."""
PACKING_WINDOW = 1024
"""Documents that ``best_fit`` looks at together: 99 % full rows, and no document moves further."""
ENCODED_ROWS = 64
"""Rows read and encoded together; 64 take some 90 MB, 512 some 220 MB beside what a process has
anyway (measured, 6,000 tokens a row)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Settings of reading, packing and order; all but the last two lines decide the rows."""

    packing: Packing
    documents_per_step: int
    max_length: int
    """Longest document, in tokens; longer ones are dropped whole and counted."""
    max_row_tokens: int
    """Longest row, in tokens."""
    order: Order = "as_given"
    seed: int = 0
    epochs: float = 1.0
    max_steps: int = -1
    """Optimiser steps of the run; -1 follows ``epochs``."""
    micro_batch: int = 1
    """Rows of one forward pass of one process."""
    num_processes: int = 1
    pad_multiple: int = PAD_MULTIPLE
    window: int = PACKING_WINDOW
    encoded_rows: int = ENCODED_ROWS
    """Bounds the memory of tokenising; changes no result."""

    @property
    def row_unit(self) -> int:
        """Rows that all processes take together in one forward pass."""
        return self.micro_batch * self.num_processes


def data_settings(
    phase: PhaseTraining,
    training: TrainingSettings,
    *,
    num_processes: int | None = None,
    pad_multiple: int = PAD_MULTIPLE,
) -> DataSettings:
    """The data's part of a recipe.

    Args:
        phase: The phase's section.
        training: The section of all phases.
        num_processes: Processes that share the rows of a step; those that torchrun started by
            default.
        pad_multiple: Rows are padded to a multiple of this many tokens, e.g. the model's chunk.
    """
    if num_processes is None:
        num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    return DataSettings(
        packing=training.packing,
        documents_per_step=training.documents_per_step,
        max_length=phase.max_length,
        max_row_tokens=training.max_row_tokens or phase.max_length,
        order=training.order,
        seed=training.seed,
        epochs=phase.epochs,
        max_steps=phase.max_steps,
        micro_batch=training.micro_batch,
        num_processes=num_processes,
        pad_multiple=pad_multiple,
        encoded_rows=training.tokenise_batch_rows,
    )
