"""Choose a few training rows to show in full, and split their text for reading.

The choice depends on content alone: row ids are content hashes, and the smallest ids win. Rows
that this run synthesised come first, then the rest of phase 2, then phase 1.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import ValidationError

from evaluation.report_data import RunFacts, read_columns
from pipeline.errors import SourceError
from pipeline.manifest import Version
from pipeline.records import TrainingRow
from pipeline.settings.recipe import Recipe
from pipeline.student import THINK_CLOSE, THINK_OPEN

NUM_SAMPLES = 5


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """Where a row lies; ordered by preference, then by the row's content hash."""

    rank: int
    row_id: str
    shard: Path
    position: int


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One row as the report shows it."""

    phase: str
    row: TrainingRow
    thinking: str
    answer: str


def choose_samples(recipe: Recipe, facts: RunFacts, count: int = NUM_SAMPLES) -> list[SampleRow]:
    """The rows to show, most telling first.

    Raises:
        SourceError: A shard is unreadable or lacks a column of the training rows.
    """
    own = {s.name for s in recipe.settings.curriculum.sources if s.kind == "synthesized"}
    samples: list[SampleRow] = []
    for phase in reversed(sorted(facts.phases)):
        missing = count - len(samples)
        if missing > 0:
            places = heapq.nsmallest(missing, _places(facts.phases[phase].version, own))
            samples += [_read_sample(phase, place) for place in places]
    return samples


def split_completion(text: str) -> tuple[str, str]:
    """Reasoning and final answer of an assistant turn; all of it is answer when unmarked."""
    head, separator, tail = text.partition(THINK_CLOSE)
    if not separator:
        return "", text.strip()
    return head.strip().removeprefix(THINK_OPEN).strip(), tail.strip()


def describe_provenance(sample: SampleRow) -> Mapping[str, str]:
    """What is known about where a row came from, as label → text; unknown things are left out."""
    row, origin = sample.row, sample.row.provenance
    facts: dict[str, Any] = {
        "row id": row.id,
        "source": f"{row.source} @ {row.source_revision}",
        "row of the source": row.source_id,
        "licence": row.licence,
        "difficulty": row.difficulty,
        "tokens": f"{row.num_prompt_tokens:,} prompt + {row.num_completion_tokens:,} completion",
        "teacher": origin.teacher,
        "concepts": ", ".join(origin.concepts),
        "level": origin.level,
        "verdicts": ", ".join(origin.verdicts),
        "agreement": None if origin.agreement is None else f"{origin.agreement:.0%}",
        "seed": origin.seed,
        "prompt hash": origin.prompt_hash,
        "upstream dataset": " / ".join(
            part for part in (origin.source_dataset, origin.source_split) if part
        ),
        "upstream row": origin.source_row,
    }
    return {label: str(value) for label, value in facts.items() if value not in (None, "")}


def _places(version: Version, own: set[str]) -> Iterator[_Place]:
    for shard in version.shard_paths():
        position = 0
        for batch in read_columns(shard, ("id", "source")):
            ids, sources = (batch.column(name).to_pylist() for name in ("id", "source"))
            for row_id, source in zip(ids, sources, strict=True):
                yield _Place(0 if source in own else 1, row_id, shard, position)
                position += 1


def _read_sample(phase: str, place: _Place) -> SampleRow:
    try:
        row = TrainingRow.model_validate(_read_row(place.shard, place.position))
    except ValidationError as exc:
        raise SourceError(
            f"{place.shard}, row {place.row_id}: not a training row "
            f"({str(exc).splitlines()[1].strip()})",
            hint=f"delete {place.shard.parent.parent} and build it again",
        ) from exc
    thinking, answer = split_completion(row.completion[0].content)
    return SampleRow(phase=phase, row=row, thinking=thinking, answer=answer)


def _read_row(shard: Path, position: int) -> dict[str, Any]:
    """One row, by reading only the row group that holds it."""
    with pq.ParquetFile(shard) as file:
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if position < size:
                rows: list[dict[str, Any]] = (
                    file.read_row_group(group).slice(position, 1).to_pylist()
                )
                return rows[0]
            position -= size
    raise IndexError(f"{shard} has no row {position}")
