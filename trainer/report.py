"""The page of one training run: a static HTML file in the checkpoint's folder, no external request.

Curves come from the run's logs. Speed and memory are the machine's; everything else on the page is
equal for equal runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.pages import Plot, page_environment
from pipeline.store import write_text
from trainer.data import Counts
from trainer.report_plots import Series, list_series, plot_row_fill, plot_series
from trainer.run_log import read_lines
from trainer.speed import format_duration

PAGE = "report.html"


@dataclass(frozen=True, slots=True)
class Tile:
    """One headline number."""

    label: str
    value: str
    details: list[str]


def write_report(folder: Path, summary: dict[str, Any], counts: Counts) -> Path:
    """Write ``report.html`` beside the logs it is drawn from.

    Args:
        folder: The model folder with ``train_log.jsonl``, ``speed_log.jsonl``, ``events.jsonl``.
        summary: What ``training.json`` says.
        counts: Of the run's rows.
    """
    lines = read_lines(folder / "train_log.jsonl")
    laps = read_lines(folder / "speed_log.jsonl")
    events = read_lines(folder / "events.jsonl")
    page = page_environment("trainer").get_template("training_report.html.j2")
    text = page.render(
        summary=summary,
        tiles=describe_tiles(summary, laps),
        plots=draw(lines, laps, events, counts),
        events=events,
        rejected=sorted(counts.rejected.items()),
        settings=_flatten(summary["settings"]),
    )
    write_text(folder / PAGE, text)
    return folder / PAGE


def describe_tiles(summary: dict[str, Any], laps: list[dict[str, Any]]) -> list[Tile]:
    """The headline numbers."""
    data, documents = summary["data"], summary["data"]["documents_per_step"]
    tiles = [
        Tile(
            "Loss",
            f"{summary['first_loss']:.3g} → {summary['last_loss']:.3g}",
            [f"in {summary['num_steps']:,} steps"],
        ),
        Tile("Tokens seen", f"{summary['tokens_seen']:,}", [f"{summary['num_rows']:,} rows"]),
        Tile(
            "Documents a step",
            f"{documents['mean']:g}",
            [f"{documents['min']} to {documents['max']}, in {data['rows_per_step']} rows"],
        ),
        Tile("Real tokens", f"{data['real_token_share']:.1%}", ["the rest is padding"]),
        Tile("Parameters", f"{summary['num_parameters'] / 1e6:,.1f} M", [summary["backend"]]),
    ]
    if laps:
        steady = sorted(lap["tokens_per_second"] for lap in laps)[len(laps) // 2]
        seconds = sum(lap["seconds"] for lap in laps)
        utilised = [lap["mfu"] for lap in laps if lap["mfu"] is not None]
        details = [format_duration(seconds)]
        if utilised:
            details.append(f"MFU {sorted(utilised)[len(utilised) // 2]:.1%}")
        tiles.append(Tile("Tokens a second", f"{steady:,.0f}", details))
        tiles.append(Tile("Peak memory", f"{laps[-1]['memory_gib']:.1f} GiB", []))
    return tiles


def draw(
    lines: list[dict[str, Any]],
    laps: list[dict[str, Any]],
    events: list[dict[str, Any]],
    counts: Counts,
) -> list[Plot]:
    """Every plot that the run has numbers for."""
    marks = sorted({event["step"] for event in events})
    plots = [
        Plot(svg=plot_series(series), label=_say(series, caption), caption=caption)
        for series, caption in list_series(lines, laps, marks)
    ]
    fill = counts.row_fill
    if sum(fill.counts):
        caption = "Packed rows by how full they are, before padding"
        plots.append(
            Plot(
                svg=plot_row_fill(fill.edges, fill.counts),
                label=f"{caption}: {sum(fill.counts):,} rows",
                caption=caption,
            )
        )
    return plots


def _say(series: Series, caption: str) -> str:
    first, last = series.values[0], series.values[-1]
    return (
        f"{caption}: from {first:.4g} at step {series.steps[0]:,} to {last:.4g} at step "
        f"{series.steps[-1]:,}, at least {min(series.values):.4g}, at most {max(series.values):.4g}"
    )


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Settings as dotted names and short values."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flatten(value, f"{prefix}{name}.")
        else:
            rows.append(
                (f"{prefix}{name}", f"{value:g}" if isinstance(value, float) else str(value))
            )
    return rows
