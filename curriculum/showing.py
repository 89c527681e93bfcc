"""Tables of a version for the terminal."""

from __future__ import annotations

from pipeline import console
from pipeline.manifest import Manifest


def show_sources(manifest: Manifest) -> None:
    """Rows and tokens per source."""
    rows = [
        [name, entry["rows_in"], entry["rows_out"], entry["rejected"], entry["tokens"]]
        for name, entry in manifest.extra["sources"].items()
    ]
    console.table(
        f"phase {manifest.extra['phase']}: sources",
        ["source", "rows in", "rows out", "rejected", "tokens"],
        rows,
    )


def show_rejections(manifest: Manifest) -> None:
    """Rejected rows by stage and reason, or that there are none."""
    rows = [
        [stage, reason, count]
        for stage, reasons in manifest.rejected.items()
        for reason, count in reasons.items()
    ]
    if rows:
        console.table("rejected", ["stage", "reason", "rows"], rows)
