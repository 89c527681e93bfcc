"""Find versions and rows of a run folder, and show them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curriculum.showing import show_rejections, show_sources
from pipeline import console
from pipeline.errors import SourceError
from pipeline.manifest import LATEST, MANIFEST, Version, load_version, resolve_version


def find_version(name: str, out: Path) -> Version:
    """A dataset version by its folder or its name, or the newest of a phase.

    Phases are named ``phase-1``, ``phase-2``, and their variants ``phase-2-no-replay``.

    Raises:
        SourceError: There is no such version.
    """
    datasets = out / "datasets"
    if (Path(name) / MANIFEST).is_file():
        version = load_version(Path(name))
    elif (datasets / f"phase-{name.removeprefix('phase-')}" / LATEST).is_file():
        version = resolve_version(datasets / f"phase-{name.removeprefix('phase-')}")
    else:
        folders = [path.parent for path in sorted(datasets.glob(f"phase-*/{name}/{MANIFEST}"))]
        if not folders:
            raise SourceError(
                f"no dataset version {name!r} (looked for a folder, and under {datasets})",
                hint="pass a version's folder, or phase-1 with the right --out",
            )
        version = load_version(folders[0])
    if "phase" not in version.manifest.extra:
        raise SourceError(
            f"{version.folder} is a version of another stage, not of the curriculum",
            hint="pass a folder under datasets/",
        )
    return version


def inspect_version(version: Version, num_rows: int) -> dict[str, Any]:
    """Show a version's mix, lengths and first rows; return the same as a report."""
    manifest = version.manifest
    console.heading(f"{version.folder}")
    show_sources(manifest)
    show_rejections(manifest)
    bins = [
        ["more" if b["up_to"] is None else f"up to {b['up_to']:,}", b["rows"]]
        for b in manifest.extra["token_histogram"]
        if b["rows"]
    ]
    console.table("tokens of a row", ["tokens", "rows"], bins)
    domains = [[name, count] for name, count in manifest.extra["domains"].items()]
    console.table("domains", ["domain", "rows"], domains)
    samples = []
    for row, _ in zip(version.rows(), range(num_rows), strict=False):
        samples.append(row)
        console.heading(f"row {row['id']} ({row['source']}, {row['num_tokens']} tokens)")
        console.say(row["prompt"][0]["content"])
        console.say(row["completion"][0]["content"])
    return {
        "path": str(version.folder),
        "version": version.name,
        "rows_in": manifest.rows_in,
        "rows_out": manifest.rows_out,
        "rejected": manifest.rejected,
        "tokens": manifest.tokens,
        **manifest.extra,
        "samples": samples,
    }
