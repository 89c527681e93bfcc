"""A version as one page: mix, lengths, order, rejections, benchmark items, sample rows.

One HTML file without external requests, with equal bytes for equal versions. Command:
``python -m curriculum inspect V --html FILE``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curriculum.inspect_data import (
    MAX_MATCHES,
    Columns,
    choose_duplicates,
    choose_rejected,
    choose_rows,
    read_columns,
    shorten,
)
from curriculum.inspect_plots import plot_lengths, plot_order
from pipeline.manifest import Manifest, Version
from pipeline.pages import Plot, page_environment
from pipeline.store import write_text

_MOST_LABELS = 12


def write_inspection(version: Version, path: Path) -> None:
    """Write the page.

    Raises:
        SourceError: A shard is missing or unreadable.
        StoreError: The file cannot be written.
    """
    write_text(path, render_inspection(version))


def render_inspection(version: Version) -> str:
    """The page as text."""
    manifest, columns = version.manifest, read_columns(version)
    extra = manifest.extra
    title = f"phase {extra['phase']}" + (f", {extra['variant']}" if extra.get("variant") else "")
    matches = extra["decontamination"]["matches"]
    values: dict[str, Any] = {
        "title": title,
        "manifest": manifest,
        "extra": extra,
        "tiles": _tiles(manifest, columns),
        "notes": _notes(manifest),
        "sources": _sources(manifest),
        "domains": _bars(extra["domains"]),
        "licences": _bars(manifest.licences),
        "difficulties": _bars(dict(list(columns.difficulties.items())[:_MOST_LABELS])),
        "num_difficulties": len(columns.difficulties),
        "quantiles": _quantiles(columns),
        "plots": _plots(manifest, columns),
        "rejected": choose_rejected(version),
        "duplicates": choose_duplicates(version),
        "matches": [{**m, "span": shorten(m["span"])} for m in matches[:MAX_MATCHES]],
        "num_matches": len(matches),
        "rows": choose_rows(version, columns),
        "settings": json.dumps(manifest.settings, indent=2, sort_keys=True, ensure_ascii=False),
    }
    return page_environment("curriculum").get_template("inspect.html.j2").render(values)


def _tiles(manifest: Manifest, columns: Columns) -> list[dict[str, Any]]:
    tokens = manifest.tokens
    total, completion = tokens.get("total", 0), tokens.get("completion", 0)
    sources = manifest.extra["sources"].values()
    copies = sum(source.get("copies", 0) for source in sources)
    verified = sum(source["verified"] for source in sources)
    kept = manifest.rows_out / manifest.rows_in if manifest.rows_in else 0
    longest = int(columns.tokens.max()) if len(columns.tokens) else 0
    tiles = [
        ("rows", f"{manifest.rows_out:,}", f"{kept:.1%} of {manifest.rows_in:,} that came in"),
        ("rejected", f"{manifest.rows_rejected:,}", "each with its stage and reason"),
        ("tokens", f"{total:,}", f"{completion / total:.1%} of them trained on" if total else ""),
        ("longest row", f"{longest:,}", f"limit {manifest.extra['max_tokens']:,} tokens"),
        ("verified answers", f"{verified:,}", "checked by the source or by us"),
    ]
    if copies:
        tiles.append(("copies", f"{copies:,}", "rows repeated by a share or weight"))
    replayed = manifest.extra.get("replayed_rows", 0)
    if replayed:
        tiles.append(("replayed", f"{replayed:,}", "rows of another phase"))
    return [{"label": label, "value": value, "detail": detail} for label, value, detail in tiles]


def _notes(manifest: Manifest) -> list[str]:
    """What a reader must know before trusting the rows."""
    report = manifest.extra["decontamination"]
    notes = []
    if not report["enabled"]:
        notes.append("Decontamination was off: rows were not compared with any benchmark.")
    elif not report["benchmarks"]:
        notes.append("The recipe lists no benchmarks, so nothing was compared with any.")
    twins = sum(entry["template_twins"] for entry in report["benchmarks"].values())
    if twins:
        notes.append(
            f"{twins:,} template twins were found: a benchmark's wording with other numbers."
        )
    if len(manifest.licences) > 1:
        notes.append(f"Rows are under {len(manifest.licences)} licences; each row states its own.")
    verified = sum(source["verified"] for source in manifest.extra["sources"].values())
    unverified = manifest.rows_out - verified
    if unverified:
        notes.append(f"{unverified:,} rows have an answer that nothing confirmed.")
    return notes


def _sources(manifest: Manifest) -> list[dict[str, Any]]:
    total = manifest.tokens.get("total", 0) or 1
    return [
        {"name": name, "copies": 0, **entry, "share": entry["tokens"] / total,
         "kept": entry["rows_out"] / entry["rows_in"] if entry["rows_in"] else 0}
        for name, entry in manifest.extra["sources"].items()
    ]  # fmt: skip


def _bars(counts: dict[str, int]) -> list[dict[str, Any]]:
    total, largest = sum(counts.values()) or 1, max(counts.values(), default=1)
    return [
        {"name": name, "rows": count, "share": count / total, "width": count / largest}
        for name, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    ]


def _quantiles(columns: Columns) -> list[dict[str, Any]]:
    parts: tuple[tuple[str, npt.NDArray[np.int32]], ...] = (
        ("prompt", columns.prompt_tokens),
        ("completion", columns.completion_tokens),
        ("both", columns.tokens),
    )
    shares = (0.0, 0.05, 0.5, 0.95, 0.99, 1.0)
    return [
        {
            "name": name,
            "values": np.quantile(values, shares, method="nearest").tolist(),
            "mean": float(values.mean()),
        }
        for name, values in parts
        if len(values)
    ]


def _plots(manifest: Manifest, columns: Columns) -> dict[str, Plot]:
    if not len(columns.tokens):
        return {}
    limit = manifest.extra["max_tokens"]
    median = int(np.median(columns.tokens))
    over = int((columns.tokens > limit / 2).sum())
    return {
        "lengths": Plot(
            plot_lengths(columns.tokens, columns.source, columns.sources, limit),
            f"Histogram of row lengths; half the rows have at most {median:,} tokens.",
            f"Half the rows have at most {median:,} tokens; {over:,} use more than half of the "
            f"{limit:,} (dashed) that the phase allows.",
        ),
        "order": Plot(
            plot_order(columns.tokens, columns.source, columns.sources),
            "Share of each source and mean length along the training order.",
            "What training meets first and last. Shuffled rows give level lines; an order by "
            "difficulty or length shows as a slope.",
        ),
    }
