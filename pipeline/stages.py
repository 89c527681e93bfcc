"""Run one stage: batches in, a version out, resumable after a kill at any moment.

Each batch becomes a shard, a file of rejects and, written last, a receipt. A restart skips batches
with a receipt. When all are there the manifest is written and the folder renamed to its version.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline import console
from pipeline.errors import StoreError, TooManyRejected
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


def staged_shards(stage: Stage) -> list[Path]:
    """Shards of the batches finished so far, in output order: what ``extra`` may summarise."""
    return sorted((stage.root / f".staging-{stage.version}" / "data").glob("part-*.parquet"))


def split_batches(rows: Sequence[Any], size: int, key: Callable[[Any], str]) -> list[Batch]:
    """Cut rows into batches whose ids derive from the rows' keys."""
    pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [Batch(id=content_hash([key(row) for row in piece]), rows=piece) for piece in pieces]


def run_stage(
    stage: Stage,
    batches: Sequence[Batch],
    process: Callable[[Batch], BatchResult],
    *,
    card: CardWriter | None = None,
    extra: Callable[[], Mapping[str, Any]] | None = None,
) -> Version:
    """Process what is missing, publish the version and return it.

    Args:
        stage: The stage's identity.
        batches: All batches, in output order.
        process: Pure function of a batch; called once per unfinished batch.
        card: Renders the version's ``README.md`` from its manifest, or several files by name.
        extra: Stage-specific figures for the manifest, called after the last batch.

    Raises:
        TooManyRejected: Fewer than ``stage.min_rows`` rows were accepted.
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
            _process_missing(stage, staging, batches, process)
            manifest = _assemble(stage, staging, batches, dict(extra() if extra else {}))
            _require_rows(stage, manifest)
            _write_manifest(staging, manifest, card)
        _publish(staging, final)
    mark_latest(stage.root, stage.version)
    return load_version(final)


def _process_missing(
    stage: Stage,
    staging: Path,
    batches: Sequence[Batch],
    process: Callable[[Batch], BatchResult],
) -> None:
    with console.progress(stage.name, total=len(batches), unit="batches") as advance:
        for index, batch in enumerate(batches):
            if not _receipt_path(staging, index, batch).is_file():
                _write_batch(stage, staging, index, batch, process(batch))
            advance(1)


def _stem(index: int, batch: Batch) -> str:
    return f"{index:05d}-{batch.id}"


def _receipt_path(staging: Path, index: int, batch: Batch) -> Path:
    return staging / "receipts" / f"{_stem(index, batch)}.json"


def _write_batch(
    stage: Stage, staging: Path, index: int, batch: Batch, result: BatchResult
) -> None:
    """Write a batch's shard and rejects, then its receipt."""
    if result.num_in != len(result.rows) + len(result.rejected):
        raise StoreError(
            f"stage {stage.name}, batch {batch.id}: {result.num_in} in, {len(result.rows)} out, "
            f"{len(result.rejected)} rejected",
            hint="report this with the recipe; nothing was published",
        )
    name = f"part-{_stem(index, batch)}.parquet"
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
    }
    write_json(_receipt_path(staging, index, batch), receipt)


def _count_rejected(rejected: Sequence[Rejected]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for row in rejected:
        counts.setdefault(row.stage, Counter())[row.reason] += 1
    return {name: dict(sorted(reasons.items())) for name, reasons in sorted(counts.items())}


def _assemble(
    stage: Stage, staging: Path, batches: Sequence[Batch], extra: Mapping[str, Any]
) -> Manifest:
    """Build the manifest from the receipts, in batch order."""
    rejected: dict[str, Counter[str]] = {}
    tokens: Counter[str] = Counter()
    licences: Counter[str] = Counter()
    rows_in = rows_out = 0
    shards = []
    for index, batch in enumerate(batches):
        receipt = json.loads(_receipt_path(staging, index, batch).read_text(encoding="utf-8"))
        rows_in += receipt["num_in"]
        rows_out += receipt["num_out"]
        tokens.update(receipt["tokens"])
        licences.update(receipt["licences"])
        for name, reasons in receipt["rejected"].items():
            rejected.setdefault(name, Counter()).update(reasons)
        if receipt["num_out"]:
            shards.append(_shard(staging, index, batch, receipt["num_out"]))
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


def _shard(staging: Path, index: int, batch: Batch, num_rows: int) -> ShardRef:
    path = staging / "data" / f"part-{_stem(index, batch)}.parquet"
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
