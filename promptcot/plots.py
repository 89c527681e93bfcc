"""The plots of the synthesis page, each drawn from plain numbers to one ``<svg>`` element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.plot_style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    new_figure,
    render_svg,
    use_whole_numbers,
)

_MOST_BINS = 24
_MOST_UPRIGHT_NAMES = 6


def plot_usage(histograms: Mapping[str, Sequence[tuple[str, int]]]) -> str:
    """How many concepts were drawn how often, a panel for each domain."""
    with new_figure(height=2.1 * len(histograms) + 0.2) as figure:
        panels = figure.subplots(len(histograms), 1, squeeze=False)[:, 0]
        for axes, (domain, bars) in zip(panels, histograms.items(), strict=True):
            places = list(range(len(bars)))
            axes.bar(places, [count for _, count in bars], width=0.85, color=PURPLE)
            turned = len(bars) > _MOST_UPRIGHT_NAMES
            axes.set_xticks(places, [name for name, _ in bars], rotation=40 if turned else 0)
            axes.set_title(domain, loc="left", fontsize=12.5)
            axes.grid(axis="y")
            use_whole_numbers(axes.yaxis, most_ticks=4)
        panels[-1].set_xlabel("combinations that a concept is in")
        figure.supylabel("concepts", fontsize=12.5)
        return render_svg(figure, "usage")


def plot_agreement(problems: Mapping[float, int]) -> str:
    """Problems with a kept trace by the share of their samples that agree."""
    with new_figure(height=2.4) as figure:
        axes = figure.subplots()
        width = min(0.9 * _smallest_step(list(problems)), 0.12)
        axes.bar(list(problems), list(problems.values()), width=width, color=BLUE)
        axes.set_xlim(-0.05, 1.08)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
        axes.set_xticklabels(["0%", "25%", "50%", "75%", "100%"])
        axes.grid(axis="y")
        use_whole_numbers(axes.yaxis, most_ticks=4)
        axes.set_xlabel("samples that agree (hard ← → easy)")
        axes.set_ylabel("problems")
        return render_svg(figure, "agreement")


def _smallest_step(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return min((b - a for a, b in pairwise(ordered)), default=0.12)


def plot_lengths(lengths: npt.NDArray[np.int64], limit: int) -> str:
    """Tokens of the well-formed solutions, and the limit at which others were cut off."""
    with new_figure(height=2.4) as figure:
        axes = figure.subplots()
        axes.hist(
            lengths, bins=list(round_edges(lengths)), color=GREEN, edgecolor="white", linewidth=1
        )
        if lengths.max() > limit / 3:
            axes.axvline(limit, color=GREY, linestyle="--", linewidth=1.2)
        axes.grid(axis="y")
        axes.margins(x=0.02)
        use_whole_numbers(axes.yaxis, most_ticks=4)
        use_whole_numbers(axes.xaxis, most_ticks=5)
        axes.set_xlabel("tokens of a solution, thinking and answer")
        axes.set_ylabel("solutions")
        return render_svg(figure, "lengths")


def plot_objective(rounds: Sequence[Mapping[str, Any]]) -> str:
    """The refinement's objective by round: the chosen rationales over all that were drawn.

    Args:
        rounds: Of each round the means ``chosen`` and ``drawn``, and their intervals if known.
    """
    with new_figure(height=2.4) as figure:
        axes = figure.subplots()
        numbers = list(range(1, len(rounds) + 1))
        for key, label, colour, style in (
            ("chosen", "chosen rationales", BLUE, "-"),
            ("drawn", "mean of all drawn", ORANGE, "--"),
        ):
            values = [found[key] for found in rounds]
            axes.plot(numbers, values, style, marker="o", color=colour, label=label)
            ends = [
                found.get(f"{key}_interval", (v, v))
                for found, v in zip(rounds, values, strict=True)
            ]
            lows, highs = zip(*ends, strict=True)
            axes.fill_between(numbers, lows, highs, color=colour, alpha=0.15, linewidth=0)
            if len(rounds) == 1:
                axes.vlines(numbers, lows, highs, color=colour, linewidth=1.2)
        axes.set_xticks(numbers)
        axes.grid(axis="y")
        axes.set_xlabel("round")
        axes.set_ylabel("objective")
        axes.legend(loc="best")
        return render_svg(figure, "objective")


def round_edges(
    values: npt.NDArray[np.int64], most_bins: int = _MOST_BINS
) -> npt.NDArray[np.float64]:
    """Bin edges at round numbers that cover all values in at most ``most_bins`` bins."""
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 1)
    width = next(
        base * 10**power
        for power in range(15)
        for base in (1, 2, 5)
        if high // (base * 10**power) - low // (base * 10**power) < most_bins
    )
    return np.arange(low // width, high // width + 2).astype(np.float64) * float(width)
