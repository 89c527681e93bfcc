"""Small evaluation versions for what reads finished ones: real stages, invented verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.hashing import content_hash
from pipeline.manifest import InputRef, Version
from pipeline.records import Record
from pipeline.stages import Batch, BatchResult, Stage, run_stage

Verdicts = Mapping[str, Sequence[Sequence[bool]]]
"""Benchmark to problems to samples."""


class Answer(Record):
    """The columns that comparisons read of an evaluation's rows."""

    id: str
    benchmark: str
    item_id: str
    question: str
    gold: str | None
    correct: bool


def build_answers(
    root: Path, verdicts: Verdicts, *, gold: str = "7", settings: Mapping[str, Any] | None = None
) -> Version:
    """An evaluation version under ``root`` whose items are numbered from 0."""
    rows = [
        Answer(
            id=f"{benchmark}/{item}/{sample}",
            benchmark=benchmark,
            item_id=f"i{item}",
            question=f"Question {item}?",
            gold=gold,
            correct=correct,
        )
        for benchmark, problems in verdicts.items()
        for item, samples in enumerate(problems)
        for sample, correct in enumerate(samples)
    ]
    stage = Stage(
        name=f"evaluation-{root.name}",
        root=root,
        record=Answer,
        settings={"temperature": 0.8, **(settings or {})},
        inputs=[InputRef(name="checkpoint", version=content_hash([str(verdicts), gold]))],
        packages=("pipeline",),
        unit="answers",
    )
    result = BatchResult(num_in=len(rows), rows=rows)
    return run_stage(stage, [Batch(id="all", rows=rows)], lambda _: result)
