"""The estimate as people read it: a table of bounds, or of ranges after a pilot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import console
from promptcot.agreement import wilson_interval
from promptcot.estimate import Allowance, Estimate

if TYPE_CHECKING:
    from promptcot.extrapolate import Forecast, Range, StageForecast


def show_estimate(estimate: Estimate) -> None:
    """Print bounds, or what a pilot says, and what the budget allows."""
    if estimate.forecast is not None:
        _show_forecast(estimate.forecast)
    else:
        _show_bounds(estimate)
    for allowance in estimate.allowances:
        console.say(describe_allowance(allowance))


def _show_bounds(estimate: Estimate) -> None:
    with_money = estimate.usd > 0
    console.table(
        "At most",
        ["stage", "rows in", "requests", "generated tokens", *(["USD"] if with_money else [])],
        [
            [b.stage, b.rows, b.requests, b.tokens, *([b.usd] if with_money else [])]
            for b in estimate.stages
        ],
    )
    if with_money:
        console.say(
            f"At most {estimate.usd:,.2f} USD for generated tokens; prompts and machine time come "
            "on top, and a pilot tells them."
        )
    if estimate.seconds is None:
        console.say(
            "No time given: this run folder has no measured speed yet. Stored answers are free. "
            "Measure it with `estimate --pilot 50`."
        )
    else:
        console.say(
            f"At {estimate.tokens_per_s:,.0f} tokens/s (measured here) at most "
            f"{show_time(estimate.seconds)}. Stored answers are free."
        )


def _show_forecast(found: Forecast) -> None:
    console.table(
        f"Measured on {found.num_pilot:,} combinations",
        ["stage", "in", "accepted", "share (95 %)", "tokens a request (95 %)"],
        [
            [s.stage, s.pilot_in, s.pilot_out, _describe_share(s), _describe_tokens(s)]
            for s in found.stages
        ],
    )
    _show_stages(found)
    _show_totals(found)
    for stage in found.stages:
        if not stage.is_measured:
            console.warn(
                f"no row of the pilot reached stage {stage.stage}: nothing is known of it, and its "
                "cost is missing above; take a larger pilot"
            )
            break
    for caveat in found.caveats:
        console.say(caveat)


def _show_stages(found: Forecast) -> None:
    shown = [measure for measure in _MEASURES if found.total[measure.name].expected > 0]
    console.table(
        f"Expected of all {found.num_combinations:,} combinations",
        ["stage", "rows out", *(measure.title for measure in shown)],
        [
            [
                stage.stage,
                show_count(stage.rows_out.expected),
                *(m.show(stage.amounts[m.name].expected) for m in shown),
            ]
            for stage in found.stages
        ],
    )


def _show_totals(found: Forecast) -> None:
    rows = [["verified traces", *_three(found.total["traces"], show_count)]]
    rows += [
        [measure.title, *_three(found.total[measure.name], measure.show)]
        for measure in _MEASURES
        if found.total[measure.name].expected > 0
    ]
    console.table("The whole run, 95 % range", ["", "low", "expected", "high"], rows)


def _describe_share(stage: StageForecast) -> str:
    if not stage.pilot_in:
        return "–"
    share = stage.pilot_out / stage.pilot_in
    low, high = wilson_interval(share, stage.pilot_in)
    return f"{share:.1%} ({low:.1%} to {high:.1%})"


def _describe_tokens(stage: StageForecast) -> str:
    found = stage.tokens_per_request
    return "–" if found is None else show_range(found)


def show_range(found: Range) -> str:
    """``1,200 (900 to 1,600)``; one number where all three are the same."""
    low, expected, high = _three(found, short_number)
    return expected if low == high == expected else f"{expected} ({low} to {high})"


def _three(found: Range, show: Callable[[float], str]) -> list[str]:
    return [show(value) for value in (found.low, found.expected, found.high)]


def show_bytes(size: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.3g} {unit}"
        size /= 1024
    return f"{size:,.3g} TiB"


def short_number(value: float) -> str:
    """Three digits and a unit: ``12.3 M``."""
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if name == 'k' else size):,.3g} {name}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.3g}"


def show_count(value: float) -> str:
    """A number of things, which has no fractions."""
    return short_number(round(value))


def show_time(seconds: float) -> str:
    """Seconds, minutes, hours or days, whichever is short."""
    for size, name in ((86_400 * 2, "days"), (3600 * 2, "h"), (120, "min")):
        if seconds >= size:
            unit = {"days": 86_400, "h": 3600, "min": 60}[name]
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:,.3g} s"


def describe_allowance(found: Allowance) -> str:
    """What a limit means for the run, in one sentence."""
    limit = f"synthesis.budget.{found.limit} = {found.value:,g} ({found.spent:,.3g} spent)"
    if found.stops_in is None:
        return f"Within {limit}: the run is expected to fit."
    return (
        f"Beyond {limit}: the run would stop in stage {found.stops_in}. What is left carries "
        f"{found.low:,} to {found.high:,} combinations through all stages "
        f"(--set synthesis.combinations.num_combinations={found.low})."
    )


@dataclass(frozen=True, slots=True)
class _Measure:
    """One figure of a forecast and how it is written."""

    name: str
    title: str
    show: Callable[[float], str]


_MEASURES = (
    _Measure("requests", "requests", show_count),
    _Measure("prompt_tokens", "tokens read", short_number),
    _Measure("completion_tokens", "tokens written", short_number),
    _Measure("seconds", "time", show_time),
    _Measure("usd", "USD", short_number),
    _Measure("gpu_hours", "GPU-hours", short_number),
    _Measure("bytes", "disk", show_bytes),
)
