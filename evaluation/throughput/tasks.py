"""What is measured of each model: batches to find, and places in a sequence to time."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.throughput.shapes import Subject
from pipeline.settings.throughput import ThroughputSettings


@dataclass(frozen=True, slots=True)
class Task:
    """A batch to find and to time."""

    budget_gb: float
    mode: str
    """As in :class:`evaluation.throughput.records.Group`."""
    length: int
    tokens: int
    """Room of a sequence in the cache; 0: any."""
    positions: tuple[int, ...]
    """Tokens read before the timed steps."""


def list_tasks(settings: ThroughputSettings, subject: Subject) -> list[Task]:
    """All of one model. A Mamba-2's batch serves every length.

    A Transformer's step costs the more the fuller its cache is, so each length has a batch of its
    own and is timed at its start, middle and end; ``paged`` needs the mean fill only.
    """
    prompt, lengths = settings.prompt_tokens, settings.lengths
    tasks = []
    for budget in settings.budgets_gb:
        if subject.kind == "mamba2":
            places = (prompt, *(prompt + length - 1 for length in lengths))
            tasks.append(Task(budget, "constant", 0, 0, places))
            continue
        for length in lengths:
            middle, end = prompt + length // 2, prompt + length - 1
            tasks.append(Task(budget, "reserved", length, end + 1, (prompt, middle, end)))
            tasks.append(Task(budget, "paged", length, middle + 1, (middle,)))
    return tasks
