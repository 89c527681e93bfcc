"""What a finished version made of a generated corpus, held against the corpus's labels.

Every row is followed to where it went: the version's data, ``rejected/`` or, as a duplicate,
``duplicates/``. Only ids, kinds and reasons are read, never texts.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
from corpus_rows import SAME_JACCARD
from corpus_texts import CONTAMINATIONS

_BUCKETS = (0.0, 0.2, 0.4, 0.6, 0.75, SAME_JACCARD, 0.85, 0.9, 0.95, 1.0)
_LATER = ("dedupe", "measure", "mix")
"""Stages that a row reaches only when nothing is wrong with it."""


def follow_rows(labels: Path, version: Path) -> pl.DataFrame:
    """The labels, and where each row went.

    Further columns: ``stage``, ``reason`` and ``detail`` of a refusal, ``kept_row`` (the row that
    stands for a duplicate), ``is_kept``, ``times`` (in how many places the row was found; 1 is
    right), ``bucket`` (of likeness), ``root`` (the row whose problem this one has).
    """
    frame = pl.scan_parquet(labels)
    numbers = frame.select(kept_id="row_id", kept_row="row")
    duplicates = _scan(version / "duplicates").join(numbers, on="kept_id")
    refused = _scan(version / "rejected").select("row_id", "stage", "reason", "detail")
    refused = refused.with_columns(refusals=pl.len().over("row_id"))
    kept = _scan(version / "data").group_by(row_id="id").agg(copies=pl.len())
    is_same = pl.col("of_row").is_not_null() & (pl.col("jaccard").fill_null(0) >= SAME_JACCARD)
    bucket = pl.lit(f"[{_BUCKETS[-2]}, {_BUCKETS[-1]}]")
    for low, high in reversed(list(pairwise(_BUCKETS[:-1]))):
        bucket = (
            pl.when(pl.col("jaccard") < high).then(pl.lit(f"[{low}, {high})")).otherwise(bucket)
        )
    return (
        frame.join(refused.unique("row_id"), on="row_id", how="left")
        .join(kept, on="row_id", how="left")
        .join(duplicates.select(row_id="removed_id", kept_row="kept_row"), on="row_id", how="left")
        .with_columns(
            is_kept=pl.col("copies").is_not_null(),
            times=pl.col("copies").fill_null(0) + pl.col("refusals").fill_null(0),
            # Two renumberings of one problem are the same.
            root=pl.when(is_same)
            .then("of_row")
            .when(pl.col("kind") == "renumbered")
            .then(-1 - pl.col("of_row"))
            .otherwise("row"),
            kind=pl.when(pl.col("kind").str.starts_with("alike-"))
            .then(pl.format("alike {}", bucket))
            .otherwise("kind"),
        )
        .drop("copies", "refusals")
        .collect(engine="streaming")
    )


def _scan(folder: Path) -> pl.LazyFrame:
    return pl.scan_parquet(sorted(folder.glob("*.parquet")))


def judge_version(labels: Path, version: Path) -> dict[str, Any]:
    """Recall and precision of everything that was planted."""
    rows = follow_rows(labels, version)
    return {
        "rows": len(rows),
        "kept": int(rows["is_kept"].sum()),
        "not_in_one_place": int((rows["times"] != 1).sum()),
        "broken": judge_broken(rows),
        "leaks": judge_leaks(rows),
        "repeats": judge_repeats(rows),
        "false_removals": judge_removals(rows),
        "false_refusals": judge_refusals(rows),
    }


def judge_broken(rows: pl.DataFrame) -> dict[str, Any]:
    """Of rows with a defect, by expected reason: how many fell by it, by another, by none."""
    is_early = pl.col("stage").is_not_null() & ~pl.col("stage").is_in(_LATER)
    grouped = (
        rows.filter(kind="broken")
        .group_by("expected")
        .agg(
            planted=pl.len(),
            right=(pl.col("reason") == pl.col("expected")).fill_null(False).sum(),
            other=(is_early & (pl.col("reason") != pl.col("expected"))).fill_null(False).sum(),
        )
        .sort("expected")
    )
    return {row.pop("expected"): row for row in grouped.to_dicts()}


def judge_leaks(rows: pl.DataFrame) -> dict[str, Any]:
    """Of rows with a benchmark item, by disguise: how many were refused, and for which item."""
    is_found = (pl.col("stage") == "decontaminate").fill_null(False)
    is_named = pl.col("detail").str.starts_with(pl.col("item") + " by ").fill_null(False)
    grouped = (
        rows.filter(pl.col("kind").is_in(CONTAMINATIONS))
        .group_by("kind")
        .agg(planted=pl.len(), found=is_found.sum(), right_item=(is_found & is_named).sum())
        .sort("kind")
    )
    return {row.pop("kind"): row for row in grouped.to_dicts()}


def judge_repeats(rows: pl.DataFrame) -> dict[str, Any]:
    """Of pairs of rows with one problem that both came so far, by kind: how many were found.

    A pair is found when not both of it are in the version. Most become one row (``one_row``). The
    others have one that is nearer to a third row, which stands for it, and one that is too far from
    that row: likeness is no equivalence, and a row falls for a row that stays, never for a chain.
    """
    came = rows.filter(pl.col("is_kept") | (pl.col("stage") == "dedupe"))
    stands = came.select("row", "is_kept", stands=pl.coalesce("kept_row", "row"))
    pairs = (
        came.filter(pl.col("root") != pl.col("row"))
        .drop("is_kept")
        .join(stands, on="row")
        .join(stands.select(pl.all().name.prefix("root_")), left_on="root", right_on="root_row")
    )
    found = ~(pl.col("is_kept") & pl.col("root_is_kept"))
    grouped = (
        pairs.group_by("kind")
        .agg(
            planted=pl.len(),
            found=found.sum(),
            one_row=(pl.col("stands") == pl.col("root_stands")).sum(),
        )
        .sort("kind")
    )
    return {row.pop("kind"): row for row in grouped.to_dicts()}


def judge_removals(rows: pl.DataFrame) -> dict[str, Any]:
    """Of rows that the search for duplicates saw, by kind: how many fell for another problem."""
    came = rows.filter(pl.col("is_kept") | (pl.col("stage") == "dedupe"))
    roots = rows.select(kept_row="row", kept_root="root")
    grouped = (
        came.join(roots, on="kept_row", how="left")
        .group_by("kind")
        .agg(rows=pl.len(), false=(pl.col("kept_root") != pl.col("root")).fill_null(False).sum())
        .sort("kind")
    )
    return {row.pop("kind"): row for row in grouped.to_dicts()}


def judge_refusals(rows: pl.DataFrame) -> dict[str, Any]:
    """Of rows with nothing wrong, by kind: how many were refused before, and by which reasons."""
    is_leak = pl.col("kind").is_in(CONTAMINATIONS) & (pl.col("stage") == "decontaminate")
    is_false = pl.col("stage").is_not_null() & ~pl.col("stage").is_in(_LATER) & ~is_leak
    found: dict[str, Any] = {}
    sound = rows.filter(pl.col("kind") != "broken").with_columns(
        reason=pl.when(is_false.fill_null(False)).then("reason")
    )
    for row in sound.group_by("kind", "reason").len("count").sort("kind", "reason").to_dicts():
        one = found.setdefault(row["kind"], {"rows": 0, "false": 0, "reasons": {}})
        one["rows"] += row["count"]
        if row["reason"] is not None:
            one["false"] += row["count"]
            one["reasons"][row["reason"]] = row["count"]
    return found


def find_misses(quality: dict[str, Any]) -> list[str]:
    """Bars of docs/results.md that a version's quality does not meet."""
    missed = []
    if quality["not_in_one_place"]:
        missed.append(f"{quality['not_in_one_place']} rows are in no place or in several")

    def require(what: str, part: int, whole: int, least: float) -> None:
        if whole and part < least * whole:
            missed.append(f"{what}: {part} of {whole}, not {least:.1%}")

    for name, row in quality["broken"].items():
        require(f"broken rows, {name}", row["right"], row["planted"], 0.999)
    for name, row in quality["leaks"].items():
        least = 0.95 if name in ("edited", "embedded") else 1.0
        require(f"benchmark items, {name}", row["found"], row["planted"], least)
    for name, row in quality["repeats"].items():
        require(f"repeats, {name}", row["found"], row["planted"], 0.99)
    for name, row in quality["false_removals"].items():
        # Just under the threshold there is no right answer to a thousandth.
        if name != f"alike [0.75, {SAME_JACCARD})":
            require(f"not removed, {name}", row["rows"] - row["false"], row["rows"], 0.999)
    for name, row in quality["false_refusals"].items():
        require(f"not refused, {name}", row["rows"] - row["false"], row["rows"], 0.999)
    return missed
