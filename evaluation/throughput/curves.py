"""From timed steps to tokens a second, ratios, break-even lengths and checks; nothing is run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from evaluation.throughput.records import Group, Point
from evaluation.throughput.shapes import Subject
from pipeline.settings.throughput import ThroughputSettings

PAPER = {24.0: 3.66, 72.0: 1.69}
"""Budget in GB → Mamba-2 ÷ Transformer at the longest generations, as the paper quotes them
(arXiv 2505.22425: vLLM, PromptCoT-Mamba-7B against S1.1-7B; lengths and batches are not told)."""

_NOISE_BYTES = 4 << 20
"""Resident memory of a process moves by so much without any reason; a card's does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model's generation of one length under one budget."""

    model: str
    kind: str
    state_dtype: str
    budget_gb: float
    mode: str
    length: int
    batch: int
    tokens_per_s: float
    """Of all sequences together, reading of prompts apart; 0 where not one sequence fits."""
    step_ms: float | None
    """Mean over the generation: each sequence gets a token in it."""
    first_ms: float | None
    last_ms: float | None
    sequence_mib: float
    """State, or keys and values, of one sequence at its full length."""
    peak_gb: float
    moved_gb_per_s: float | None
    """Least that a step must read and write by the time it took (10^9 bytes): how near it is to
    what the memory can do."""
    route: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Both models at one length under one budget."""

    budget_gb: float
    length: int
    mamba: float
    """Tokens a second."""
    reserved: float
    """The Transformer's, each sequence with room for its whole length."""
    paged: float
    """The Transformer's, if pages were handed out without any loss."""
    ratio: float | None
    """Mamba-2 ÷ reserved; none where the Transformer does not fit."""
    ratio_paged: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A statement about the run, held against its limit."""

    name: str
    passed: bool
    detail: str


def mean_ms(points: Sequence[Point], start: int, end: int) -> float:
    """Mean cost of a step over positions ``start`` to ``end``, linear between measured ones.

    Args:
        points: At least one; ``start`` and ``end`` lie between the first and the last, or the
            only one is taken for all.
        start: First position.
        end: Last position.
    """
    known = sorted(points, key=lambda point: point.position)
    if len(known) == 1 or start == end:
        return _at(known, start)
    places = [start, *(p.position for p in known if start < p.position < end), end]
    area = sum((b - a) * (_at(known, a) + _at(known, b)) / 2 for a, b in pairwise(places))
    return area / (end - start)


def _at(known: Sequence[Point], position: int) -> float:
    """Linear between neighbours; the first or last value outside."""
    if position <= known[0].position:
        return known[0].median_ms
    for before, after in pairwise(known):
        if position <= after.position:
            share = (position - before.position) / (after.position - before.position)
            return before.median_ms + share * (after.median_ms - before.median_ms)
    return known[-1].median_ms


def make_rows(
    groups: Sequence[Group], subjects: Sequence[Subject], settings: ThroughputSettings
) -> list[Row]:
    """A row for each model, budget, way of reserving, and length."""
    models = {(subject.name, subject.state_dtype): subject for subject in subjects}
    rows = []
    for group in groups:
        subject = models[group.model, group.state_dtype]
        for length in settings.lengths if group.length == 0 else (group.length,):
            rows.append(_make_row(group, subject, length, settings.prompt_tokens))
    return rows


def _make_row(group: Group, subject: Subject, length: int, prompt: int) -> Row:
    step = first = last = None
    if group.points:
        end = prompt + length - 1
        step = mean_ms(group.points, prompt, end)
        first, last = mean_ms(group.points, prompt, prompt), mean_ms(group.points, end, end)
    moved = subject.moved_bytes(group.batch, prompt + length / 2)
    return Row(
        model=group.model,
        kind=group.kind,
        state_dtype=group.state_dtype,
        budget_gb=group.budget_gb,
        mode=group.mode,
        length=length,
        batch=group.batch,
        tokens_per_s=group.batch * 1000 / step if step else 0.0,
        step_ms=step,
        first_ms=first,
        last_ms=last,
        sequence_mib=subject.cache_bytes(prompt + length) / 2**20,
        peak_gb=group.peak_bytes / 2**30,
        moved_gb_per_s=moved / step / 1e6 if step else None,
        route=", ".join(dict.fromkeys(point.route for point in group.points)),
    )


def compare(rows: Sequence[Row], settings: ThroughputSettings) -> list[Comparison]:
    """The Mamba-2 with the first state dtype against the Transformer, length by length."""
    rates = {
        (row.budget_gb, row.length, row.mode): row.tokens_per_s
        for row in rows
        if row.kind == "transformer" or row.state_dtype == settings.state_dtypes[0]
    }
    found = []
    for budget in settings.budgets_gb:
        for length in settings.lengths:
            mamba, reserved, paged = (
                rates[budget, length, mode] for mode in ("constant", "reserved", "paged")
            )
            found.append(
                Comparison(
                    budget_gb=budget,
                    length=length,
                    mamba=mamba,
                    reserved=reserved,
                    paged=paged,
                    ratio=mamba / reserved if reserved else None,
                    ratio_paged=mamba / paged if paged else None,
                )
            )
    return found


def break_even_length(comparisons: Sequence[Comparison], *, paged: bool = False) -> float | None:
    """Generated tokens from which the Mamba-2 is the faster one, of one budget's comparisons.

    Interpolated between measured lengths on logarithmic axes. The shortest length if it is faster
    from there on, none if it is not at the longest. Where the Transformer does not fit it has lost.
    """
    logs = []
    for one in sorted(comparisons, key=lambda c: c.length):
        ratio = one.ratio_paged if paged else one.ratio
        fits = one.mamba > 0
        worth = math.log(ratio) if ratio else (math.inf if fits else -math.inf)
        logs.append((math.log(one.length), worth))
    if logs[-1][1] < 0:
        return None
    for (short, low), (long, high) in reversed(list(pairwise(logs))):
        if low < 0:
            share = 0.0 if math.isinf(high) or math.isinf(low) else -low / (high - low)
            return math.exp(short + share * (long - short)) if share else math.exp(long)
    return math.exp(logs[0][0])


def check_flatness(
    rows: Sequence[Row], walks: Sequence[dict[str, Any]], settings: ThroughputSettings
) -> list[Check]:
    """Whether a Mamba-2's token costs the same at the longest length as at the shortest."""
    limit = 1 + settings.flat_tolerance
    checks = []
    mambas = [row for row in rows if row.kind == "mamba2" and row.last_ms]
    for short in (row for row in mambas if row.length == settings.lengths[0]):
        end = next(
            row
            for row in mambas
            if row.length == settings.lengths[-1]
            and (row.budget_gb, row.state_dtype) == (short.budget_gb, short.state_dtype)
        )
        share = (end.last_ms or 0.0) / (short.last_ms or 1.0)
        checks.append(
            Check(
                name=f"ms/token flat, {short.budget_gb:g} GB, {short.state_dtype} state",
                passed=share <= limit,
                detail=f"{end.length:,} ÷ {short.length:,} tokens: {share:.3f} (at most {limit:g})",
            )
        )
    for walk in walks:
        share = walk["last_ms"] / walk["first_ms"]
        checks.append(
            Check(
                name=f"{walk['steps']:,} real steps in a row, batch {walk['batch']}, "
                f"{walk['state_dtype']} state",
                passed=share <= limit and walk["grown_bytes"] <= _NOISE_BYTES,
                detail=f"last tenth ÷ first: {share:.3f} (at most {limit:g}); memory grew by "
                f"{max(0, walk['grown_bytes']):,} bytes (at most {_NOISE_BYTES:,})",
            )
        )
    return checks


def as_json(values: Sequence[Row | Comparison | Check]) -> list[dict[str, Any]]:
    """Rows as JSON-ready dicts."""
    return [asdict(value) for value in values]
