"""Plots of scores: paper against ours, lengths, rates and scores by label, each one ``<svg>``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pipeline.plot_style import (
    BLUE,
    GREEN,
    GREY,
    MUTED,
    PURPLE,
    VERMILLION,
    new_figure,
    render_svg,
    use_whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE)
_MARKERS = "osD^"
_ROW_IN = 0.42
"""Height of a row in inches: text of the common size and some air."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One value of a row, as a share between 0 and 1."""

    group: str
    label: str
    value: float
    interval: tuple[float, float] | None = None
    is_quoted: bool = False
    """Drawn hollow and grey: not measured here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of one benchmark's answers."""

    group: str
    label: str
    p10: float
    p50: float
    p90: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    group: str
    label: str
    value: float
    other: float


Entry = TypeVar("Entry", Mark, Lengths, _Pair)


def plot_marks(marks: Sequence[Mark], name: str, title: str) -> str:
    """A row per mark under its group's name, in per cent."""
    order = list(dict.fromkeys(mark.label for mark in marks if not mark.is_quoted))
    widest = max(mark.interval[1] if mark.interval else mark.value for mark in marks)
    limit = min(100.0, max(10.0, 10.0 * math.ceil((100 * widest + 1) / 10)))

    def draw(axes: Axes, row: int, mark: Mark) -> None:
        if mark.is_quoted:
            axes.plot(
                [100 * mark.value],
                [row],
                "D",
                markersize=8,
                color=GREY,
                markerfacecolor="none",
                markeredgewidth=2,
                clip_on=False,
            )
            return
        place = order.index(mark.label) % len(_COLOURS)
        _draw_interval(axes, row, mark, _COLOURS[place], _MARKERS[place])

    return _draw_rows(marks, draw, name, title=title, limit=limit)


def _draw_interval(axes: Axes, row: int, mark: Mark, colour: str, marker: str) -> None:
    if mark.interval is not None:
        low, high = (100 * end for end in mark.interval)
        axes.plot([low, high], [row, row], color=colour, linewidth=2.5, solid_capstyle="butt")
        for end in (low, high):
            axes.plot([end, end], [row - 0.16, row + 0.16], color=colour, linewidth=1.5)
    axes.plot([100 * mark.value], [row], marker, color=colour, markersize=8, clip_on=False)


def plot_token_lengths(lengths: Sequence[Lengths], name: str) -> str:
    """Median, middle 80 per cent and longest answer of each benchmark and checkpoint."""
    order = list(dict.fromkeys(entry.label for entry in lengths))
    longest = max(entry.most for entry in lengths)

    def draw(axes: Axes, row: int, entry: Lengths) -> None:
        place = order.index(entry.label) % len(_COLOURS)
        colour = _COLOURS[place]
        axes.plot([entry.p90, entry.most], [row, row], color=colour, linewidth=1, alpha=0.6)
        axes.plot([entry.most], [row], "|", color=colour, markersize=9, clip_on=False)
        axes.plot([entry.p10, entry.p90], [row, row], color=colour, linewidth=5, alpha=0.45)
        axes.plot([entry.p50], [row], _MARKERS[place], color=colour, markersize=8, clip_on=False)

    title = "tokens of an answer"
    return _draw_rows(lengths, draw, name, title=title, limit=1.04 * max(1.0, longest))


def plot_rates(cut_off: Sequence[Mark], well_formed: Sequence[Mark], name: str) -> str:
    """Share of answers cut off at the limit, and of answers with a result, row by row."""

    def draw(axes: Axes, row: int, pair: _Pair) -> None:
        axes.plot([100 * pair.value], [row], "v", color=VERMILLION, markersize=9, clip_on=False)
        axes.plot([100 * pair.other], [row], "o", color=BLUE, markersize=8, clip_on=False)
        ends = sorted((100 * pair.value, 100 * pair.other))
        axes.plot(ends, [row, row], color=MUTED, linewidth=1, alpha=0.5)

    pairs = [
        _Pair(group=first.group, label=first.label, value=first.value, other=second.value)
        for first, second in zip(cut_off, well_formed, strict=True)
    ]
    title = "per cent: ▼ cut off, ● with a result"
    return _draw_rows(pairs, draw, name, title=title, limit=100.0)


def _draw_rows(
    entries: Sequence[Entry],
    draw: Callable[[Axes, int, Entry], None],
    name: str,
    *,
    title: str,
    limit: float,
) -> str:
    """Rows under bold group names on one common axis from 0."""
    groups = list(dict.fromkeys(entry.group for entry in entries))
    rows = len(groups) + len(entries)
    with new_figure(height=_ROW_IN * rows + 0.75) as figure:
        axes = figure.subplots()
        row, ticks = 0, []
        for group in groups:
            axes.text(0, row, group, ha="left", va="center", fontweight="bold")
            row += 1
            for entry in (entry for entry in entries if entry.group == group):
                draw(axes, row, entry)
                ticks.append((row, entry.label))
                row += 1
        axes.set_yticks([place for place, _ in ticks], [label for _, label in ticks])
        axes.tick_params(axis="y", length=0, pad=8)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_xlim(0, limit)
        axes.set_xlabel(title)
        use_whole_numbers(axes.xaxis, most_ticks=5)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        return render_svg(figure, name)
