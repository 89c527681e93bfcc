"""Figures of a phase version for its manifest: per source, lengths, domains, benchmarks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from curriculum.features import DOMAINS, Rows
from curriculum.measure import HISTOGRAM_BINS
from curriculum.planning import Plan
from curriculum.prepared import PreparedSource
from curriculum.reworded import RULE, JudgedPair
from curriculum.selection import Selection
from pipeline.student import TOKENIZER_SHA256

MAX_LISTED_FINDINGS = 500
"""Matches listed in the manifest; all of them are counted."""


def describe_phase(plan: Plan, selection: Selection) -> dict[str, Any]:
    """The manifest's ``extra``."""
    features, rows = selection.corpus.features, selection.choice.rows
    sizes = np.sort(features.num_tokens[rows])
    domains = np.bincount(features.domain[rows], minlength=len(DOMAINS)).tolist()
    return {
        "phase": plan.phase,
        **({"variant": plan.variant} if plan.variant is not None else {}),
        "max_tokens": plan.settings.max_tokens,
        "tokenizer": TOKENIZER_SHA256,
        "sources": _describe_sources(plan, selection),
        "replayed_rows": selection.choice.num_replayed,
        "domains": {name: n for name, n in sorted(zip(DOMAINS, domains, strict=True)) if n},
        "token_histogram": make_histogram(sizes),
        "token_quantiles": _quantiles(sizes),
        "decontamination": _describe_decontamination(plan, selection),
    }


def _describe_sources(plan: Plan, selection: Selection) -> dict[str, Any]:
    """Per source: what came in, went out and was refused; copies count on both sides."""
    features, choice = selection.corpus.features, selection.choice
    described = {}
    for number, source in enumerate(selection.corpus.sources):
        kind = {p.source.name: p.source.settings.kind for p in plan.preparations}[source.name]
        mine = features.source[choice.rows] == number
        rows = choice.rows[mine]
        is_own = number < len(plan.settings.sources)
        if not is_own and not len(rows):
            # Only looked at: a phase that this one is distinct from has it.
            continue
        rejected = _count_refused(selection, source, number) if is_own else 0
        described[source.name] = {
            "kind": kind,
            "rows_in": len(rows) + rejected,
            "rows_out": len(rows),
            "rejected": rejected,
            "copies": int((choice.copies[mine] > 0).sum()),
            "tokens": int(features.num_tokens[rows].sum()),
            "verified": int(features.is_verified[rows].sum()),
        }
    return described


def _count_refused(selection: Selection, source: PreparedSource, number: int) -> int:
    """Rows of a source that are not in the phase, for whatever reason."""
    of_row = selection.corpus.features.source
    late = (
        selection.reworded.rows,
        selection.over,
        selection.duplicates.removed,
        selection.choice.refused,
    )
    return source.manifest.rows_rejected + sum(int((of_row[r] == number).sum()) for r in late)


def make_histogram(sizes: Rows) -> list[dict[str, int | None]]:
    """Rows per fixed bin: ``{"up_to": 64, "rows": 3}``; ``up_to`` is null in the open bin."""
    places = np.searchsorted(HISTOGRAM_BINS, sizes)
    counts = np.bincount(places, minlength=len(HISTOGRAM_BINS) + 1).tolist()
    bounds: list[int | None] = [*HISTOGRAM_BINS, None]
    return [{"up_to": bound, "rows": count} for bound, count in zip(bounds, counts, strict=True)]


def _quantiles(sizes: Rows) -> dict[str, int]:
    """Nearest-rank quantiles of sorted sizes; empty without rows."""
    if not len(sizes):
        return {}
    picks = {"min": 0.0, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: int(sizes[round(share * (len(sizes) - 1))]) for name, share in picks.items()}


def _as_match(pair: JudgedPair) -> dict[str, Any]:
    """What a teacher found, like what the rules find."""
    stated = pair.model_dump(include={"row_id", "benchmark", "item_id", "span"})
    return {**stated, "rule": RULE, "score": pair.cosine, "part": "question", "differs": ""}


def _describe_decontamination(plan: Plan, selection: Selection) -> dict[str, Any]:
    """Per-benchmark counts, and the matched spans."""
    own = selection.corpus.sources[: len(plan.settings.sources)]
    extras = [source.manifest.extra for source in own]
    matches = [match for extra in extras for match in extra["matches"]]
    judged = selection.reworded.pairs
    matches += [_as_match(pair) for pair in judged]
    reworded = Counter(pair.benchmark for pair in judged)
    items: dict[str, int] = extras[0]["benchmarks"] if extras else {}
    return {
        "enabled": plan.recipe.settings.curriculum.decontamination.enabled,
        "benchmarks": {
            name: {
                "items": items[name],
                "rows_flagged": reworded[name]
                + sum(extra["contaminations"].get(name, 0) for extra in extras),
                "reworded": reworded[name],
                "template_twins": sum(extra["twins"].get(name, 0) for extra in extras),
            }
            for name in sorted(items)
        },
        "matches": matches[:MAX_LISTED_FINDINGS],
    }
