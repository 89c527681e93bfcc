"""What ``python -m evaluation compare`` prints."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.compare import BenchmarkComparison, Comparison
from pipeline import console
from pipeline.manifest import Version

_COLUMNS = ["benchmark", "items", "A", "B", "B - A", "interval", "p", "p (Holm)", "verdict"]


def show_comparison(comparison: Comparison, versions: Sequence[Version]) -> None:
    """A table over benchmarks, in points, and the notes under it."""
    for name, version in zip("AB", versions, strict=True):
        stage = version.manifest.extra.get("stage", "evaluation")
        console.say(f"{name}: {stage} {version.name}")
    rows = [_format_row(entry) for entry in comparison.benchmarks]
    console.table("B - A in points, paired by problem", _COLUMNS, rows)
    if not all(entry.difference.is_exact for entry in comparison.benchmarks):
        console.say("* over drawn sign patterns; the others count all of them")
    for entry in comparison.benchmarks:
        if entry.difference.note:
            console.say(f"{entry.benchmark}: {entry.difference.note}")
    for note in comparison.notes:
        console.warn(note)


def _format_row(entry: BenchmarkComparison) -> list[str]:
    low, high = entry.difference.interval
    return [
        entry.benchmark,
        str(entry.difference.num_items),
        f"{entry.first:.1%}",
        f"{entry.second:.1%}",
        f"{100 * entry.difference.mean:+.1f}",
        f"{100 * low:+.1f} to {100 * high:+.1f}",
        format_p(entry.difference.p_value) + ("" if entry.difference.is_exact else " *"),
        format_p(entry.p_holm),
        entry.verdict,
    ]


def format_p(value: float) -> str:
    """A p-value to two significant digits; tiny ones as a bound."""
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"
