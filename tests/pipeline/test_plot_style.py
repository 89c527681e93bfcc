"""Plots are read on a page that draws no formulas."""

from __future__ import annotations

from pipeline.plot_style import new_figure, render_svg, use_plain_log


def test_logarithmic_axes_show_plain_numbers() -> None:
    with new_figure(height=2.0) as figure:
        axes = figure.subplots()
        axes.plot([1, 2, 3], [0.01, 1.0, 100.0])
        use_plain_log(axes)
        svg = render_svg(figure, "log")
    assert "mathdefault" not in svg
    assert ">0.01<" in svg
    assert ">100<" in svg
