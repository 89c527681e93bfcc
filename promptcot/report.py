"""Write the synthesis page of a run: one HTML file without external requests.

Inputs: the newest version of every stage under ``<out>/synthesis`` and the ledger. Output:
``<out>/report/synthesis.html``, with equal bytes for equal inputs. Command:
``python -m promptcot report``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.pages import Plot, page_environment
from pipeline.relaxed_gates import relaxed_synthesis_gates
from pipeline.settings.recipe import Recipe
from pipeline.store import write_text
from promptcot.cards import show_number, title_of
from promptcot.costs import total_cost
from promptcot.limits import asked_teachers, teacher_limits
from promptcot.plots import plot_agreement, plot_lengths, plot_objective, plot_usage
from promptcot.report_data import SynthesisFacts, collect_synthesis
from promptcot.report_samples import choose_accepted, choose_refused
from promptcot.report_view import (
    describe_calibration,
    describe_chain,
    describe_judges,
    describe_pairs,
    describe_rounds,
    describe_tiles,
    level_table,
)


def report_path(out: Path) -> Path:
    """Where the page of a run folder lies."""
    return out / "report" / "synthesis.html"


def write_synthesis_report(recipe: Recipe, out: Path) -> Path:
    """Write the run's synthesis page and return its path.

    Raises:
        SourceError: No stage of synthesis has been run, or a shard is unreadable.
        ManifestMismatch: A manifest is corrupt, or names a shard that is missing.
    """
    facts = collect_synthesis(recipe, out)
    path = report_path(out)
    write_text(path, render_page(recipe, facts))
    return path


def render_page(recipe: Recipe, facts: SynthesisFacts) -> str:
    """The page as text."""
    settings = recipe.settings
    judged = facts.versions.get("judged")
    values: dict[str, Any] = {
        "recipe": settings,
        "facts": facts,
        "stages": describe_chain(facts),
        "tiles": describe_tiles(facts),
        "limits": teacher_limits(settings),
        "relaxed": relaxed_synthesis_gates(settings),
        "teachers": {name: settings.teachers[name] for name in asked_teachers(settings)},
        "levels": level_table(facts),
        "judges": describe_judges(judged),
        "pairs": describe_pairs(judged),
        "calibration": describe_calibration(judged),
        "rounds": describe_rounds(facts),
        "costs": facts.costs,
        "total": total_cost(facts.costs),
        "accepted": choose_accepted(facts.versions.get("verified")),
        "refused": choose_refused(facts.versions),
        "plots": draw_plots(recipe, facts),
        "title_of": title_of,
    }
    environment = page_environment("promptcot")
    environment.filters["figure"] = show_number
    return environment.get_template("synthesis_report.html.j2").render(values)


def draw_plots(recipe: Recipe, facts: SynthesisFacts) -> dict[str, Plot]:
    """Every plot that the run has numbers for, by name."""
    drawn = {
        "usage": _draw_usage(facts),
        "agreement": _draw_agreement(facts),
        "lengths": _draw_lengths(recipe, facts),
        "objective": _draw_objective(facts),
    }
    return {name: plot for name, plot in drawn.items() if plot is not None}


def _draw_usage(facts: SynthesisFacts) -> Plot | None:
    if not facts.concepts:
        return None
    parts = "; ".join(
        f"{use.domain}: "
        + ", ".join(f"{count:,} concepts {name} times" for name, count in use.histogram)
        for use in facts.concepts
    )
    return Plot(
        svg=plot_usage({use.domain: use.histogram for use in facts.concepts}),
        label=f"Histograms of how often each concept was drawn. {parts}",
        caption="How often each concept was drawn",
    )


def _draw_agreement(facts: SynthesisFacts) -> Plot | None:
    if not facts.agreement:
        return None
    parts = ", ".join(f"{share:.0%}: {count:,}" for share, count in facts.agreement.items())
    return Plot(
        svg=plot_agreement(facts.agreement),
        label=f"Problems with a kept trace by the share of samples that agree. {parts}",
        caption="Difficulty: problems with a kept trace, by the share of their samples that agree",
    )


def _draw_lengths(recipe: Recipe, facts: SynthesisFacts) -> Plot | None:
    lengths = facts.lengths
    if not lengths.size:
        return None
    return Plot(
        svg=plot_lengths(lengths, recipe.settings.synthesis.solutions.max_tokens),
        label=f"Histogram of solution lengths, from {lengths.min():,} to {lengths.max():,} tokens",
        caption="Length of the well-formed solutions, in the teacher's tokens",
    )


def _draw_objective(facts: SynthesisFacts) -> Plot | None:
    rounds = [found.objective for found in describe_rounds(facts) if found.objective]
    if not rounds:
        return None
    values = "; ".join(
        f"round {number}: chosen {found['chosen']:.2f}, drawn {found['drawn']:.2f}"
        for number, found in enumerate(rounds, start=1)
    )
    return Plot(
        svg=plot_objective(rounds),
        label=f"Mean objective of the rationales by round. {values}",
        caption="Objective of the chosen rationales against the mean of all that were drawn",
    )
