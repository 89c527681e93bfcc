"""The comparison as a picture: tokens a second, sequences, memory of one, and cost of a step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.plot_style import BLUE, ORANGE, VERMILLION, WIDTH_IN, new_figure
from pipeline.store import atomic_path, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES: dict[str, dict[str, Any]] = {
    "constant": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "reserved": {"color": VERMILLION, "marker": "s", "linestyle": "-"},
    "paged": {"color": ORANGE, "marker": "^", "linestyle": "--"},
}
_PANELS = (
    ("tokens_per_s", "tokens/s, all sequences"),
    ("batch", "sequences at once"),
    ("sequence_mib", "MiB of a sequence"),
    ("step_ms", "ms a step (one token each)"),
)


def draw(result: dict[str, Any], folder: Path) -> None:
    """Write ``throughput.svg`` and ``throughput.png``: a column a budget, a row a quantity."""
    from pipeline.plot_style import render_svg

    budgets = result["settings"]["budgets_gb"]
    with new_figure(height=2.5 * len(_PANELS) + 0.7) as figure:
        figure.set_figwidth(WIDTH_IN * len(budgets))
        _fill(figure, result, budgets)
        svg = render_svg(figure, "throughput")
        write_text(folder / "throughput.svg", _standalone(svg))
        with atomic_path(folder / "throughput.png") as path:
            figure.savefig(path, format="png", dpi=110, facecolor="white")


def _standalone(svg: str) -> str:
    """An element of a page as a file of its own."""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return svg.replace("<svg ", f"<svg {names} ", 1) + "\n"


def _fill(figure: Figure, result: dict[str, Any], budgets: list[float]) -> None:
    grid = figure.subplots(len(_PANELS), len(budgets), squeeze=False, sharex=True, sharey="row")
    for column, budget in enumerate(budgets):
        rows = [row for row in result["rows"] if row["budget_gb"] == budget]
        for line, (name, label) in enumerate(_PANELS):
            axes = grid[line, column]
            for key, style in _list_curves(rows):
                _draw_curve(axes, rows, name, (key, style))
            _finish_axes(axes, result["settings"]["lengths"])
            if column == 0:
                axes.set_ylabel(label)
        grid[0, column].set_title(_title(result, budget), loc="left", fontsize=12.5)
        grid[-1, column].set_xlabel("generated tokens (log scale)")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=min(2, len(budgets)))


def _list_curves(rows: list[dict[str, Any]]) -> list[tuple[tuple[str, str], dict[str, Any]]]:
    """(mode, state dtype) and the look of each curve; further dtypes are dotted."""
    keys = list(dict.fromkeys((row["mode"], row["state_dtype"]) for row in rows))
    first = {mode: next(dtype for m, dtype in keys if m == mode) for mode, _ in keys}
    curves = []
    for mode, dtype in keys:
        style = dict(_STYLES[mode])
        if dtype != first[mode]:
            style |= {"linestyle": ":", "markerfacecolor": "white"}
        curves.append(((mode, dtype), style))
    return curves


def _draw_curve(
    axes: Axes,
    rows: list[dict[str, Any]],
    name: str,
    curve: tuple[tuple[str, str], dict[str, Any]],
) -> None:
    (mode, dtype), style = curve
    chosen = [row for row in rows if (row["mode"], row["state_dtype"]) == (mode, dtype)]
    # Nothing is drawn where not one sequence fits: zero has no place on a logarithmic axis.
    points = [(row["length"], row[name]) for row in chosen if row[name]]
    label = {
        "constant": f"Mamba-2, {dtype} state",
        "reserved": "Transformer, whole length reserved",
        "paged": "Transformer, ideal paging",
    }[mode]
    axes.plot(
        [length for length, _ in points],
        [value for _, value in points],
        linewidth=1.8,
        markersize=5,
        label=label,
        **style,
    )


def _finish_axes(axes: Axes, lengths: list[int]) -> None:
    from matplotlib import ticker

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(lengths)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _short(value)))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_locator(ticker.LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.grid()


def _short(tokens: float) -> str:
    return f"{tokens / 1024:g}k" if tokens >= 1024 else f"{tokens:g}"


def _title(result: dict[str, Any], budget: float) -> str:
    longest = [one for one in result["comparisons"] if one["budget_gb"] == budget][-1]
    ratio = longest["ratio"]
    where = _short(longest["length"])
    told = f"no Transformer fits at {where}" if ratio is None else f"{ratio:.2f}x at {where}"
    quoted = result["paper"].get(f"{budget:g}")
    return f"{budget:g} GB: {told}" + (f"\n(paper, quoted: {quoted:g}x)" if quoted else "")
