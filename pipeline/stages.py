"""Run one stage: batches in, a version out, resumable after a kill at any moment.

Each batch becomes a shard, a file of rejects and, written last, a receipt. A restart skips batches
with a receipt. When all are there the manifest is written and the folder renamed to its version.

Batches are read as they are needed and several can be worked on at once, so memory is bounded by
``concurrency`` batches, whatever the size of the corpus, and a teacher never drains between two.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline import console
from pipeline.errors import StoreError, TooManyRejected, WorkPending
from pipeline.hashing import code_version, content_hash, file_sha256
from pipeline.manifest import (
    MANIFEST,
    InputRef,
    Manifest,
    ShardRef,
    Version,
    check_balance,
    load_version,
    mark_latest,
)
from pipeline.records import Rejected, arrow_schema
from pipeline.store import (
    exclusive_lock,
    explain_disk_errors,
    write_json,
    write_parquet,
    write_text,
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


def staged_shards(stage: Stage) -> list[Path]:
    """Shards of the batches finished so far, in output order: what ``extra`` may summarise."""
    return sorted((stage.root / f".staging-{stage.version}" / "data").glob("part-*.parquet"))


def split_batches(rows: Sequence[Any], size: int, key: Callable[[Any], str]) -> list[Batch]:
    """Cut rows into batches whose ids derive from the rows' keys."""
    pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [Batch(id=content_hash([key(row) for row in piece]), rows=piece) for piece in pieces]


def run_stage(
    stage: Stage,
    batches: Collection[Batch],
    process: Callable[[Batch], BatchResult],
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
        return Version(folder=final, manifest=load_version(final).manifest, reused=True)
    staging = stage.root / f".staging-{stage.version}"
    with exclusive_lock(stage.root / f".lock-{stage.version}", f"stage {stage.name}"):
        # A manifest in the staging folder means that only the rename was cut off.
        if not (staging / MANIFEST).is_file():
            stems = _process_missing(stage, staging, batches, process)
            counts = _sum_counts(staging, stems)
            figures: dict[str, Any] = {"counts": counts} if counts else {}
            figures |= dict(extra(counts)) if extra else {}
            manifest = _assemble(stage, staging, stems, figures)
            _require_rows(stage, manifest)
            _write_manifest(staging, manifest, card)
        _publish(staging, final)
    mark_latest(stage.root, stage.version)
    return load_version(final)


def _process_missing(
    stage: Stage,
    staging: Path,
    batches: Collection[Batch],
    process: Callable[[Batch], BatchResult],
) -> list[str]:
    """Do what has no receipt yet; the stems of all batches' files, in order."""
    stems: list[str] = []
    with console.progress(stage.name, total=len(batches), unit="batches") as advance:
        window = _Window(stage, staging, process, advance=advance)
        with window:
            for index, batch in enumerate(batches):
                stems.append(f"{index:05d}-{batch.id}")
                if _receipt_path(staging, stems[-1]).is_file():
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
        staging: Path,
        process: Callable[[Batch], BatchResult],
        *,
        advance: Callable[[int], None],
    ) -> None:
        self._stage = stage
        self._staging = staging
        self._process = process
        self._advance = advance
        self._pool = ThreadPoolExecutor(stage.concurrency, thread_name_prefix=stage.name)
        self._running: dict[Future[BatchResult], tuple[str, str]] = {}
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
        self._running[self._pool.submit(self._process, batch)] = (stem, batch.id)

    def _settle(self) -> None:
        """Wait for a batch and write it; finished ones come before the failure of another."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=lambda f: f.exception() is not None):
            stem, batch_id = self._running.pop(future)
            try:
                result = future.result()
            except WorkPending as exc:
                self.pending.append(exc)
                continue
            _write_batch(self._stage, self._staging, stem, batch_id, result)
            self._advance(1)


def _receipt_path(staging: Path, stem: str) -> Path:
    return staging / "receipts" / f"{stem}.json"


def _write_batch(
    stage: Stage, staging: Path, stem: str, batch_id: str, result: BatchResult
) -> None:
    """Write a batch's shard and rejects, then its receipt."""
    if result.num_in != len(result.rows) + len(result.rejected):
        raise StoreError(
            f"stage {stage.name}, batch {batch_id}: {result.num_in} in, {len(result.rows)} out, "
            f"{len(result.rejected)} rejected",
            hint="report this with the recipe; nothing was published",
        )
    name = f"part-{stem}.parquet"
    if result.rows:
        write_parquet(staging / "data" / name, result.rows, arrow_schema(stage.record))
    if result.rejected:
        write_parquet(staging / "rejected" / name, result.rejected, arrow_schema(Rejected))
    receipt = {
        "num_in": result.num_in,
        "num_out": len(result.rows),
        "rejected": _count_rejected(result.rejected),
        "tokens": dict(result.tokens),
        "licences": dict(result.licences),
        "counts": dict(result.counts),
    }
    write_json(_receipt_path(staging, stem), receipt)


def _read_receipt(staging: Path, stem: str) -> dict[str, Any]:
    receipt: dict[str, Any] = json.loads(_receipt_path(staging, stem).read_text(encoding="utf-8"))
    return receipt


def _sum_counts(staging: Path, stems: Iterable[str]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for stem in stems:
        counts.update(_read_receipt(staging, stem)["counts"])
    return dict(sorted(counts.items()))


def _count_rejected(rejected: Sequence[Rejected]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for row in rejected:
        counts.setdefault(row.stage, Counter())[row.reason] += 1
    return {name: dict(sorted(reasons.items())) for name, reasons in sorted(counts.items())}


def _assemble(
    stage: Stage, staging: Path, stems: Sequence[str], extra: Mapping[str, Any]
) -> Manifest:
    """Build the manifest from the receipts, in batch order."""
    rejected: dict[str, Counter[str]] = {}
    tokens: Counter[str] = Counter()
    licences: Counter[str] = Counter()
    rows_in = rows_out = 0
    shards = []
    for stem in stems:
        receipt = _read_receipt(staging, stem)
        rows_in += receipt["num_in"]
        rows_out += receipt["num_out"]
        tokens.update(receipt["tokens"])
        licences.update(receipt["licences"])
        for name, reasons in receipt["rejected"].items():
            rejected.setdefault(name, Counter()).update(reasons)
        if receipt["num_out"]:
            shards.append(_shard(staging, stem, receipt["num_out"]))
    manifest = Manifest(
        version=stage.version,
        inputs=list(stage.inputs),
        settings=dict(stage.settings),
        code_version=code_version(*stage.packages),
        rows_in=rows_in,
        rows_out=rows_out,
        rejected={name: dict(sorted(c.items())) for name, c in sorted(rejected.items())},
        shards=shards,
        licences=dict(sorted(licences.items())),
        tokens=dict(sorted(tokens.items())),
        extra={"stage": stage.name, "unit": stage.unit, **extra},
    )
    check_balance(manifest)
    return manifest


def _shard(staging: Path, stem: str, num_rows: int) -> ShardRef:
    path = staging / "data" / f"part-{stem}.parquet"
    return ShardRef(
        path=path.relative_to(staging).as_posix(),
        sha256=file_sha256(path),
        rows=num_rows,
        bytes=path.stat().st_size,
    )


def _require_rows(stage: Stage, manifest: Manifest) -> None:
    if manifest.rows_out >= stage.min_rows:
        return
    reasons = Counter(
        {f"{s}: {r}": n for s, rs in manifest.rejected.items() for r, n in rs.items()}
    )
    top = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(4))
    raise TooManyRejected(
        f"stage {stage.name} accepted {manifest.rows_out} of {manifest.rows_in} {stage.unit} "
        f"(at least {stage.min_rows} wanted); rejected: {top or 'nothing came in'}",
        hint="look at the reasons above; give it more or better input, or relax the gate "
        "in the recipe",
    )


def _write_manifest(staging: Path, manifest: Manifest, card: CardWriter | None) -> None:
    documents = card(manifest) if card is not None else {}
    if isinstance(documents, str):
        documents = {"README.md": documents}
    for name, text in documents.items():
        write_text(staging / name, text)
    write_json(staging / MANIFEST, manifest.model_dump(mode="json"))


def _publish(staging: Path, final: Path) -> None:
    """Drop receipts and orphans of killed writes, then rename the folder into place."""
    with explain_disk_errors(final):
        shutil.rmtree(staging / "receipts", ignore_errors=True)
        for orphan in staging.rglob(".tmp-*"):
            orphan.unlink()
        staging.replace(final)
