"""The story of one row: where it came from, what each stage made of it, where it is now.

Inputs: the newest version of each phase and variant of a run folder, and the prepared sources that
those versions name. Command: ``python -m curriculum explain ROW_ID``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.errors import SourceError
from pipeline.manifest import LATEST, Version, resolve_version

MIN_ID_DIGITS = 6
STAGES = (
    ("parse", "read in its source's schema"),
    ("normalize", "brought to the one thinking dialect"),
    ("validate", "well formed"),
    ("decontaminate", "no benchmark item in it"),
    ("measure", "short enough for the phase"),
    ("dedupe", "first of its question"),
    ("mix", "taken by the phase's mix"),
)
"""What passing a stage means, in the order of the stages."""
_SOME_ROWS = {"join": "normalize"}
"""Stages that only some sources have, and the stage that comes after."""
_COLUMNS = ("id", "source", "source_id", "source_revision", "licence", "domain", "difficulty",
            "num_tokens", "provenance")  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the files of a version say about rows whose id begins as wanted."""

    kept: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    duplicates: list[dict[str, Any]] = field(default_factory=list)


def explain_row(row_id: str, out: Path) -> dict[str, Any]:
    """What became of a row in the newest version of each phase and variant.

    Args:
        row_id: The row's id, or its first digits; a copy's id names its row.
        out: Run folder.

    Raises:
        SourceError: No version holds such a row, or the digits are too few.
    """
    start = row_id.partition("-")[0].lower()
    if len(start) < MIN_ID_DIGITS:
        raise SourceError(
            f"{row_id!r} is too short to name a row", hint=f"give {MIN_ID_DIGITS} or more digits"
        )
    roots = [path.parent for path in sorted((out / "datasets").glob(f"phase-*/{LATEST}"))]
    if not roots:
        raise SourceError(
            f"no dataset version under {out / 'datasets'}",
            hint="build one with `python -m curriculum.build --phase 1`, or pass --out",
        )
    places = [place for root in roots for place in tell_places(resolve_version(root), start)]
    if not places:
        raise SourceError(
            f"no row starts with {row_id!r} in {', '.join(root.name for root in roots)}",
            hint="take an id from data/ or rejected/ of a version, or from `curriculum ingest`",
        )
    return {"row_id": row_id, "places": places}


def tell_places(version: Version, start: str) -> list[dict[str, Any]]:
    """Every row of a version, kept or not, whose id begins so, each with its story."""
    seen = _Seen(
        kept=list(_kept(version, start)),
        rejected=list(_matching(version.folder / "rejected", "row_id", start)),
        duplicates=[
            *_matching(version.folder / "duplicates", "removed_id", start),
            *_matching(version.folder / "duplicates", "kept_id", start),
        ],
    )
    places = [_tell_kept(version, row, seen) for row in seen.kept]
    return places + [_tell_rejected(version, row, seen) for row in seen.rejected]


def show_places(report: dict[str, Any]) -> None:
    """Print the stories."""
    for place in report["places"]:
        console.heading(f"{place['phase']}, version {place['version']}: {place['id']}")
        for step in place["story"]:
            mark = "passed" if step["passed"] else "OUT"
            console.say(f"  {step['stage']:<14} {mark:<7} {step['says']}")
        console.say(_sentence(place))


def _kept(version: Version, start: str) -> Iterator[dict[str, Any]]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for shard in version.manifest.shards:
        path = version.folder / shard.path
        ids = pq.read_table(path, columns=["id"])["id"]
        places = pc.indices_nonzero(pc.starts_with(ids, start)).to_pylist()
        if not places:
            continue
        table = pq.read_table(path, columns=list(_COLUMNS)).take(places)
        for place, row in zip(places, table.to_pylist(), strict=True):
            yield {**row, "shard": shard.path, "row": place}


def _matching(folder: Path, column: str, start: str) -> Iterator[dict[str, Any]]:
    """Rows of a folder's Parquet files; row groups whose range excludes the id are not read."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    # "g" comes after every hexadecimal digit.
    wanted = (pc.field(column) >= start) & (pc.field(column) < f"{start}g")
    for path in sorted(folder.glob("*.parquet")):
        yield from pq.read_table(path, filters=wanted).to_pylist()


def _place(version: Version, row_id: str, *, kept: bool) -> dict[str, Any]:
    extra = version.manifest.extra
    name = f"phase {extra['phase']}"
    if extra.get("variant"):
        name += f", variant {extra['variant']}"
    return {"phase": name, "version": version.name, "kept": kept, "id": row_id}


def _tell_kept(version: Version, row: dict[str, Any], seen: _Seen) -> dict[str, Any]:
    provenance = row.pop("provenance") or {}
    base = row["id"].partition("-")[0]
    stands_for = [d for d in seen.duplicates if d["kept_id"] == base]
    twins = [m for m in _matches(version) if m["row_id"] == base]
    tokens = row["num_tokens"]
    limit = version.manifest.extra["max_tokens"]
    says = dict(STAGES)
    says["parse"] = f"source {row['source']} at {row['source_revision']}, its id " + (
        f"{row['source_id']!r}{_place_in_source(provenance)}"
    )
    says["measure"] = f"{tokens:,} tokens, the phase takes {limit:,}"
    if twins:
        says["decontaminate"] = "; ".join(
            f"a template twin of {m['benchmark']}/{m['item_id']}, counted and kept" for m in twins
        )
    if stands_for:
        says["dedupe"] = f"kept for {len(stands_for):,} removed rows: " + ", ".join(
            f"{d['removed_id']} ({d['reason']}{_similarity(d)})" for d in stands_for[:5]
        )
    if base != row["id"]:
        says["mix"] = f"copy {row['id'].partition('-')[2]} of {base}, by the source's share"
    story = [{"stage": s, "passed": True, "says": says[s]} for s, _ in STAGES]
    place = _place(version, row["id"], kept=True)
    return {**place, **row, "provenance": provenance, "stands_for": stands_for, "story": story}


def _tell_rejected(version: Version, row: dict[str, Any], seen: _Seen) -> dict[str, Any]:
    row_id, stage = row.pop("row_id"), row["stage"]
    pairs = [d for d in seen.duplicates if d["removed_id"] == row_id]
    names = [name for name, _ in STAGES]
    following = _SOME_ROWS.get(stage, stage)
    passed = STAGES[: names.index(following)] if following in names else ()
    story = [{"stage": name, "passed": True, "says": says} for name, says in passed]
    if story and row.get("source") is not None:
        story[0]["says"] = f"source {row['source']}{_place_in_source(row)}"
    why = f"{row['reason']}: {row['detail'] or 'no detail'}"
    if pairs:
        why += f"{_similarity(pairs[0])}; it stands in for this row: {pairs[0]['kept_id']}"
    story.append({"stage": stage, "passed": False, "says": why})
    place = _place(version, row_id, kept=False)
    return {**place, **row, "kept_id": pairs[0]["kept_id"] if pairs else None, "story": story}


def _matches(version: Version) -> list[dict[str, Any]]:
    report = version.manifest.extra.get("decontamination", {})
    return [match for match in report.get("matches", []) if match["rule"] == "twin"]


def _place_in_source(row: dict[str, Any]) -> str:
    """File and row of the source, where they are known."""
    if row.get("source_file") is None:
        return ""
    return f", row {row['source_position']} of {row['source_file']}"


def _similarity(pair: dict[str, Any]) -> str:
    return "" if pair.get("jaccard") is None else f", Jaccard {pair['jaccard']:.2f}"


def _sentence(place: dict[str, Any]) -> str:
    if place["kept"]:
        return (
            f"{place['phase']}: {place['id']} is in, row {place['row']} of {place['shard']} "
            f"(source {place['source']}, {place['num_tokens']} tokens)"
        )
    why = f"{place['stage']}: {place['reason']}"
    origin = f" ({place['source']}{_place_in_source(place)})" if place.get("source") else ""
    detail = place["detail"] or "no detail"
    return f"{place['phase']}: {place['id']}{origin} is out, {why} ({detail})"
