"""What a run folder's answers took: tokens, time and money by stage and teacher.

The ledger is no log: it is summed from the stored answers, so a cost is counted exactly once, also
after ``kill -9``. Two figures are kept beside them, in the same transactions: requests that ended
without an answer, and working time, which a kill can shorten by about a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.account import FOLDER
from promptcot.engines.answers import read_spent
from promptcot.engines.budget import token_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """What one stage asked of one teacher, over all runs in a folder."""

    stage: str
    """The label that the stage gives its requests; mostly its own name."""
    teacher: str
    """Name in the recipe."""
    engine: str
    model: str
    requests: int
    """Requests that ended: stored plus failed."""
    stored: int
    """Answers that are kept."""
    failed: int
    """Requests that ended in an error; each new try that fails again counts again."""
    prompt_tokens: int
    completion_tokens: int
    """As the engine counts, failed requests included where it reported them."""
    seconds: float
    """Wall time during which the teacher had one of these requests in flight. Where several stages
    share a teacher at the same time, the time is divided between them."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Money and machine time."""

    usd: float
    gpu_hours: float


def read_ledger(out: Path) -> list[LedgerLine]:
    """The ledger of a run folder, in the order in which stages began; empty before any answer.

    Raises:
        StoreError: The stored answers cannot be read.
    """
    return [
        LedgerLine(
            stage=line.purpose.stage,
            teacher=line.purpose.teacher,
            engine=line.purpose.engine,
            model=line.purpose.model,
            requests=line.stored + line.failed,
            stored=line.stored,
            failed=line.failed,
            prompt_tokens=line.prompt_tokens,
            completion_tokens=line.completion_tokens,
            seconds=line.seconds,
        )
        for line in read_spent(out / FOLDER)
    ]


def cost_of(line: LedgerLine, settings: TeacherSettings) -> Cost:
    """Money and GPU-hours of a line at its teacher's prices: tokens plus working time."""
    hours = line.seconds / 3600.0
    return Cost(
        usd=token_usd(settings, line.prompt_tokens, line.completion_tokens)
        + hours * settings.usd_per_hour,
        gpu_hours=hours * settings.num_gpus,
    )


def sum_ledger(out: Path, teachers: Mapping[str, TeacherSettings]) -> dict[str, Any]:
    """The ledger for the event log: each stage's requests, tokens, seconds and money so far.

    Args:
        out: Folder that the answers' folder lies in.
        teachers: Prices; what a teacher that is not among them took counts without money.

    Raises:
        StoreError: The stored answers cannot be read.
    """
    stages: dict[str, dict[str, float]] = {}
    for line in read_ledger(out):
        cost = cost_of(line, teachers[line.teacher]) if line.teacher in teachers else Cost(0.0, 0.0)
        figures = {
            "requests": line.requests,
            "failed": line.failed,
            "prompt_tokens": line.prompt_tokens,
            "completion_tokens": line.completion_tokens,
            "busy_seconds": round(line.seconds, 3),
            "usd": round(cost.usd, 6),
            "gpu_hours": round(cost.gpu_hours, 6),
        }
        before = stages.setdefault(line.stage, dict.fromkeys(figures, 0))
        for name, value in figures.items():
            before[name] += value
    return {"books": str(out / FOLDER), "stages": stages}
