"""A short README for each intermediate version, with every figure taken from its manifest.

The last stage's version is what is published; its card is :mod:`promptcot.product_card`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.manifest import Manifest
from promptcot.stage_names import TITLES

_MAX_PARTS = 24
"""Entries of a breakdown that still fit into one line of a card."""


def render_card(manifest: Manifest) -> str:
    """Markdown that says what a synthesis version is and what it left out."""
    stage = str(manifest.extra["stage"])
    unit = str(manifest.extra["unit"])
    lines = [
        f"# {title_of(stage)}",
        "",
        f"Version `{manifest.version}` of the synthesis stage `{stage}`.",
        "",
        f"- {manifest.rows_in:,} {unit} in, {manifest.rows_out:,} out, "
        f"{manifest.rows_rejected:,} rejected",
        *(f"- input `{ref.name}`: `{ref.version}`" for ref in manifest.inputs),
        *(f"- {count:,} {kind} tokens" for kind, count in manifest.tokens.items()),
        *(f"- licence {name}: {count:,} rows" for name, count in manifest.licences.items()),
        *figure_lines(manifest.extra),
    ]
    reasons = [
        (name, count) for counts in manifest.rejected.values() for name, count in counts.items()
    ]
    if reasons:
        lines += ["", "| rejected because | rows |", "| --- | ---: |"]
        lines += [f"| {name} | {count:,} |" for name, count in sorted(reasons)]
    return "\n".join(lines) + "\n"


def title_of(stage: str) -> str:
    """A stage's heading; rounds of refinement carry their number."""
    if stage.startswith("refined-"):
        return f"Refined triples, round {stage.removeprefix('refined-')}"
    return TITLES.get(stage, stage)


def figure_lines(extra: Mapping[str, Any]) -> Iterator[str]:
    """A stage's own figures as list items: numbers, and breakdowns short enough to read."""
    for name, value in extra.items():
        if name in ("stage", "unit"):
            continue
        yield from _lines_of(name.replace("_", " "), value)


def _lines_of(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, str | int | float):
        yield f"- {name}: {show_number(value)}"
    elif isinstance(value, dict) and 0 < len(value) <= _MAX_PARTS:
        parts = {key: part for key, part in value.items() if isinstance(part, str | int | float)}
        if parts:
            shown = ", ".join(f"{key} {show_number(part)}" for key, part in parts.items())
            yield f"- {name}: {shown}"
        for key, part in value.items():
            if isinstance(part, dict):
                yield from _lines_of(f"{name}, {key}", part)


def show_number(value: Any) -> str:
    """A figure as people write it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
