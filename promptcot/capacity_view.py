"""A capacity plan as people read it: tables on the screen, a page of HTML or Markdown, a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline import console
from pipeline.errors import ConfigError
from pipeline.pages import page_environment
from pipeline.plot_style import (
    CATEGORY_COLOURS,
    new_figure,
    render_svg,
    use_plain_log,
)
from pipeline.settings.recipe import Recipe
from pipeline.store import write_text
from promptcot.capacity import FORMULAS, Constants, Plan, list_assumed
from promptcot.estimate_view import short_number

_LIMITS = (
    "Parts run one after the other. Synthesis and evaluation are taken to speed up with every GPU; "
    "training loses what its efficiency says, which nobody here measured beyond two GPUs. Queues, "
    "downloads, failures and second tries are not in it. Money is hours times the prices below."
)
_ONE_GPU = (
    "On one card of 80 GB the 7B needs precision = host_master or stochastic, whose optimiser step "
    "adds some 6 % that are not in it."
)


def show_capacity(constants: Constants, plans: Sequence[Plan]) -> None:
    """Print a table for hours and one for money, and what was not measured."""
    for title, key, last in (("Hours", "hours", "all"), ("USD", "usd", "all")):
        rows = [
            [part.name, *(_number(getattr(plan.parts[place], key)) for plan in plans)]
            for place, part in enumerate(plans[0].parts)
        ]
        rows.append([last, *(_number(getattr(plan, key)) for plan in plans)])
        console.table(title, ["part", *(_gpus(plan) for plan in plans)], rows)
    console.table(
        "What it comes from",
        ["part", "amount", "GPU-hours", "figure", "assumed in it"],
        [list(cells) for cells in _origins(constants, plans)],
    )
    console.say(f"{_LIMITS} {_ONE_GPU if plans[0].gpus == 1 else ''}".strip())


def write_page(path: Path, recipe: Recipe, constants: Constants, plans: Sequence[Plan]) -> None:
    """Write the page; a Markdown one has its plot beside it, as ``NAME.svg``.

    Raises:
        ConfigError: The path ends in neither ``.html`` nor ``.md``.
    """
    svg = plot_capacity(plans)
    if path.suffix == ".md":
        # A file of its own needs its namespace, and readers' pages may be dark.
        head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        alone = svg.replace("<svg", f'{head} style="background: #ffffff"', 1)
        write_text(path.with_suffix(".svg"), alone)
        write_text(path, render_markdown(path.stem, recipe, constants, plans))
    elif path.suffix == ".html":
        write_text(path, render_html(recipe, constants, plans, svg))
    else:
        raise ConfigError(f"--page {path}: a page ends in .html or .md", hint="name it so")


def plot_capacity(plans: Sequence[Plan]) -> str:
    """Hours of every part by the number of GPUs, on a logarithmic axis."""
    with new_figure(height=3.4) as figure:
        axes = figure.subplots()
        places = list(range(len(plans)))
        width = 0.8 / len(plans[0].parts)
        for number, part in enumerate(plans[0].parts):
            shifted = [place - 0.4 + (number + 0.5) * width for place in places]
            hours = [plan.parts[number].hours for plan in plans]
            colour = CATEGORY_COLOURS[number % len(CATEGORY_COLOURS)]
            axes.bar(shifted, hours, width=width, color=colour, label=part.name)
        use_plain_log(axes)
        axes.set_xticks(places, [_gpus(plan) for plan in plans])
        axes.grid(axis="y")
        axes.set_ylabel("hours")
        figure.legend(loc="outside upper center", ncols=2)
        return render_svg(figure, "capacity")


def render_markdown(name: str, recipe: Recipe, constants: Constants, plans: Sequence[Plan]) -> str:
    """The page as Markdown, which shows ``NAME.svg``."""
    return _render("capacity.md.j2", recipe, constants, plans, name=name)


def render_html(recipe: Recipe, constants: Constants, plans: Sequence[Plan], svg: str) -> str:
    """The page as one HTML file without requests to anywhere."""
    return _render("capacity.html.j2", recipe, constants, plans, svg=svg)


def _render(
    template: str, recipe: Recipe, constants: Constants, plans: Sequence[Plan], **more: str
) -> str:
    tables = {
        title: [
            [part.name, *(_number(getattr(plan.parts[place], key)) for plan in plans)]
            for place, part in enumerate(plans[0].parts)
        ]
        + [["**all**" if template.endswith(".md.j2") else "all"]
           + [_number(getattr(plan, key)) for plan in plans]]
        for title, key in (("Hours", "hours"), ("USD", "usd"))
    }  # fmt: skip
    return (
        page_environment("promptcot")
        .get_template(template)
        .render(
            recipe=recipe.name,
            gpus=",".join(str(plan.gpus) for plan in plans),
            columns=[_gpus(plan) for plan in plans],
            tables=tables,
            origins=_origins(constants, plans),
            formulas=FORMULAS,
            constants=[
                (name, _plain(constant.value), constant.unit, constant.kind, constant.source)
                for name, constant in constants.items()
            ],
            limits=_LIMITS,
            one_gpu=_ONE_GPU if plans[0].gpus == 1 else "",
            **more,
        )
    )


def _origins(constants: Constants, plans: Sequence[Plan]) -> list[tuple[str, str, str, str, str]]:
    """A part's amount, its GPU-hours over the plans, and whether it rests on assumptions."""
    found = []
    for place, part in enumerate(plans[0].parts):
        hours = [_number(plan.parts[place].gpu_hours) for plan in plans]
        assumed = list_assumed(constants, part.name, [plan.gpus for plan in plans])
        found.append(
            (
                part.name,
                f"{short_number(part.amount)} {part.unit}",
                _span(part.gpu_hours, hours),
                "assumed in part" if assumed else "measured",
                ", ".join(name.partition(".")[2] for name in assumed) or "–",
            )
        )
    return found


def _span(gpu_hours: float, hours: Sequence[str]) -> str:
    if not gpu_hours:
        return "–"
    return hours[0] if hours[0] == hours[-1] else f"{hours[0]} to {hours[-1]}"


def _gpus(plan: Plan) -> str:
    return f"{plan.gpus:,} GPU" + ("s" if plan.gpus > 1 else "")


def _number(value: float) -> str:
    """Two or three digits that are worth something."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"
