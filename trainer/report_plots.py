"""The plots of a training run's report, each drawn from plain numbers to one ``<svg>`` element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.plot_style import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    new_figure,
    render_svg,
    use_plain_log,
    use_whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 600
"""Points of one drawn curve; longer logs are thinned evenly, first and last kept."""


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity over optimiser steps."""

    name: str
    """Part of the ids in the picture."""
    label: str
    """Of the vertical axis."""
    steps: Sequence[int]
    values: Sequence[float]
    colour: str = BLUE
    is_noisy: bool = False
    """Draw a running mean on top."""
    from_zero: bool = True
    is_log: bool = False
    marks: Sequence[int] = ()
    """Steps to point at."""


def plot_series(series: Series) -> str:
    """A quantity over steps: every point faint and the mean on top, or one line."""
    steps = np.asarray(series.steps)
    values = np.asarray(series.values, dtype=np.float64)
    keep = thin(len(steps))
    with new_figure(height=2.7) as figure:
        axes = figure.subplots()
        marker = "o" if len(steps) == 1 else None
        if series.is_noisy and len(steps) > 2:
            mean = running_mean(values, max(1, len(values) // 20))
            axes.plot(steps[keep], values[keep], color=series.colour, alpha=0.35, linewidth=1)
            axes.plot(steps[keep], mean[keep], color=series.colour, linewidth=2)
        else:
            axes.plot(steps[keep], values[keep], color=series.colour, linewidth=1.5, marker=marker)
        _mark(axes, series)
        if series.is_log and bool((values > 0).all()):
            use_plain_log(axes)
        elif series.from_zero:
            axes.set_ylim(bottom=0)
        use_whole_numbers(axes.xaxis, most_ticks=5)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(series.label)
        axes.grid()
        axes.margins(x=0.02)
        return render_svg(figure, series.name)


def _spans_decades(values: Sequence[float]) -> bool:
    """Whether only a logarithmic axis shows how a curve ends."""
    return bool(values) and 0 < min(values) < max(values) / 50


def plot_row_fill(edges: Sequence[float], counts: Sequence[int]) -> str:
    """How full the packed rows are."""
    with new_figure(height=2.7) as figure:
        axes = figure.subplots()
        left = np.asarray(edges[:-1]) * 100
        width = np.diff(np.asarray(edges)) * 100
        axes.bar(left, counts, width=width, align="edge", color=GREEN, edgecolor="white")
        axes.set_xlim(0, 100)
        use_whole_numbers(axes.yaxis, most_ticks=4)
        axes.set_xlabel("tokens of a row, per cent of the limit")
        axes.set_ylabel("rows")
        axes.grid(axis="y")
        return render_svg(figure, "fill")


def list_series(
    lines: Sequence[dict[str, Any]], laps: Sequence[dict[str, Any]], marks: Sequence[int]
) -> list[tuple[Series, str]]:
    """What is drawn of a run, each with the sentence under it."""
    steps, timed = [line["step"] for line in lines], [lap["step"] for lap in laps]

    def told(key: str) -> list[float]:
        return [line[key] for line in lines]

    def ran(key: str) -> list[float]:
        return [lap[key] for lap in laps]

    drawn = [
        (
            Series("loss", "loss (nats per token)", steps, told("loss"), is_noisy=True,
                   from_zero=False, is_log=_spans_decades(told("loss")), marks=marks),
            "Loss on completion tokens: every step faint, the running mean on top",
        ),
        (
            Series("accuracy", "share of tokens", steps, told("accuracy"), PURPLE, is_noisy=True),
            "Completion tokens that the model ranks first",
        ),
        (
            Series("rate", "learning rate", steps, told("learning_rate"), ORANGE),
            "Learning rate that each step's update was made with; a warm-up starts at 0",
        ),
        (
            Series("norm", "gradient norm", steps, told("grad_norm"), VERMILLION, is_noisy=True,
                   is_log=True, marks=marks),
            "Norm of the gradient before clipping (logarithmic)",
        ),
        (
            Series("documents", "documents", steps, told("num_documents"), GREEN),
            "Documents of each optimiser step",
        ),
        (
            Series("speed", "tokens a second", timed, ran("tokens_per_second"), BLUE,
                   is_noisy=True),
            "Real tokens a second over all devices; the first steps compile and warm up",
        ),
        (
            Series("memory", "GiB", timed, ran("memory_gib"), SKY),
            "Peak memory so far",
        ),
    ]  # fmt: skip
    return [(series, caption) for series, caption in drawn if series.steps]


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean over the last ``window`` values; over as many as there are at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts), dtype=np.float64)


def thin(size: int, most: int = MAX_POINTS) -> NDArray[np.int64]:
    """Positions of at most ``most`` points, even, the first and last among them."""
    if size <= most:
        return np.arange(size)
    return np.unique(np.round(np.linspace(0, size - 1, most)).astype(np.int64))


def _mark(axes: Axes, series: Series) -> None:
    places = {step: value for step, value in zip(series.steps, series.values, strict=True)}
    marked = [step for step in series.marks if step in places]
    if marked:
        axes.plot(
            marked,
            [places[step] for step in marked],
            "v",
            color=VERMILLION,
            markersize=8,
            label="jump",
        )
        axes.legend(loc="upper right", borderpad=0)
