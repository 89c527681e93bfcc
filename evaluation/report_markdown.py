"""The report's scores and tables as Markdown, with its plots as files beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from evaluation.report_data import RunFacts
from evaluation.report_honesty import describe_limits, describe_mismatches, judge_interval
from evaluation.report_paper import Cell, PaperSection, Table
from evaluation.report_view import ScoreRow, describe_scores, format_interval, format_span
from pipeline.pages import Plot
from pipeline.settings.recipe import Recipe
from pipeline.store import write_text

_ALONE = '<svg xmlns="http://www.w3.org/2000/svg"'
"""A file of its own needs the namespace that a page implies."""


def write_markdown(
    recipe: Recipe,
    facts: RunFacts,
    paper: PaperSection,
    plots: Mapping[str, Plot],
    *,
    folder: Path,
) -> Path:
    """Write ``report.md`` and ``plots/*.svg``, and return the page's path.

    Raises:
        StoreError: They cannot be written.
    """
    names = {name: f"plots/{name.replace('_', '-')}.svg" for name in plots}
    for old in (folder / "plots").glob("*.svg"):
        if f"plots/{old.name}" not in names.values():
            old.unlink()
    for name, plot in plots.items():
        write_text(folder / names[name], plot.svg.replace("<svg", _ALONE, 1) + "\n")
    lines = [
        f"# {recipe.name}: evaluation",
        "",
        *([recipe.settings.description, ""] if recipe.settings.description else []),
        *_bullets(describe_limits(recipe, facts) + describe_mismatches(facts)),
        *_write_scores(recipe, describe_scores(facts.evaluations)),
        *_write_plots({n: p for n, p in plots.items() if n != "paper"}, names),
        *_write_paper(recipe, paper, plots, names),
    ]
    path = folder / "report.md"
    write_text(path, "\n".join(lines).rstrip() + "\n")
    return path


def _write_scores(recipe: Recipe, scores: Sequence[ScoreRow]) -> Iterator[str]:
    yield from ("## Scores", "")
    if not scores:
        yield from ("Not run yet: `python -m evaluation run`.", "")
        return
    head = ["benchmark", "checkpoint", "items", "k", "avg@k", "interval", "same problems"]
    head += ["pass@", "majority@k", "cut off", "well-formed", "mean tokens"]
    rows = []
    for row in scores:
        score = row.score
        again = score.sampling_interval
        majority = score.majority_at_k
        rows.append(
            [
                score.benchmark,
                row.checkpoint,
                f"{score.num_items:,}",
                str(score.samples_per_item),
                f"**{score.avg_at_k:.1%}**",
                format_interval(score),
                "" if again is None else format_span(again),
                ", ".join(f"{k}: {rate:.1%}" for k, rate in score.passes) or "–",
                "–" if majority is None else f"{majority:.1%}",
                f"{score.truncated_rate:.1%}",
                f"{score.format_rate:.1%}",
                f"{score.mean_tokens:,.0f}",
            ]
        )
    yield from _write_table(head, rows)
    yield (
        f"Interval: {recipe.settings.evaluation.confidence:.0%} over problems like these; same "
        "problems: over other samples of these very ones."
    )
    yield ""
    yield from _bullets(
        [
            f"{row.score.benchmark}, {row.checkpoint}: {note}."
            for row in scores
            if (note := judge_interval(row.score))
        ]
    )


def _write_plots(plots: Mapping[str, Plot], names: Mapping[str, str]) -> Iterator[str]:
    for name, plot in plots.items():
        yield from (f"![{_escape(plot.label)}]({names[name]})", "", f"*{plot.caption}*", "")


def _write_paper(
    recipe: Recipe, paper: PaperSection, plots: Mapping[str, Plot], names: Mapping[str, str]
) -> Iterator[str]:
    yield from ("## The paper's tables", "")
    if not paper.is_comparable:
        run = ", ".join(paper.benchmarks_run)
        what = f"evaluated on {run}, which the paper does not report" if run else "not evaluated"
        yield from (f"**Nothing here can be held against the paper.** This run was {what}.", "")
        yield from ("<details><summary>The paper's numbers</summary>", "")
    yield (
        f"Marked <sup>q</sup>: quoted from {paper.paper}, per cent, not measured here, without "
        f"interval. **Bold**: measured by this run, with its "
        f"{recipe.settings.evaluation.confidence:.0%} interval."
    )
    yield ""
    for number, table in enumerate(sorted(paper.tables, key=lambda table: not table.has_ours)):
        yield from _write_paper_table(table)
        if number == 0 and "paper" in plots:
            yield from _write_plots({"paper": plots["paper"]}, names)
    if not paper.is_comparable:
        yield from ("</details>", "")
    sources = "; ".join(f"<sup>{mark}</sup> {text}" for mark, text in paper.sources.items())
    yield from (f"Where the quoted numbers were read: {sources}.", "")


def _write_paper_table(table: Table) -> Iterator[str]:
    yield from (f"### {table.title}", "")
    rows = [
        [f"{row.title} ({row.subtitle})" if row.subtitle else row.title, *map(_cell, row.cells)]
        for row in table.rows
    ]
    yield from _write_table(["", *table.columns], rows)
    if table.notes:
        yield from ("What may not be compared:", "")
        yield from _bullets(table.notes)


def _cell(cell: Cell) -> str:
    if cell.is_ours:
        return f"**{cell.text}** [{', '.join(cell.details)}]"
    return f"{cell.text}<sup>{cell.mark}</sup>" if cell.is_quoted else cell.text


def _write_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join(['---'] * len(head))} |"
    yield from (f"| {' | '.join(map(_escape, row))} |" for row in rows)
    yield ""


def _bullets(notes: Sequence[str]) -> Iterator[str]:
    yield from (f"- {note}" for note in notes)
    if notes:
        yield ""


def _escape(text: str) -> str:
    """Text out of the data that must not end a cell or a link."""
    return text.replace("|", "\\|").replace("[", "\\[").replace("]", "\\]")
