"""The plots of a run's report, each drawn from plain numbers to one ``<svg>`` element."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.plot_style import (
    BLUE,
    GREEN,
    GREY,
    GRID,
    INK,
    ORANGE,
    PHASE_COLOURS,
    PURPLE,
    SKY,
    VERMILLION,
    colour_groups,
    new_figure,
    render_svg,
    use_log_steps,
    use_whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 400
"""Points of one drawn curve; longer logs are thinned evenly in log(step)."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One labelled amount of a bar plot."""

    label: str
    amount: int
    group: str


@dataclass(frozen=True, slots=True)
class Curve:
    """One phase's loss over its steps."""

    phase: str
    steps: Sequence[int]
    losses: Sequence[float]


@dataclass(frozen=True, slots=True)
class Dot:
    """One score with its interval, as shares between 0 and 1."""

    benchmark: str
    checkpoint: str
    value: float
    low: float
    high: float


def plot_rejections(bars: Sequence[Bar]) -> str:
    """Horizontal bars under their group's name, each labelled above so that long reasons fit."""
    largest = max(bar.amount for bar in bars)
    groups = list(dict.fromkeys(bar.group for bar in bars))
    colours = colour_groups(groups)
    rows = len(bars) + 0.7 * len(groups)
    with new_figure(height=0.5 * rows + 0.1, fitted=False) as figure:
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        axes.set_xlim(0, largest)
        axes.set_ylim(rows, 0)
        top = 0.0
        for group in groups:
            axes.text(0, top + 0.5, group, ha="left", va="center", fontweight="bold")
            top += 0.7
            for bar in (bar for bar in bars if bar.group == group):
                axes.text(0, top + 0.3, bar.label, ha="left", va="center")
                axes.text(largest, top + 0.3, f"{bar.amount:,}", ha="right", va="center")
                axes.barh(top + 0.7, largest, height=0.26, color=GRID, alpha=0.6)
                axes.barh(top + 0.7, bar.amount, height=0.26, color=colours[group])
                top += 1.0
        return render_svg(figure, "rejections")


def plot_lengths(lengths: Mapping[str, NDArray[np.int64]], limits: Mapping[str, int]) -> str:
    """One histogram per phase on a shared axis of tokens, with each phase's length limit."""
    edges = length_edges(np.concatenate(list(lengths.values())))
    with new_figure(height=1.6 * len(lengths) + 0.4) as figure:
        panels = figure.subplots(len(lengths), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (phase, values) in zip(panels, lengths.items(), strict=True):
            axes.hist(
                values, bins=list(edges), color=PHASE_COLOURS[phase], edgecolor="white", linewidth=1
            )
            axes.set_title(_length_title(phase, values, limits), loc="left", fontsize=12.5)
            axes.grid(axis="y")
            axes.margins(x=0.01)
            use_whole_numbers(axes.yaxis, most_ticks=4)
        use_whole_numbers(panels[-1].xaxis, most_ticks=5)
        panels[-1].set_xlabel("tokens of a row (prompt + completion)")
        figure.supylabel("rows", fontsize=12.5)
        return render_svg(figure, "lengths")


def length_edges(values: NDArray[np.int64], most_bins: int = 24) -> NDArray[np.float64]:
    """Bin edges at round numbers of tokens that cover all values in at most ``most_bins``."""
    top = int(values.max()) if values.size else 1
    width = next(
        base * 10**power
        for power in range(12)
        for base in (1, 2, 5)
        if top < base * 10**power * most_bins
    )
    first = (int(values.min()) if values.size else 0) // width
    return np.arange(first, top // width + 2).astype(np.float64) * float(width)


def plot_mix(mixes: Mapping[str, Mapping[str, int]], name: str) -> str:
    """One stacked bar per phase, in shares of its rows; small parts are told by the legend."""
    from matplotlib.patches import Patch

    categories = list(dict.fromkeys(part for mix in mixes.values() for part in mix))
    colours = colour_groups(categories)
    bars_in, legend_in = 0.66 * len(mixes), 0.27 * len(categories) + 0.15
    with new_figure(bars_in + legend_in, fitted=False) as figure:
        share = bars_in / (bars_in + legend_in)
        axes = figure.add_axes((0.0, 1 - share, 1.0, share))
        axes.set_axis_off()
        axes.set_xlim(0, 1)
        axes.set_ylim(len(mixes), 0)
        for row, (phase, mix) in enumerate(mixes.items()):
            total = sum(mix.values())
            axes.text(0, row + 0.24, f"phase {phase}: {total:,} rows", ha="left", va="center")
            _stack(axes, row + 0.66, [(mix.get(c, 0) / total, colours[c]) for c in categories])
        handles = [Patch(color=colours[c], label=c) for c in categories]
        figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.0, 0.0), borderpad=0)
        return render_svg(figure, name)


def plot_losses(curves: Sequence[Curve]) -> str:
    """Loss over optimiser steps (logarithmic): every step faint, the running mean on top."""
    with new_figure(height=3.4) as figure:
        axes = figure.subplots()
        for curve in curves:
            colour = PHASE_COLOURS[curve.phase]
            style = "-" if curve.phase == "1" else "--"
            steps, losses = np.asarray(curve.steps), np.asarray(curve.losses)
            mean = running_mean(losses, window=max(1, len(losses) // 20))
            keep = thin_by_log(steps)
            axes.plot(steps[keep], losses[keep], color=colour, alpha=0.35, linewidth=1)
            marker = "o" if len(steps) == 1 else None
            axes.plot(
                steps[keep],
                mean[keep],
                style,
                color=colour,
                linewidth=2,
                marker=marker,
                label=f"phase {curve.phase}: {losses[0]:.2f} → {losses[-1]:.2f}",
            )
        use_log_steps(axes, max(curve.steps[-1] for curve in curves))
        axes.set_xlabel("optimiser step of the phase (log scale)")
        axes.set_ylabel("loss (nats per token)")
        axes.grid()
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), handlelength=2.6, borderpad=0)
        return render_svg(figure, "loss")


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean over the last ``window`` values; over as many as there are at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts), dtype=np.float64)


def thin_by_log(steps: NDArray[np.int64], most: int = MAX_POINTS) -> NDArray[np.int64]:
    """Positions of at most ``most`` points, even in log(step), the first and last among them."""
    if len(steps) <= most:
        return np.arange(len(steps))
    wanted = np.geomspace(1, len(steps), most)
    return np.unique(np.round(wanted).astype(np.int64) - 1)


def plot_scores(dots: Sequence[Dot]) -> str:
    """avg@k as a dot in its interval, a row per benchmark and checkpoint, in per cent."""
    benchmarks = list(dict.fromkeys(dot.benchmark for dot in dots))
    checkpoints = list(dict.fromkeys(dot.checkpoint for dot in dots))
    rows = len(benchmarks) + len(dots)
    with new_figure(height=0.42 * rows + 0.75) as figure:
        axes = figure.subplots()
        row, ticks = 0, []
        for benchmark in benchmarks:
            axes.text(0, row, benchmark, ha="left", va="center", fontweight="bold")
            row += 1
            for dot in (dot for dot in dots if dot.benchmark == benchmark):
                _draw_dot(axes, row, dot, checkpoints.index(dot.checkpoint))
                ticks.append((row, dot.checkpoint))
                row += 1
        axes.set_yticks([place for place, _ in ticks], [name for _, name in ticks])
        axes.tick_params(axis="y", length=0, pad=8)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_xlim(0, _score_limit(dots))
        axes.set_xlabel("avg@k, per cent of answers correct")
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        return render_svg(figure, "scores")


def _draw_dot(axes: Axes, row: int, dot: Dot, checkpoint: int) -> None:
    colour = (BLUE, VERMILLION, GREEN, PURPLE)[checkpoint % 4]
    marker = "osD^"[checkpoint % 4]
    low, value, high = (100 * share for share in (dot.low, dot.value, dot.high))
    axes.plot([low, high], [row, row], color=colour, linewidth=2.5, solid_capstyle="butt")
    for end in (low, high):
        axes.plot([end, end], [row - 0.16, row + 0.16], color=colour, linewidth=1.5)
    axes.plot([value], [row], marker, color=colour, markersize=8, clip_on=False)


def _score_limit(dots: Sequence[Dot]) -> float:
    """Right end of the axis in per cent: room for the widest interval, at least 10."""
    widest = 100 * max(max(dot.high, dot.value) for dot in dots)
    return min(100.0, max(10.0, 10.0 * math.ceil((widest + 1) / 10)))


def _stack(axes: Axes, row: float, parts: Sequence[tuple[float, str]]) -> None:
    """Draw one stacked bar and write the share into each part that is wide enough."""
    left = 0.0
    for share, colour in parts:
        axes.barh(row, share, left=left, height=0.42, color=colour, edgecolor="white", linewidth=1)
        if share >= 0.12:
            ink = INK if colour in (ORANGE, SKY, GREY) else "white"
            axes.text(left + share / 2, row, f"{share:.0%}", ha="center", va="center", color=ink)
        left += share


def _length_title(phase: str, values: NDArray[np.int64], limits: Mapping[str, int]) -> str:
    limit = f", limit {limits[phase]:,}" if phase in limits else ""
    return f"phase {phase}: median {int(np.median(values)):,}{limit}"
