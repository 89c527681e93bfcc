"""The plots of the inspection page, each from flat arrays to one ``<svg>`` element."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.plot_style import colour_groups, new_figure, render_svg, use_whole_numbers

_BINS = 28
_STEPS = 40
"""Pieces of the training order, each drawn as one bar."""


def plot_lengths(
    tokens: npt.NDArray[np.int32], source: npt.NDArray[np.uint16], names: Sequence[str], limit: int
) -> str:
    """Rows by length on a logarithmic axis, stacked by source, with the phase's limit."""
    from matplotlib import ticker

    low, high = max(1, int(tokens.min())), max(int(tokens.max()), limit)
    edges = np.geomspace(low * 0.98, high * 1.02, _BINS + 1)
    colours = colour_groups(names)
    with new_figure(height=3.3) as figure:
        axes = figure.subplots()
        axes.hist(
            [tokens[source == code] for code in range(len(names))],
            bins=list(edges),
            stacked=True,
            color=[colours[name] for name in names],
            label=list(names),
        )
        axes.set_xscale("log")
        axes.axvline(limit, color="black", linestyle="--", linewidth=1)
        # 1, 3, 10 … where lengths span decades, otherwise 1, 2, 5, 10 …
        steps = (1, 3) if high > 100 * low else (1, 2, 5)
        ticks = [base * 10**p for p in range(8) for base in steps if low <= base * 10**p <= high]
        axes.set_xticks(ticks or [low])
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        use_whole_numbers(axes.yaxis, most_ticks=5)
        axes.grid(axis="y")
        axes.set_xlabel("tokens of a row (log scale)")
        axes.set_ylabel("rows")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)
        return render_svg(figure, "lengths")


def plot_order(
    tokens: npt.NDArray[np.int32], source: npt.NDArray[np.uint16], names: Sequence[str]
) -> str:
    """Along the training order: each source's share of the rows, and the mean length."""
    pieces = [p for p in np.array_split(np.arange(len(tokens)), _STEPS) if len(p)]
    places = (np.arange(len(pieces)) + 0.5) / len(pieces) * 100
    colours = colour_groups(names)
    with new_figure(height=3.9) as figure:
        mix, length = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
        below = np.zeros(len(pieces))
        for code, name in enumerate(names):
            share = np.array([(source[piece] == code).mean() for piece in pieces]) * 100
            width = 100 / len(pieces)
            mix.bar(places, share, bottom=below, width=width, color=colours[name], label=name)
            below += share
        mix.set_ylim(0, 100)
        mix.set_xlim(0, 100)
        mix.set_ylabel("rows, %")
        mix.legend(loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)
        length.plot(places, [tokens[piece].mean() for piece in pieces], color="black", linewidth=2)
        length.set_ylim(bottom=0)
        length.grid(axis="y")
        use_whole_numbers(length.yaxis, most_ticks=4)
        length.set_ylabel("mean tokens")
        length.set_xlabel("place in the training order, %")
        return render_svg(figure, "order")
