"""Prepare sources: everything that one row decides by itself, once, whatever phase takes it.

Read, parse, normalise, validate, decontaminate, count tokens, hash. A part is a few hundred rows
that one task reads, works on slice by slice and stores (:mod:`curriculum.prepared`), so memory is
bounded by a slice, and a kill loses the parts in flight.
"""

from __future__ import annotations

import gc
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

from curriculum.earlier_parts import find_earlier_parts
from curriculum.judging import Judge, open_judge
from curriculum.preparation import PACKAGES, Preparation
from curriculum.prepared import PreparedSource, read_counts, table_path, write_part
from curriculum.sources.catalog import OpenedSource, RawRow, SourcePart
from pipeline import console
from pipeline.benchmark_index import is_worth_storing, load_benchmark_index
from pipeline.benchmarks import load_questions
from pipeline.contamination import BenchmarkIndex
from pipeline.executors import Executor, PoolExecutor
from pipeline.garbage import without_collections
from pipeline.hashing import code_version, content_hash
from pipeline.manifest import MANIFEST, Manifest, check_balance, load_version
from pipeline.settings.recipe import Recipe
from pipeline.stage_events import Work
from pipeline.store import exclusive_lock, explain_disk_errors, write_json

SLICE_ROWS = 256
"""Rows in memory together: 8 MB at 30 kB a row. Half as many cost a twelfth more time, because each
step of the work begins with its tables out of the processor's cache (measured)."""
REMEDY = "lower curriculum.num_workers or curriculum.batch_rows"
"""Against lost workers."""
MAX_LISTED_FINDINGS = 500
"""Matches listed in a manifest; all of them are counted."""


@dataclass(frozen=True, slots=True)
class PartTask:
    """One part to prepare."""

    preparation: Preparation
    part: SourcePart

    @property
    def name(self) -> str:
        """For people."""
        return f"part {self.part.index} of source {self.preparation.source.name}"


def find_prepared(preparation: Preparation) -> PreparedSource | None:
    """The finished preparation, if there is one."""
    if not (preparation.folder / MANIFEST).is_file():
        return None
    version = load_version(preparation.folder)
    return PreparedSource(preparation.source.name, preparation.folder, version.manifest)


def prepare_source(preparation: Preparation, executor: Executor) -> PreparedSource:
    """Prepare a source, or return it when it is prepared.

    Raises:
        SourceError: It cannot be read as documented.
        StoreError: The disk is full, or another process is at it.
    """
    found = find_prepared(preparation)
    if found is not None:
        return found
    name, staging = preparation.source.name, preparation.staging
    lock = staging.with_name(f".lock-{preparation.version}")
    with exclusive_lock(lock, f"source {name}"), explain_disk_errors(staging):
        if (found := find_prepared(preparation)) is not None:
            return found
        if not (staging / MANIFEST).is_file():
            done = sum(1 for _ in table_path(staging, 0).parent.glob("*.table.parquet"))
            with Work(f"prepared-{name}", "rows", None, done=done) as work:
                files = _prepare_parts(preparation, executor, work)
            manifest = _describe(preparation, files)
            write_json(staging / MANIFEST, manifest.model_dump(mode="json"))
        for orphan in staging.glob(".tmp-*"):
            orphan.unlink()
        staging.replace(preparation.folder)
        shutil.rmtree(preparation.spool, ignore_errors=True)
    manifest = load_version(preparation.folder).manifest
    return PreparedSource(name, preparation.folder, manifest)


def _prepare_parts(
    preparation: Preparation, executor: Executor, work: Work
) -> list[dict[str, Any]]:
    """Do what has no table yet; the files, each with the rows of its parts."""
    source, staging = preparation.source, preparation.staging
    title, files = f"preparing {source.name}", list[dict[str, Any]]()
    earlier = find_earlier_parts(preparation.folder.parent, preparation.basis)

    def list_missing() -> Iterator[PartTask]:
        batch_rows = source.recipe.settings.curriculum.batch_rows
        for part in source.parts(batch_rows, preparation.spool, earlier.part_rows):
            number = _note_part(files, part)
            # The total grows as files are cut, which for a hub source means downloaded.
            with console.meter(title, 1, "batches"):
                is_done = table_path(staging, part.index).is_file()
            if part.is_stored and not is_done:
                key = (files[-1]["name"], files[-1]["revision"])
                earlier.take_over(key, number, staging, part.index)
            if is_done or part.is_stored:
                source.release(part)
                work.skip(_receipt(staging, part.index))
                advance(1)
            else:
                yield PartTask(preparation, part)
        work.total = sum(len(file["part_rows"]) for file in files)

    with console.meter(title, 0, "batches") as advance:
        for task, _ in executor.map(prepare_part, list_missing(), attrgetter("name")):
            source.release(task.part)
            work.finish_shard(f"part-{task.part.index}", _receipt(staging, task.part.index))
            advance(1)
    return files


def _receipt(staging: Path, index: int) -> dict[str, Any]:
    """A stored part's counts, as the event log sums them up."""
    counts = read_counts(staging, index)
    num_rejected = sum(sum(reasons.values()) for reasons in counts.rejected.values())
    return {
        "num_in": counts.num_in,
        "num_out": counts.num_in - num_rejected,
        "rejected": counts.rejected,
        "tokens": {},
    }


def _note_part(files: list[dict[str, Any]], part: SourcePart) -> int:
    """List a part with its file; its number within the file."""
    if part.file is None:
        raise ValueError("a part of no source")
    if part.start == 0:
        name, revision = part.file.name, part.file.revision
        files.append({"name": name, "revision": revision, "part_rows": []})
    files[-1]["part_rows"].append(part.num_rows)
    return len(files[-1]["part_rows"]) - 1


def prepare_part(task: PartTask) -> None:
    """Prepare and store one part; what a worker does."""
    preparation = task.preparation
    judge = _judge_of(preparation)
    settings = preparation.source.recipe.settings.curriculum
    with without_collections():
        slices = map(judge.prepare, _cut(preparation.source.read(task.part)))
        write_part(
            preparation.staging, task.part.index, slices, compress=settings.compress_prepared
        )


def _cut(rows: Iterator[RawRow]) -> Iterator[list[RawRow]]:
    while piece := list(islice(rows, SLICE_ROWS)):
        yield piece


_judges: dict[str, Judge] = {}
_indexes: dict[str, BenchmarkIndex] = {}


def _judge_of(preparation: Preparation) -> Judge:
    """This process's judge: loading questions and tokenizer takes a while."""
    if preparation.version not in _judges:
        # One at a time: sources are prepared one after another.
        _judges.clear()
        source = preparation.source
        _judges[preparation.version] = open_judge(
            source.recipe, source.parser(), _index_of(preparation)
        )
        # The benchmarks' items stay as long as the process: looking through them at every
        # collection took a twentieth of the time.
        gc.freeze()
    return _judges[preparation.version]


def _index_of(preparation: Preparation) -> BenchmarkIndex:
    """This process's index of benchmark items, the same for all sources."""
    settings = preparation.settings
    key = content_hash([settings["benchmarks"], settings["decontamination"]])
    if key not in _indexes:
        _indexes.clear()
        _indexes[key] = load_benchmark_index(preparation.source.recipe)
    return _indexes[key]


def index_benchmarks(recipe: Recipe) -> None:
    """Index the benchmark items once for all workers, in a process that ends with its memory."""
    settings = recipe.settings.curriculum
    is_alone = recipe.settings.execution.executor == "local" and settings.num_workers == 1
    if is_alone or not (recipe.settings.benchmarks and settings.decontamination.enabled):
        return
    if is_worth_storing(recipe):
        pool = PoolExecutor(1, REMEDY)
        try:
            pool.run(_store_index, recipe, "the index of benchmark items")
        finally:
            pool.close()


def _store_index(recipe: Recipe) -> None:
    load_benchmark_index(recipe)


def _describe(preparation: Preparation, files: list[dict[str, Any]]) -> Manifest:
    """Totals over all parts."""
    num_parts = sum(len(file["part_rows"]) for file in files)
    rejected: dict[str, Counter[str]] = {}
    findings: dict[str, Counter[str]] = {"contaminations": Counter(), "twins": Counter()}
    listed: list[dict[str, Any]] = []
    rows_in = 0
    for index in range(num_parts):
        counts = read_counts(preparation.staging, index)
        rows_in += counts.num_in
        for stage, reasons in counts.rejected.items():
            rejected.setdefault(stage, Counter()).update(reasons)
        for finding in counts.findings:
            kind = "twins" if finding["rule"] == "twin" else "contaminations"
            findings[kind][finding["benchmark"]] += 1
        listed += counts.findings[: MAX_LISTED_FINDINGS - len(listed)]
    num_rejected = sum(reasons.total() for reasons in rejected.values())
    _warn_of_count(preparation.source, rows_in)
    manifest = Manifest(
        version=preparation.version,
        inputs=list(preparation.inputs),
        settings=preparation.settings,
        code_version=code_version(*PACKAGES),
        rows_in=rows_in,
        rows_out=rows_in - num_rejected,
        rejected={stage: dict(sorted(c.items())) for stage, c in sorted(rejected.items())},
        shards=[],
        licences={},
        tokens={},
        extra={
            "stage": "prepared",
            "source": preparation.source.name,
            "kind": preparation.source.settings.kind,
            "num_parts": num_parts,
            "files": files,
            "basis": preparation.basis,
            "benchmarks": _count_items(preparation.source.recipe),
            **{kind: dict(sorted(counter.items())) for kind, counter in findings.items()},
            "matches": listed,
        },
    )
    check_balance(manifest)
    return manifest


def _count_items(recipe: Recipe) -> dict[str, int]:
    """How many items of each benchmark were searched for."""
    return {entry.name: len(load_questions(recipe, entry)) for entry in recipe.settings.benchmarks}


def _warn_of_count(source: OpenedSource, count: int) -> None:
    expected = source.settings.expected_rows
    if expected is not None and expected != count:
        console.warn(f"source {source.name!r} has {count:,} rows; the recipe expects {expected:,}")
