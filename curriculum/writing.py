"""Write a selection: refused rows with their reasons, then shard after shard of chosen rows.

A shard's rows are gathered from the prepared sources by their places, a row group at a time, by
whoever works on it; so memory holds one row group, and nothing large passes between processes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curriculum.features import Rows
from curriculum.mixing import make_copy_id
from curriculum.refusals import RefusalWriter
from curriculum.row_files import Places, RowReader
from curriculum.selection import Selection
from curriculum.stored_rows import RECURRING_COLUMNS, ROW_SCHEMA
from pipeline.errors import ManifestMismatch
from pipeline.executors import Executor
from pipeline.garbage import without_collections
from pipeline.hashing import content_hash, file_sha256
from pipeline.stages import Batch, Stage, WrittenBatch, staged_path
from pipeline.store import ROW_GROUP_ROWS, forget_pages, open_parquet

PARTS_PER_FILE = 64
"""Prepared parts whose refused rows share a file."""


@dataclass(frozen=True, slots=True)
class Work:
    """A unit of the last stage: the refusals of some parts, or one output shard."""

    kind: Literal["refusals", "shard"]
    index: int
    """Among all units."""
    start: int
    """First part, or first place in the output."""
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """What a worker needs to write a shard."""

    path: Path
    places: Places
    ids: list[str]
    """What must be found there."""
    copies: npt.NDArray[np.uint16]


class PhaseWriter:
    """Writes a selection, unit by unit."""

    def __init__(
        self, stage: Stage, selection: Selection, executor: Executor, *, shard_rows: int
    ) -> None:
        self._stage, self._selection, self._executor = stage, selection, executor
        self._shard_rows = shard_rows
        self._refusals = RefusalWriter(selection)

    def batches(self) -> list[Batch]:
        """Refusals, then the shards in order."""
        ranges: list[tuple[Literal["refusals", "shard"], int, int]] = []
        num_parts, num_rows = self._refusals.num_parts, self._selection.num_rows
        for start in range(0, num_parts, PARTS_PER_FILE):
            ranges.append(("refusals", start, min(start + PARTS_PER_FILE, num_parts)))
        for start in range(0, num_rows, self._shard_rows):
            ranges.append(("shard", start, min(start + self._shard_rows, num_rows)))
        return [
            Batch(id=self._name(kind, start, end), rows=(Work(kind, index, start, end),))
            for index, (kind, start, end) in enumerate(ranges)
        ]

    def process(self, batch: Batch) -> WrittenBatch:
        """Write one unit."""
        work: Work = batch.rows[0]
        if work.kind == "refusals":
            return self._refusals.write(self._stage, batch)
        return self._write_shard(batch, work)

    def _name(self, kind: str, start: int, end: int) -> str:
        if kind == "refusals":
            return content_hash([self._stage.version, kind, start, end])
        choice = self._selection.choice
        digest = hashlib.sha256()
        digest.update(self._selection.corpus.features.row_id[choice.rows[start:end]].tobytes())
        digest.update(choice.copies[start:end].tobytes())
        return digest.hexdigest()[:16]

    def _write_shard(self, batch: Batch, work: Work) -> WrittenBatch:
        choice, corpus = self._selection.choice, self._selection.corpus
        rows = choice.rows[work.start : work.end]
        task = ShardTask(
            path=staged_path(self._stage, "data", work.index, batch),
            places=corpus.places(rows),
            ids=corpus.features.hex_ids(rows),
            copies=choice.copies[work.start : work.end],
        )
        sha256 = self._executor.run(write_shard, task, f"shard {work.index} of {self._stage.name}")
        return self._describe(rows, sha256)

    def _describe(self, rows: Rows, sha256: str) -> WrittenBatch:
        features = self._selection.corpus.features
        prompt = int(features.num_prompt_tokens[rows].sum(dtype=np.int64))
        completion = int(features.num_completion_tokens[rows].sum(dtype=np.int64))
        licences = Counter(features.licences[code] for code in features.licence[rows].tolist())
        return WrittenBatch(
            num_in=len(rows),
            num_out=len(rows),
            tokens={"prompt": prompt, "completion": completion, "total": prompt + completion},
            licences=licences,
            sha256=sha256,
        )


def write_shard(task: ShardTask) -> str:
    """Gather a shard's rows and write them; what a worker does. The SHA-256 of the file.

    Raises:
        ManifestMismatch: A prepared source holds other rows than its tables say.
    """
    with (
        without_collections(),
        open_parquet(task.path, ROW_SCHEMA, RECURRING_COLUMNS) as writer,
        RowReader(task.places.paths) as reader,
    ):
        for start in range(0, len(task.ids), ROW_GROUP_ROWS):
            end = min(start + ROW_GROUP_ROWS, len(task.ids))
            table = reader.gather(task.places.slice(start, end))
            ids = task.ids[start:end]
            if table["id"].to_pylist() != ids:
                folder = task.places.paths[0].parent.parent
                raise ManifestMismatch(
                    f"prepared rows under {folder} are not those of their tables",
                    hint=f"delete {folder} and build again",
                )
            writer.write_table(_with_copy_ids(table, ids, task.copies[start:end].tolist()))
    digest = file_sha256(task.path)
    # The prepared rows, of which the next shards are gathered, need the memory.
    forget_pages(task.path)
    return digest


def _with_copy_ids(table: pa.Table, ids: Sequence[str], copies: Sequence[int]) -> pa.Table:
    if not any(copies):
        return table
    named = [make_copy_id(row_id, copy) for row_id, copy in zip(ids, copies, strict=True)]
    return table.set_column(0, ROW_SCHEMA.field(0), pa.array(named, pa.string()))
