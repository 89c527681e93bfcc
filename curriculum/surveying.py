"""Pass one over a phase's sources: batch by batch, each finished batch a file of verdicts."""

from __future__ import annotations

import signal
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from curriculum.dedupe import Entry
from curriculum.mixing import Survivor
from curriculum.planning import Plan
from curriculum.sources.catalog import OpenedSource, RawRow
from curriculum.survey import Judge, Verdict, judge_batch
from pipeline import console
from pipeline.records import arrow_schema
from pipeline.store import read_rows, write_parquet

MAX_LISTED_FINDINGS = 500
"""Matches listed in the manifest; all of them are counted."""


@dataclass(frozen=True, slots=True)
class InputBatch:
    """A run of consecutive rows of one source."""

    index: int
    source: int
    """The source's place in the phase."""
    start: int
    """Position of its first row over the whole phase."""
    num_rows: int
    path: Path
    """Its verdicts."""


@dataclass(slots=True)
class Survey:
    """What pass one found, without any text."""

    batches: list[InputBatch] = field(default_factory=list)
    survivors: list[Survivor] = field(default_factory=list)
    flagged: Counter[str] = field(default_factory=Counter)
    """Contaminated rows per benchmark."""
    twins: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)


def survey_sources(plan: Plan, judges: list[Judge]) -> Survey:
    """Pass one: judge every row, skipping batches that a former run finished.

    Raises:
        SourceError: A source cannot be read as documented.
    """
    survey = Survey()
    position = 0
    for number, (source, judge) in enumerate(zip(plan.sources, judges, strict=True)):
        first = position
        with _Judging(judge, plan.recipe.settings.curriculum.num_workers) as judging:
            for rows in split_rows(source.rows(), plan.recipe.settings.curriculum.batch_rows):
                index = len(survey.batches)
                path = plan.work / "survey" / f"part-{index:06d}.parquet"
                survey.batches.append(InputBatch(index, number, position, len(rows), path))
                position += len(rows)
                if not path.is_file():
                    judging.submit(rows, path)
        _warn_of_count(source, position - first)
    for batch in survey.batches:
        _collect(survey, batch)
    return survey


def split_rows(rows: Iterator[RawRow], size: int) -> Iterator[list[RawRow]]:
    """Cut a source's rows into batches; both passes cut alike."""
    while batch := list(islice(rows, size)):
        yield batch


def _warn_of_count(source: OpenedSource, count: int) -> None:
    expected = source.settings.expected_rows
    if expected is not None and expected != count:
        console.warn(f"source {source.name!r} has {count:,} rows; the recipe expects {expected:,}")


class _Judging:
    """Judges batches here, or in processes from the second batch on."""

    def __init__(self, judge: Judge, num_workers: int) -> None:
        self._judge, self._num_workers = judge, num_workers
        self._pool: ProcessPoolExecutor | None = None
        self._pending: deque[Future[None]] = deque()
        self._num_submitted = 0

    def __enter__(self) -> _Judging:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is None:
            return
        if kind is None:
            self._drain(0)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, rows: list[RawRow], path: Path) -> None:
        """Judge a batch and store its verdicts, now or soon."""
        self._num_submitted += 1
        if self._num_workers == 1 or self._num_submitted == 1:
            _judge_and_store(self._judge, rows, path)
            return
        if self._pool is None:
            # Spawned, because forking a process with threads (Arrow's) can deadlock.
            self._pool = ProcessPoolExecutor(
                self._num_workers,
                mp_context=get_context("spawn"),
                initializer=_set_judge,
                initargs=(self._judge,),
            )
        self._pending.append(self._pool.submit(_judge_in_worker, rows, path))
        # Bounds the rows in flight, and with them memory.
        self._drain(2 * self._num_workers)

    def _drain(self, limit: int) -> None:
        while len(self._pending) > limit:
            self._pending.popleft().result()


_worker: dict[str, Judge] = {}


def _set_judge(judge: Judge) -> None:
    # Ctrl-C reaches the whole process group; the parent alone reports it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker["judge"] = judge


def _judge_in_worker(rows: list[RawRow], path: Path) -> None:
    _judge_and_store(_worker["judge"], rows, path)


def _judge_and_store(judge: Judge, rows: list[RawRow], path: Path) -> None:
    write_parquet(path, judge_batch(judge, rows), arrow_schema(Verdict))


def _collect(survey: Survey, batch: InputBatch) -> None:
    """Take from a batch's verdicts what the selection and the manifest need."""
    for offset, row in enumerate(read_rows(batch.path)):
        for finding in row["findings"]:
            counter = survey.twins if finding["rule"] == "twin" else survey.flagged
            counter[finding["benchmark"]] += 1
            if len(survey.findings) < MAX_LISTED_FINDINGS:
                survey.findings.append({"row_id": row["row_id"], **finding})
        if not row["reason"]:
            survey.survivors.append(_survivor(row, batch, batch.start + offset))


def _survivor(row: dict[str, Any], batch: InputBatch, position: int) -> Survivor:
    entry = Entry(
        position=position,
        row_id=row["row_id"],
        question=row["question"],
        trace=row["trace"],
        priority=batch.source,
        is_verified=row["is_verified"],
        num_tokens=row["num_prompt_tokens"] + row["num_completion_tokens"],
    )
    return Survivor(
        entry=entry,
        batch=batch.index,
        domain=row["domain"],
        licence=row["licence"],
        difficulty=row["difficulty"],
        num_prompt_tokens=row["num_prompt_tokens"],
    )
