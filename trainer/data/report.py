"""What a run's rows are in figures: before training for a plan, after it for its report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data.schedule import Schedule
from trainer.data.settings import DataSettings

Int64s = npt.NDArray[np.int64]

_FILL_BINS = 20


@dataclass(frozen=True, slots=True)
class Histogram:
    """Ready to plot: ``counts[i]`` rows lie between ``edges[i]`` and ``edges[i + 1]``."""

    edges: list[float]
    counts: list[int]


@dataclass(slots=True)
class Counts:
    """What became of a version's documents, and what the optimiser steps are made of."""

    num_rows: int = 0
    """Documents (rows of the version) trained on in one epoch."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Documents left out, by reason."""
    num_tokens: int = 0
    """Tokens of one epoch, prompts included."""
    num_labelled_tokens: int = 0
    """Tokens of one epoch that carry loss."""
    num_steps: int = 0
    """Optimiser steps of the run."""
    rows_per_step: int = 0
    """Packed rows of every step, over all processes."""
    step_tokens: list[int] = field(default_factory=list)
    """Tokens of each step of the run, without padding."""
    step_documents: list[int] = field(default_factory=list)
    """Documents of each step of the run."""
    num_empty_rows: int = 0
    """Rows of the run that only fill up a step; they carry no loss."""
    longest_row: int = 0
    """Tokens of the longest row, padding included: what memory must hold."""
    padded_tokens: int = 0
    """Tokens of the run that pass through the model, padding included."""
    row_fill: Histogram = field(default_factory=lambda: Histogram([], []))
    """Rows by their share of ``max_row_tokens``, empty rows left out."""

    @property
    def real_token_share(self) -> float:
        """Share of the tokens that pass through the model which are no padding."""
        return sum(self.step_tokens) / max(1, self.padded_tokens)

    @property
    def padding_share(self) -> float:
        """Share of the tokens that pass through the model which are padding."""
        return 1 - self.real_token_share

    def describe(self) -> dict[str, Any]:
        """The figures as JSON: totals, and minimum, mean and maximum over the run's steps."""
        return {
            "documents_per_epoch": self.num_rows,
            "rejected": dict(sorted(self.rejected.items())),
            "tokens_per_epoch": self.num_tokens,
            "labelled_tokens_per_epoch": self.num_labelled_tokens,
            "num_steps": self.num_steps,
            "rows_per_step": self.rows_per_step,
            "documents_per_step": _spread(self.step_documents),
            "tokens_per_step": _spread(self.step_tokens),
            "empty_rows": self.num_empty_rows,
            "longest_row": self.longest_row,
            "real_token_share": round(self.real_token_share, 4),
            "padding_share": round(self.padding_share, 4),
            "row_fill": {"edges": self.row_fill.edges, "counts": self.row_fill.counts},
        }


def _spread(values: list[int]) -> dict[str, float]:
    return {"min": min(values), "mean": round(sum(values) / len(values), 2), "max": max(values)}


def count_run(
    lengths: Int64s, num_prompt: Int64s, schedule: Schedule, settings: DataSettings
) -> Counts:
    """Figures of a run; ``rejected`` is left to the caller.

    Args:
        lengths: Tokens of each document trained on.
        num_prompt: Tokens of each that carry no loss.
        schedule: The run's rows.
        settings: What decided them.
    """
    used = list(schedule.used_rows())
    loads = np.concatenate([epoch.loads[:end] for epoch, end in used])
    documents = np.concatenate([np.diff(epoch.starts[: end + 1]) for epoch, end in used])
    padded = pad_loads(loads, settings)
    filled = loads[loads > 0] / settings.max_row_tokens
    counts, edges = np.histogram(filled, bins=_FILL_BINS, range=(0, 1))
    return Counts(
        num_rows=len(lengths),
        num_tokens=int(lengths.sum()),
        num_labelled_tokens=int((lengths - num_prompt).sum()),
        num_steps=schedule.num_steps,
        rows_per_step=schedule.rows_per_step,
        step_tokens=_sum_steps(loads, schedule),
        step_documents=_sum_steps(documents, schedule),
        num_empty_rows=int((loads == 0).sum()),
        longest_row=int(padded.max()),
        padded_tokens=int(padded.sum()),
        row_fill=Histogram([round(float(e), 4) for e in edges], counts.tolist()),
    )


def pad_loads(loads: Int64s, settings: DataSettings) -> Int64s:
    """Tokens of each row as the collator pads it: like the longest of its forward pass."""
    longest = loads.reshape(-1, settings.micro_batch).max(axis=1)
    multiple = settings.pad_multiple
    padded = np.maximum(1, -(-longest // multiple)) * multiple
    return np.repeat(padded, settings.micro_batch)


def _sum_steps(values: Int64s, schedule: Schedule) -> list[int]:
    sums: list[int] = values.reshape(-1, schedule.rows_per_step).sum(axis=1).tolist()
    return sums
