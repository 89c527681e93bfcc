"""Run one stage: batches in, a version out, resumable after a kill at any moment.

Each batch becomes a shard, a file of rejects and, written last, a receipt. A restart skips batches
with a receipt. When all are there the manifest is written and the folder renamed to its version.

Batches are read as they are needed and several can be worked on at once, so memory is bounded by
``concurrency`` batches, whatever the size of the corpus, and a teacher never drains between two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline import console
from pipeline.errors import StoreError, WorkPending
from pipeline.events import emit
from pipeline.hashing import code_version, content_hash
from pipeline.manifest import (
    MANIFEST,
    InputRef,
    Manifest,
    Version,
    load_version,
    mark_latest,
)
from pipeline.publishing import (
    assemble_manifest,
    publish,
    read_receipt,
    receipt_path,
    require_rows,
    sum_counts,
    write_manifest,
)
from pipeline.records import Rejected, arrow_schema
from pipeline.stage_events import Spending, Work, describe_counts
from pipeline.store import (
    exclusive_lock,
    write_json,
    write_parquet,
)

CardWriter = Callable[[Manifest], str | Mapping[str, str]]
"""From a manifest to the text of ``README.md``, or to the texts of several files by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What determines a stage's output, and where its versions live."""

    name: str
    root: Path
    """Folder of this stage's versions, e.g. ``<out>/synthesis/problems``."""
    record: type[BaseModel]
    settings: Mapping[str, Any]
    """JSON-ready settings that change the result; never paths or concurrency."""
    inputs: Sequence[InputRef]
    packages: Sequence[str]
    """Packages whose source is part of the version's name."""
    unit: str = "rows"
    min_rows: int = 1
    """Fewer accepted rows than this refuse the stage (exit 3)."""
    concurrency: int = 1
    """Batches worked on at once, each in a thread of its own."""
    cancel: Callable[[], None] = lambda: None
    """Ends what the running batches wait for; called once, when the stage fails or is stopped."""
    spending: Spending | None = None
    """Reads the run folder's ledger, where the stage asks teachers; for the event log."""

    @property
    def version(self) -> str:
        """The version's name: hash of code, settings and inputs."""
        return content_hash(
            {
                "stage": self.name,
                "settings": dict(self.settings),
                "inputs": [ref.model_dump() for ref in self.inputs],
                "code": code_version(*self.packages),
            }
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """A unit of work and of resume."""

    id: str
    """Hash of the batch's content."""
    rows: Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """What a batch became; ``num_in`` = accepted + rejected is checked."""

    num_in: int
    rows: Sequence[BaseModel]
    rejected: Sequence[Rejected] = ()
    tokens: Mapping[str, int] = field(default_factory=dict)
    licences: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    """Any further figures; summed over all batches they are in the manifest as ``counts``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenBatch:
    """What a batch became whose files the stage wrote itself, under :func:`staged_path`."""

    num_in: int
    num_out: int
    rejected: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Stage to reason to rows."""
    tokens: Mapping[str, int] = field(default_factory=dict)
    licences: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    sha256: str | None = None
    """Of the shard, where whoever wrote it hashed it."""


Process = Callable[[Batch], BatchResult | WrittenBatch]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStream(Collection[Batch]):
    """Batches cut from rows while these are read; may be iterated more than once."""

    rows: Callable[[], Iterable[Any]]
    """Opens the rows anew."""
    num_rows: int
    """How many there are; only progress and its total depend on it."""
    size: int
    key: Callable[[Any], str]
    """What identifies a row; a batch's id is the hash of its rows' keys."""

    def __len__(self) -> int:
        return -(-self.num_rows // self.size)

    def __contains__(self, batch: object) -> bool:
        return any(batch == own for own in self)

    def __iter__(self) -> Iterator[Batch]:
        rows = iter(self.rows())
        while piece := list(islice(rows, self.size)):
            yield Batch(id=content_hash([self.key(row) for row in piece]), rows=piece)


def staging_folder(stage: Stage) -> Path:
    """Where a version grows before it is published."""
    return stage.root / f".staging-{stage.version}"


def staged_path(stage: Stage, kind: str, index: int, batch: Batch) -> Path:
    """Where the file of the ``index``-th batch goes in a folder such as ``data``."""
    return staging_folder(stage) / kind / f"part-{_stem(index, batch)}.parquet"


def _stem(index: int, batch: Batch) -> str:
    return f"{index:05d}-{batch.id}"


def staged_shards(stage: Stage) -> list[Path]:
    """Shards of the batches finished so far, in output order: what ``extra`` may summarise."""
    return sorted((staging_folder(stage) / "data").glob("part-*.parquet"))


def split_batches(rows: Sequence[Any], size: int, key: Callable[[Any], str]) -> list[Batch]:
    """Cut rows into batches whose ids derive from the rows' keys."""
    pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [Batch(id=content_hash([key(row) for row in piece]), rows=piece) for piece in pieces]


def run_stage(
    stage: Stage,
    batches: Collection[Batch],
    process: Process,
    *,
    card: CardWriter | None = None,
    extra: Callable[[Mapping[str, int]], Mapping[str, Any]] | None = None,
) -> Version:
    """Process what is missing, publish the version and return it.

    Args:
        stage: The stage's identity.
        batches: All batches, in output order; a :class:`BatchStream` keeps few in memory.
        process: Pure function of a batch; called once per unfinished batch, in ``concurrency``
            threads.
        card: Renders the version's ``README.md`` from its manifest, or several files by name.
        extra: Stage-specific figures for the manifest, from the summed ``counts`` of all batches;
            called after the last batch.

    Raises:
        TooManyRejected: Fewer than ``stage.min_rows`` rows were accepted.
        WorkPending: Some batches wait for something outside this run; the others are kept.
        StoreError: Disk full, counts that do not add up, or another process at work.
    """
    final = stage.root / stage.version
    if (final / MANIFEST).is_file():
        mark_latest(stage.root, stage.version)
        return tell_reused(stage)
    with exclusive_lock(stage.root / f".lock-{stage.version}", f"stage {stage.name}"):
        # Another process may have finished it since: its shards would be made a second time.
        if (final / MANIFEST).is_file():
            mark_latest(stage.root, stage.version)
            return tell_reused(stage)
        staging = staging_folder(stage)
        with _open_work(stage, staging, len(batches)) as work:
            # A manifest in the staging folder means that only the rename was cut off.
            if not (staging / MANIFEST).is_file():
                stems = _process_missing(stage, batches, process, work)
                counts = sum_counts(staging, stems)
                figures: dict[str, Any] = {"counts": counts} if counts else {}
                figures |= dict(extra(counts)) if extra else {}
                manifest = assemble_manifest(stage, staging, stems, figures)
                require_rows(stage, manifest)
                write_manifest(staging, manifest, card)
            publish(staging, final)
            mark_latest(stage.root, stage.version)
            version = load_version(final)
            work.close_with(**describe_counts(version.manifest))
    return version


def tell_reused(stage: Stage) -> Version:
    """The version that exists, after telling so."""
    manifest = load_version(stage.root / stage.version).manifest
    emit("stage.reused", stage=stage.name, unit=stage.unit, **describe_counts(manifest))
    return Version(folder=stage.root / stage.version, manifest=manifest, reused=True)


def _open_work(stage: Stage, staging: Path, total: int) -> Work:
    """Who tells the stage's progress."""
    done = sum(1 for _ in receipt_path(staging, "*").parent.glob("*.json"))
    return Work(stage.name, stage.unit, total, done=done, spending=stage.spending)


def _process_missing(
    stage: Stage, batches: Collection[Batch], process: Process, work: Work
) -> list[str]:
    """Do what has no receipt yet; the stems of all batches' files, in order."""
    stems: list[str] = []
    staging = staging_folder(stage)
    with console.progress(stage.name, total=len(batches), unit="batches") as advance:
        window = _Window(stage, process, work, advance=advance)
        with window:
            for index, batch in enumerate(batches):
                stems.append(_stem(index, batch))
                if receipt_path(staging, stems[-1]).is_file():
                    work.skip(read_receipt(staging, stems[-1]))
                    advance(1)
                else:
                    window.add(stems[-1], batch)
    if window.pending:
        first = window.pending[0]
        raise WorkPending(
            f"stage {stage.name}: {len(window.pending)} of {len(stems)} batches wait: {first}",
            hint=first.hint,
        )
    return stems


class _Window:
    """At most ``concurrency`` batches at work; each is written as soon as it is done."""

    def __init__(
        self,
        stage: Stage,
        process: Process,
        work: Work,
        *,
        advance: Callable[[int], None],
    ) -> None:
        self._stage = stage
        self._staging = staging_folder(stage)
        self._process = process
        self._work = work
        self._advance = advance
        self._pool = ThreadPoolExecutor(stage.concurrency, thread_name_prefix=stage.name)
        self._running: dict[Future[BatchResult | WrittenBatch], tuple[str, str]] = {}
        self.pending: list[WorkPending] = []

    def __enter__(self) -> _Window:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        is_whole = False
        try:
            while self._running and kind is None:
                self._settle()
            is_whole = kind is None
        finally:
            if not is_whole:
                self._stage.cancel()
            self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, stem: str, batch: Batch) -> None:
        while len(self._running) >= self._stage.concurrency:
            self._settle()
        # Each in a copy of this context: teachers tell their answers to the stage's events.
        running = self._pool.submit(copy_context().run, self._process, batch)
        self._running[running] = (stem, batch.id)

    def _settle(self) -> None:
        """Wait for a batch and write it; finished ones come before the failure of another."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=lambda f: f.exception() is not None):
            stem, batch_id = self._running.pop(future)
            if future.exception() is not None:
                self._work.name_failure(stem)
            try:
                result = future.result()
            except WorkPending as exc:
                self.pending.append(exc)
                continue
            receipt = _write_batch(self._stage, self._staging, stem, batch_id, result)
            self._work.finish_shard(stem, receipt)
            self._advance(1)


def _write_batch(
    stage: Stage, staging: Path, stem: str, batch_id: str, result: BatchResult | WrittenBatch
) -> dict[str, Any]:
    """Write a batch's shard and rejects, then its receipt, which is returned."""
    if isinstance(result, BatchResult):
        num_out, rejected = len(result.rows), _count_rejected(result.rejected)
    else:
        num_out, rejected = result.num_out, {s: dict(r) for s, r in result.rejected.items()}
    num_rejected = sum(sum(reasons.values()) for reasons in rejected.values())
    if result.num_in != num_out + num_rejected:
        raise StoreError(
            f"stage {stage.name}, batch {batch_id}: {result.num_in} in, {num_out} out, "
            f"{num_rejected} rejected",
            hint="report this with the recipe; nothing was published",
        )
    if isinstance(result, BatchResult):
        name = f"part-{stem}.parquet"
        if result.rows:
            write_parquet(staging / "data" / name, result.rows, arrow_schema(stage.record))
        if result.rejected:
            write_parquet(staging / "rejected" / name, result.rejected, arrow_schema(Rejected))
    receipt = {
        "num_in": result.num_in,
        "num_out": num_out,
        "rejected": rejected,
        "tokens": dict(result.tokens),
        "licences": dict(result.licences),
        "counts": dict(result.counts),
        "sha256": result.sha256 if isinstance(result, WrittenBatch) else None,
    }
    write_json(receipt_path(staging, stem), receipt)
    return receipt


def _count_rejected(rejected: Sequence[Rejected]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for row in rejected:
        counts.setdefault(row.stage, Counter())[row.reason] += 1
    return {name: dict(sorted(reasons.items())) for name, reasons in sorted(counts.items())}
