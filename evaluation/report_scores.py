"""The report's plots of scores, lengths and rates, from a run's figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evaluation.paper_results import PaperResults
from evaluation.plots_scores import Lengths, Mark, plot_marks, plot_rates, plot_token_lengths
from evaluation.report_data import EvaluationFacts, Score
from evaluation.report_paper import MAIN, MATHS, PaperSection
from pipeline.pages import Plot

MOST_VALUES = 14
"""Values of a label that are drawn; a label with more of them is left to the manifest."""


def draw_score_plots(
    section: PaperSection, paper: PaperResults, evaluations: Sequence[EvaluationFacts]
) -> dict[str, Plot]:
    """Every plot of scores that there are numbers for, by name."""
    plots = {**_draw_paper(section, paper), **_draw_lengths(evaluations)}
    return {**plots, **_draw_rates(evaluations), **_draw_labels(evaluations)}


def _draw_paper(section: PaperSection, paper: PaperResults) -> dict[str, Plot]:
    """The paper's own row against ours on the benchmarks that both have."""
    key = next((t.key for t in section.tables if t.has_ours and t.key in (MAIN, MATHS)), None)
    if key is None:
        return {}
    own = next(table.own for table in paper.tables if table.key == key)
    marks = []
    for benchmark in paper.benchmarks:
        ours = [one for one in section.ours if one.benchmark == benchmark]
        cell = paper.cells[own].get(benchmark.key)
        if ours and cell is not None:
            marks.append(
                Mark(group=benchmark.title, label="paper", value=cell.value / 100, is_quoted=True)
            )
        marks += [
            Mark(
                group=benchmark.title,
                label=one.evaluation.name,
                value=one.score.avg_at_k,
                interval=one.score.interval,
            )
            for one in ours
        ]
    values = "; ".join(f"{mark.group}, {mark.label}: {mark.value:.1%}" for mark in marks)
    title = paper.model(own).title
    return {
        "paper": Plot(
            svg=plot_marks(marks, "paper", "avg@k, per cent of answers correct"),
            label=f"Paper and this run: {values}",
            caption=f"This run with its intervals; hollow and grey, as quoted: the paper's {title}",
        )
    }


def _scores(evaluations: Sequence[EvaluationFacts]) -> Iterator[tuple[str, Score]]:
    """A benchmark's checkpoints one after the other."""
    names = dict.fromkeys(score.benchmark for entry in evaluations for score in entry.scores)
    for name in names:
        for entry in evaluations:
            yield from ((entry.name, score) for score in entry.scores if score.benchmark == name)


def _draw_lengths(evaluations: Sequence[EvaluationFacts]) -> dict[str, Plot]:
    lengths = [
        Lengths(
            group=score.benchmark,
            label=name,
            p10=score.token_quantiles["p10"],
            p50=score.token_quantiles["p50"],
            p90=score.token_quantiles["p90"],
            most=score.token_quantiles["max"],
        )
        for name, score in _scores(evaluations)
        if score.token_quantiles
    ]
    if not lengths:
        return {}
    values = "; ".join(
        f"{e.group}, {e.label}: {e.p50:,.0f}, longest {e.most:,.0f}" for e in lengths
    )
    return {
        "answer_lengths": Plot(
            svg=plot_token_lengths(lengths, "answer-lengths"),
            label=f"Answer lengths in tokens, median and longest: {values}",
            caption="Length of the answers: median, middle 80 per cent (thick), longest (end)",
        )
    }


def _draw_rates(evaluations: Sequence[EvaluationFacts]) -> dict[str, Plot]:
    pairs = list(_scores(evaluations))
    if not pairs:
        return {}
    cut, formed = [
        [
            Mark(group=score.benchmark, label=name, value=getattr(score, field))
            for name, score in pairs
        ]
        for field in ("truncated_rate", "format_rate")
    ]
    values = "; ".join(
        f"{s.benchmark}, {name}: {s.truncated_rate:.0%} cut off, {s.format_rate:.0%} with a result"
        for name, s in pairs
    )
    return {
        "rates": Plot(
            svg=plot_rates(cut, formed, "rates"),
            label=f"Truncation: {values}",
            caption="Answers cut off at the token limit, and answers with a result to grade",
        )
    }


def _draw_labels(evaluations: Sequence[EvaluationFacts]) -> dict[str, Plot]:
    """One plot per benchmark and label with several values, e.g. MATH-500 by level."""
    plots = {}
    keys = dict.fromkeys(
        (score.benchmark, label) for _, score in _scores(evaluations) for label in score.by_label
    )
    for number, (benchmark, label) in enumerate(keys):
        found = [
            (name, score.by_label[label])
            for name, score in _scores(evaluations)
            if score.benchmark == benchmark and label in score.by_label
        ]
        values = sorted({value for _, by_value in found for value in by_value})
        if not 1 < len(values) <= MOST_VALUES:
            continue
        marks = [
            Mark(
                group=f"{label.replace('_', ' ')} {value} ({by_value[value].num_items})",
                label=name,
                value=by_value[value].avg_at_k,
                interval=by_value[value].interval,
            )
            for value in values
            for name, by_value in found
            if value in by_value
        ]
        shown = "; ".join(f"{mark.group}, {mark.label}: {mark.value:.1%}" for mark in marks)
        plots[f"label_{number}"] = Plot(
            svg=plot_marks(marks, f"label-{number}", "avg@k, per cent of answers correct"),
            label=f"{benchmark} by {label}: {shown}",
            caption=f"{benchmark} by {label}; number of problems in brackets",
        )
    return plots
