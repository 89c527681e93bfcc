"""From the receipts of a stage's batches to a published version."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import TooManyRejected
from pipeline.hashing import code_version, file_sha256
from pipeline.manifest import MANIFEST, Manifest, ShardRef, check_balance
from pipeline.store import explain_disk_errors, write_json, write_text

if TYPE_CHECKING:
    from pipeline.stages import CardWriter, Stage


def receipt_path(staging: Path, stem: str) -> Path:
    """The file that says that a batch is finished."""
    return staging / "receipts" / f"{stem}.json"


def read_receipt(staging: Path, stem: str) -> dict[str, Any]:
    """What a finished batch became."""
    receipt: dict[str, Any] = json.loads(receipt_path(staging, stem).read_text(encoding="utf-8"))
    return receipt


def sum_counts(staging: Path, stems: Iterable[str]) -> dict[str, int]:
    """The further figures of all batches."""
    counts: Counter[str] = Counter()
    for stem in stems:
        counts.update(read_receipt(staging, stem)["counts"])
    return dict(sorted(counts.items()))


def assemble_manifest(
    stage: Stage, staging: Path, stems: Sequence[str], extra: Mapping[str, Any]
) -> Manifest:
    """Build the manifest from the receipts, in batch order."""
    rejected: dict[str, Counter[str]] = {}
    tokens: Counter[str] = Counter()
    licences: Counter[str] = Counter()
    rows_in = rows_out = 0
    shards = []
    for stem in stems:
        receipt = read_receipt(staging, stem)
        rows_in += receipt["num_in"]
        rows_out += receipt["num_out"]
        tokens.update(receipt["tokens"])
        licences.update(receipt["licences"])
        for name, reasons in receipt["rejected"].items():
            rejected.setdefault(name, Counter()).update(reasons)
        if receipt["num_out"]:
            shards.append(_shard(staging, stem, receipt))
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


def _shard(staging: Path, stem: str, receipt: Mapping[str, Any]) -> ShardRef:
    path = staging / "data" / f"part-{stem}.parquet"
    return ShardRef(
        path=path.relative_to(staging).as_posix(),
        # Receipts of an interrupted run may be older than hashes in them.
        sha256=receipt.get("sha256") or file_sha256(path),
        rows=receipt["num_out"],
        bytes=path.stat().st_size,
    )


def require_rows(stage: Stage, manifest: Manifest) -> None:
    """Hold a version to the least rows its stage wants.

    Raises:
        TooManyRejected: Fewer rows were accepted.
    """
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


def write_manifest(staging: Path, manifest: Manifest, card: CardWriter | None) -> None:
    """Write a version's documents, the manifest last."""
    documents = card(manifest) if card is not None else {}
    if isinstance(documents, str):
        documents = {"README.md": documents}
    for name, text in documents.items():
        write_text(staging / name, text)
    write_json(staging / MANIFEST, manifest.model_dump(mode="json"))


def publish(staging: Path, final: Path) -> None:
    """Drop receipts and orphans of killed writes, then rename the folder into place."""
    with explain_disk_errors(final):
        shutil.rmtree(staging / "receipts", ignore_errors=True)
        for orphan in staging.rglob(".tmp-*"):
            orphan.unlink()
        staging.replace(final)
