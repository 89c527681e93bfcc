"""The look of the reports' plots, and their way from a figure to inline SVG with stable bytes.

Figures are drawn about as wide as a phone, so that their text stays readable there; a page shows
several side by side where it is wider. Colours are Okabe and Ito's, safe for colour-blind readers,
and never the only carrier of a difference. matplotlib is imported only when something is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1b1f24", "#57606a", "#d8dee4"
BLUE, VERMILLION, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#8c959f"
PURPLE, SKY = "#AA4499", "#56B4E9"
PHASE_COLOURS = {"1": BLUE, "2": VERMILLION}
CATEGORY_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION)
WIDTH_IN = 4.6
"""331 SVG units: about one CSS pixel each on a phone."""

_STYLE: Any = {
    "svg.hashsalt": "promptcot-mamba",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    # Labels are names out of data: a dollar sign is no formula.
    "text.parse_math": False,
    "font.size": 12.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.labelsize": 12.5,
    "xtick.labelsize": 12.5,
    "ytick.labelsize": 12.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 12.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def use_whole_numbers(axis: XAxis | YAxis, most_ticks: int) -> None:
    """Round places and thousands separators on an axis that counts something."""
    from matplotlib import ticker

    axis.set_major_locator(ticker.MaxNLocator(most_ticks, integer=True))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))


def use_log_steps(axes: Axes, last: int) -> None:
    """A logarithmic axis with plain numbers (1, 3, 10, 30 …) instead of powers."""
    from matplotlib import ticker

    axes.set_xscale("log")
    places = [base * 10**power for power in range(9) for base in (1, 3)]
    axes.set_xticks([place for place in places if place <= max(last, 3)])
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))


def use_plain_log(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers (0.01, 0.1, 1): formulas are not drawn here."""
    from matplotlib import ticker

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def colour_groups(names: Sequence[str]) -> dict[str, str]:
    """A colour for each distinct name, in order of appearance; grey once they run out."""
    distinct = list(dict.fromkeys(names))
    return {
        name: CATEGORY_COLOURS[position] if position < len(CATEGORY_COLOURS) else GREY
        for position, name in enumerate(distinct)
    }


@contextmanager
def new_figure(height: float, *, fitted: bool = True) -> Iterator[Figure]:
    """A figure of the common width and ``height`` inches, drawn and rendered inside the block.

    ``fitted`` makes room for axis labels; figures that place their own axes do without.
    """
    import matplotlib
    from matplotlib.figure import Figure as NewFigure

    with matplotlib.rc_context(_STYLE):
        layout: Literal["constrained"] | None = "constrained" if fitted else None
        yield NewFigure(figsize=(WIDTH_IN, height), layout=layout)


def render_svg(figure: Figure, name: str) -> str:
    """The figure's ``<svg>`` element alone: scalable, dateless, its ids unique on the page."""
    buffer = StringIO()
    # All four set: matplotlib fills in a date, its own name and version where one is missing.
    dateless = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", metadata=dateless)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg [^>]*viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1">', text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text).replace("url(#", f"url(#{name}-")
    return text.replace('xlink:href="#', f'href="#{name}-').strip()
