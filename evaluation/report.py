"""Write one run's report: a single static HTML page without external requests, and Markdown.

Inputs: whatever the run has left under its folder. Output: ``<out>/report/index.html``, and its
scores and tables as ``report.md`` with plots in ``plots/``; equal bytes for equal inputs.
``python -m evaluation report --recipe NAME`` calls :func:`write_report`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.ablation_results import read_runs, tabulate
from evaluation.paper_results import load_paper
from evaluation.plots import (
    Bar,
    Curve,
    Dot,
    plot_lengths,
    plot_losses,
    plot_mix,
    plot_rejections,
    plot_scores,
)
from evaluation.report_commands import list_artifacts, list_commands
from evaluation.report_data import RunFacts, collect_run
from evaluation.report_honesty import describe_limits, describe_mismatches, judge_interval
from evaluation.report_markdown import write_markdown
from evaluation.report_paper import PaperSection, describe_paper
from evaluation.report_rows import choose_samples, describe_provenance
from evaluation.report_scores import draw_score_plots
from evaluation.report_view import (
    Lane,
    StageRow,
    describe_contamination,
    describe_lanes,
    describe_scores,
    describe_tiles,
    format_interval,
    format_span,
    join_counts,
)
from pipeline.pages import Plot, page_environment
from pipeline.relaxed_gates import relaxed_gates
from pipeline.settings.recipe import Recipe
from pipeline.store import write_text

if TYPE_CHECKING:
    from jinja2 import Template

MAX_REASON_BARS = 15
"""Reasons drawn; the table beside the plot lists all of them."""


def write_report(recipe: Recipe, out: Path) -> Path:
    """Write the run's page and return its path.

    Args:
        recipe: The run's recipe.
        out: The run folder.

    Raises:
        SourceError: Nothing has been built under ``out``, or a shard is unreadable.
        ManifestMismatch: A manifest is corrupt.
        StoreError: A checkpoint's records are corrupt, or the page cannot be written.
    """
    facts = collect_run(recipe, out)
    paper = load_paper()
    ablations = tabulate(read_runs(out), recipe.settings.evaluation)
    section = describe_paper(recipe, facts, paper, ablations)
    plots = draw_score_plots(section, paper, facts.evaluations)
    folder = out / "report"
    write_text(folder / "index.html", render_page(recipe, facts, section, plots))
    write_markdown(recipe, facts, section, plots, folder=folder)
    return folder / "index.html"


def render_page(
    recipe: Recipe, facts: RunFacts, paper: PaperSection, score_plots: Mapping[str, Plot]
) -> str:
    """The page as text."""
    lanes = describe_lanes(facts)
    stages = [stage for lane in lanes for stage in lane.stages]
    values: dict[str, Any] = {
        "recipe": recipe.settings,
        "facts": facts,
        "tiles": describe_tiles(facts),
        "relaxed": relaxed_gates(recipe.settings),
        "limits": describe_limits(recipe, facts),
        "mismatches": describe_mismatches(facts),
        "lanes": lanes,
        "stages": stages,
        "scores": describe_scores(facts.evaluations),
        "contamination": describe_contamination(facts),
        "samples": [
            (sample, describe_provenance(sample)) for sample in choose_samples(recipe, facts)
        ],
        "commands": list_commands(recipe),
        "artifacts": list_artifacts(facts),
        "paper": paper,
        "label_plots": [plot for name, plot in score_plots.items() if name.startswith("label_")],
        "plots": {**draw_plots(recipe, facts, lanes), **score_plots},
    }
    return _template().render(values)


def draw_plots(recipe: Recipe, facts: RunFacts, lanes: Sequence[Lane]) -> dict[str, Plot]:
    """Every plot that the run has numbers for, by name."""
    drawn = {
        "rejections": _draw_rejections([stage for lane in lanes for stage in lane.stages]),
        "losses": _draw_losses(facts),
        "scores": _draw_scores(facts),
        **_draw_data(recipe, facts),
    }
    return {name: plot for name, plot in drawn.items() if plot is not None}


def _draw_rejections(stages: Sequence[StageRow]) -> Plot | None:
    bars = [Bar(r.text, r.count, stage.title) for stage in stages for r in stage.reasons]
    if not bars:
        return None
    largest = sorted(bars, key=lambda bar: -bar.amount)[:MAX_REASON_BARS]
    shown = [bar for bar in bars if bar in largest]
    return Plot(
        svg=plot_rejections(shown),
        label="Rejected rows by reason: "
        + join_counts({f"{bar.group}, {bar.label}": bar.amount for bar in shown}),
        caption="Rejected rows by stage and reason"
        + (f" (the {len(shown)} most frequent of {len(bars)})" if len(shown) < len(bars) else ""),
    )


def _draw_data(recipe: Recipe, facts: RunFacts) -> dict[str, Plot | None]:
    phases = {name: found for name, found in facts.phases.items() if found.lengths.size}
    if not phases:
        return {}
    settings = recipe.settings.curriculum.phases
    limits = {name: settings[name].max_tokens for name in phases if name in settings}
    domains = {name: found.domains for name, found in phases.items()}
    sources = {name: found.sources for name, found in phases.items()}
    spans = "; ".join(
        f"phase {name} from {found.lengths.min():,} to {found.lengths.max():,} tokens"
        for name, found in phases.items()
    )
    return {
        "lengths": Plot(
            svg=plot_lengths({name: found.lengths for name, found in phases.items()}, limits),
            label=f"Histograms of row lengths: {spans}",
            caption="Length of the rows of each phase, in tokens of the student's tokenizer",
        ),
        "domains": _draw_mix(domains, "domains", "Domains of each phase"),
        "sources": _draw_mix(sources, "sources", "Sources of each phase"),
    }


def _draw_mix(mixes: Mapping[str, Mapping[str, int]], name: str, caption: str) -> Plot:
    parts = "; ".join(f"phase {phase}: {join_counts(mix)}" for phase, mix in mixes.items())
    return Plot(svg=plot_mix(mixes, name), label=f"{caption}: {parts}", caption=caption)


def _draw_losses(facts: RunFacts) -> Plot | None:
    curves = [
        Curve(phase, [s.step for s in found.steps], [s.loss for s in found.steps])
        for phase, found in facts.training.items()
        if found.steps
    ]
    if not curves:
        return None
    ends = "; ".join(
        f"phase {c.phase} from {c.losses[0]:.2f} to {c.losses[-1]:.2f} in {c.steps[-1]:,} steps"
        for c in curves
    )
    return Plot(
        svg=plot_losses(curves),
        label=f"Training loss: {ends}",
        caption="Training loss on completion tokens: each logged step faint, running mean on top",
    )


def _draw_scores(facts: RunFacts) -> Plot | None:
    dots = [
        Dot(score.benchmark, entry.name, score.avg_at_k, *score.interval)
        for entry in facts.evaluations
        for score in entry.scores
    ]
    if not dots:
        return None
    values = "; ".join(f"{d.benchmark}, {d.checkpoint}: {d.value:.1%}" for d in dots)
    return Plot(
        svg=plot_scores(dots),
        label=f"avg@k with its interval: {values}",
        caption="avg@k of each checkpoint, with its interval",
    )


def _template() -> Template:
    environment = page_environment("evaluation")
    environment.filters["interval"] = format_interval
    environment.filters["span"] = format_span
    environment.filters["judge_interval"] = judge_interval
    environment.filters["join_counts"] = join_counts
    return environment.get_template("report.html.j2")
