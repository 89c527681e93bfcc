"""Pass two: stream the sources again, scatter chosen rows by shard, write shard after shard.

A scattered batch is one Parquet file with one row group per output shard that it feeds, so that
writing a shard reads exactly its own rows from each batch, and memory holds one batch or one shard.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from curriculum.candidates import PreparedRow
from curriculum.measure import Size, make_training_row
from curriculum.mixing import Survivor
from curriculum.planning import Plan
from curriculum.selection import Selection
from curriculum.sources.catalog import RawRow
from curriculum.survey import Judge
from curriculum.surveying import InputBatch, Survey, split_rows
from pipeline.errors import SourceError
from pipeline.hashing import content_hash
from pipeline.records import Rejected, TrainingRow, arrow_schema
from pipeline.stages import Batch, BatchResult
from pipeline.store import atomic_path, read_rows

SCATTER_SCHEMA = pa.schema(
    [pa.field("place", pa.int64(), nullable=False), *arrow_schema(TrainingRow)]
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A row of the phase and its place in the output."""

    place: int
    row: Survivor


@dataclass(frozen=True, slots=True)
class Work:
    """A unit of the last stage: one input batch's refusals, or one output shard."""

    kind: Literal["refusals", "shard"]
    index: int


class PhaseWriter:
    """Writes a selection; knows which batch feeds which shard."""

    def __init__(self, plan: Plan, survey: Survey, selection: Selection) -> None:
        self._plan, self._survey, self._selection = plan, survey, selection
        self._by_batch: dict[int, list[Chosen]] = defaultdict(list)
        for place, row in enumerate(selection.rows):
            self._by_batch[row.batch].append(Chosen(place, row))
        self._feeds: dict[int, list[tuple[int, int]]] = defaultdict(list)
        """Shard to (batch, row group of the batch's scattered file)."""
        for batch, chosen in sorted(self._by_batch.items()):
            shards = dict.fromkeys(map(self._shard_of, chosen))
            for group, shard in enumerate(shards):
                self._feeds[shard].append((batch, group))

    def scatter(self, judges: list[Judge]) -> None:
        """Stream the sources a second time and store chosen rows by shard.

        Raises:
            SourceError: A source changed since pass one.
        """
        batches = iter(self._survey.batches)
        size = self._plan.recipe.settings.curriculum.batch_rows
        missing = {b for b in self._by_batch if not self._scatter_path(b).is_file()}
        for number, (source, judge) in enumerate(zip(self._plan.sources, judges, strict=True)):
            if not any(self._survey.batches[b].source == number for b in missing):
                for _ in range(sum(b.source == number for b in self._survey.batches)):
                    next(batches)
                continue
            for rows, batch in zip(split_rows(source.rows(), size), batches, strict=False):
                if batch.index in missing:
                    self._scatter_batch(judge, rows, batch)
                if self._is_last_of_source(batch):
                    break

    def _is_last_of_source(self, batch: InputBatch) -> bool:
        following = self._survey.batches[batch.index + 1 : batch.index + 2]
        return not following or following[0].source != batch.source

    def _scatter_path(self, batch: int) -> Path:
        return self._plan.work / "scatter" / f"part-{batch:06d}.parquet"

    def _scatter_batch(self, judge: Judge, rows: list[RawRow], batch: InputBatch) -> None:
        chosen = self._by_batch[batch.index]
        with (
            atomic_path(self._scatter_path(batch.index)) as temporary,
            pq.ParquetWriter(temporary, SCATTER_SCHEMA, compression="zstd") as writer,
        ):
            for _, group in groupby(chosen, key=self._shard_of):
                table = [self._scattered(judge, rows, batch, one) for one in group]
                writer.write_table(
                    pa.Table.from_pylist(table, schema=SCATTER_SCHEMA), row_group_size=len(table)
                )

    def _shard_of(self, chosen: Chosen) -> int:
        return chosen.place // self._selection.shard_rows

    def _scattered(
        self, judge: Judge, rows: list[RawRow], batch: InputBatch, chosen: Chosen
    ) -> dict[str, Any]:
        entry = chosen.row.entry
        offset = entry.position - batch.start
        prepared = judge.prepare(rows[offset]) if offset < len(rows) else None
        if not isinstance(prepared, PreparedRow) or prepared.candidate.row_id != entry.row_id:
            raise SourceError(
                f"source {self._plan.sources[batch.source].name!r} changed while it was read "
                f"(row {offset} of batch {batch.index})",
                hint="run the same command again",
            )
        prompt_tokens = chosen.row.num_prompt_tokens
        size = Size(prompt_tokens, entry.num_tokens - prompt_tokens)
        row = make_training_row(prepared, size, chosen.row.licence)
        return {"place": chosen.place, **row.model_dump(mode="json")}

    def batches(self) -> list[Batch]:
        """Units of the final stage: refusals of each input batch, then the shards in order."""
        refusals = [
            Batch(
                id=content_hash([self._plan.stage.version, "refusals", batch.index]),
                rows=(Work("refusals", batch.index),),
            )
            for batch in self._survey.batches
        ]
        rows, size = self._selection.rows, self._selection.shard_rows
        shards = [
            Batch(
                id=content_hash([r.entry.row_id for r in rows[index * size : (index + 1) * size]]),
                rows=(Work("shard", index),),
            )
            for index in range(self._selection.num_shards)
        ]
        return refusals + shards

    def process(self, batch: Batch) -> BatchResult:
        """Write one unit."""
        work = batch.rows[0]
        return self._refusals(work.index) if work.kind == "refusals" else self._shard(work.index)

    def _refusals(self, index: int) -> BatchResult:
        batch = self._survey.batches[index]
        rejected = []
        for offset, row in enumerate(read_rows(batch.path)):
            late = self._selection.refused.get(batch.start + offset)
            if row["reason"]:
                stage, reason, detail = row["stage"], row["reason"], row["detail"]
            elif late is not None:
                stage, reason, detail = late.stage, late.reason, late.detail
            else:
                continue
            rejected.append(
                Rejected(row_id=row["row_id"], stage=stage, reason=reason, detail=detail)
            )
        return BatchResult(num_in=len(rejected), rows=[], rejected=rejected)

    def _shard(self, index: int) -> BatchResult:
        gathered = []
        for batch, group in self._feeds[index]:
            with pq.ParquetFile(self._scatter_path(batch)) as file:
                gathered += file.read_row_group(group).to_pylist()
        gathered.sort(key=_place)
        rows = [
            TrainingRow.model_validate({k: v for k, v in row.items() if k != "place"})
            for row in gathered
        ]
        tokens: Counter[str] = Counter()
        for row in rows:
            tokens["prompt"] += row.num_prompt_tokens
            tokens["completion"] += row.num_completion_tokens
            tokens["total"] += row.num_tokens
        licences = Counter(row.licence for row in rows)
        return BatchResult(num_in=len(rows), rows=rows, tokens=tokens, licences=licences)


def _place(row: dict[str, Any]) -> int:
    return int(row["place"])
