"""Figures of a phase version for its manifest: per source, lengths, domains, benchmarks."""

from __future__ import annotations

from collections import Counter
from typing import Any

from curriculum.measure import histogram_of
from curriculum.planning import Plan
from curriculum.selection import Selection
from curriculum.surveying import Survey
from pipeline.contamination import BenchmarkIndex


def describe_phase(
    plan: Plan, survey: Survey, selection: Selection, index: BenchmarkIndex
) -> dict[str, Any]:
    """The manifest's ``extra``."""
    sizes = sorted(row.num_tokens for row in selection.rows)
    return {
        "phase": plan.phase,
        "max_tokens": plan.settings.max_tokens,
        "sources": _describe_sources(plan, survey, selection),
        "domains": dict(sorted(Counter(row.domain for row in selection.rows).items())),
        "token_histogram": histogram_of(sizes),
        "token_quantiles": _quantiles(sizes),
        "decontamination": _describe_decontamination(plan, survey, index),
    }


def _describe_sources(plan: Plan, survey: Survey, selection: Selection) -> dict[str, Any]:
    described = {}
    for number, source in enumerate(plan.sources):
        rows_in = sum(b.num_rows for b in survey.batches if b.source == number)
        rows = [row for row in selection.rows if row.entry.priority == number]
        described[source.name] = {
            "kind": source.settings.kind,
            "rows_in": rows_in,
            "rows_out": len(rows),
            "rejected": rows_in - len(rows),
            "tokens": sum(row.num_tokens for row in rows),
            "verified": sum(row.entry.is_verified for row in rows),
        }
    return described


def _quantiles(sizes: list[int]) -> dict[str, int]:
    """Nearest-rank quantiles of sorted sizes; empty without rows."""
    if not sizes:
        return {}
    picks = {"min": 0.0, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: sizes[round(share * (len(sizes) - 1))] for name, share in picks.items()}


def _describe_decontamination(plan: Plan, survey: Survey, index: BenchmarkIndex) -> dict[str, Any]:
    """Per-benchmark counts, and the matched spans."""
    items = index.items_per_benchmark()
    return {
        "enabled": plan.recipe.settings.curriculum.decontamination.enabled,
        "benchmarks": {
            name: {
                "items": items[name],
                "rows_flagged": survey.flagged[name],
                "template_twins": survey.twins[name],
            }
            for name in sorted(items)
        },
        "matches": survey.findings,
    }
