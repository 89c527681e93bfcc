"""Find versions and rows of a run folder, and show them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curriculum.showing import show_rejections, show_sources
from pipeline import console
from pipeline.errors import SourceError
from pipeline.manifest import LATEST, MANIFEST, Version, load_version, resolve_version
from pipeline.store import read_rows

MIN_ID_DIGITS = 6


def find_version(name: str, out: Path) -> Version:
    """A dataset version by its folder, its name, or ``phase-1``/``phase-2`` for the newest.

    Raises:
        SourceError: There is no such version.
    """
    datasets = out / "datasets"
    if (Path(name) / MANIFEST).is_file():
        version = load_version(Path(name))
    elif name in {"1", "2", "phase-1", "phase-2"}:
        version = resolve_version(datasets / f"phase-{name[-1]}")
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


def explain_row(row_id: str, out: Path) -> dict[str, Any]:
    """Where a row went in the newest version of each phase.

    Raises:
        SourceError: No version holds such a row, or the digits are too few.
    """
    if len(row_id) < MIN_ID_DIGITS:
        raise SourceError(
            f"{row_id!r} is too short to name a row", hint=f"give {MIN_ID_DIGITS} or more digits"
        )
    roots = [path.parent for path in sorted((out / "datasets").glob(f"phase-*/{LATEST}"))]
    if not roots:
        raise SourceError(
            f"no dataset version under {out / 'datasets'}",
            hint="build one with `python -m curriculum.build --phase 1`, or pass --out",
        )
    places = [place for root in roots for place in _places(resolve_version(root), row_id)]
    if not places:
        raise SourceError(
            f"no row starts with {row_id!r} in {', '.join(root.name for root in roots)}",
            hint="take an id from data/ or rejected/ of a version, or from `curriculum ingest`",
        )
    for place in places:
        console.say(_sentence(place))
    return {"row_id": row_id, "places": places}


def _places(version: Version, row_id: str) -> list[dict[str, Any]]:
    phase = f"phase {version.manifest.extra['phase']}"
    found: list[dict[str, Any]] = []
    for shard in version.manifest.shards:
        columns = ["id", "source", "source_id", "num_tokens"]
        for number, row in enumerate(read_rows(version.folder / shard.path, columns)):
            if row["id"].startswith(row_id):
                found.append({"phase": phase, "kept": True, **row, "shard": shard.path})
                found[-1]["row"] = number
    for path in sorted((version.folder / "rejected").glob("*.parquet")):
        for row in read_rows(path):
            if row["row_id"].startswith(row_id):
                found.append({"phase": phase, "kept": False, "id": row.pop("row_id"), **row})
    return found


def _sentence(place: dict[str, Any]) -> str:
    if place["kept"]:
        return (
            f"{place['phase']}: {place['id']} is in, row {place['row']} of {place['shard']} "
            f"(source {place['source']}, {place['num_tokens']} tokens)"
        )
    why = f"{place['stage']}: {place['reason']}"
    return f"{place['phase']}: {place['id']} is out, {why} ({place['detail'] or 'no detail'})"
