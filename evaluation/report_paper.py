"""The paper's tables with ours beside them, and what may not be compared in words.

Nothing here reads a file or draws. Quoted cells and ours are different things all the way to the
page: a quoted one has a source and no interval, one of ours has an interval and no source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.ablation_results import AblationRow, AblationScore, AblationTable
from evaluation.comparison_view import format_p
from evaluation.paper_results import (
    PaperResults,
    QuotedAblation,
    QuotedBenchmark,
    QuotedCell,
    QuotedTable,
    standard_error,
)
from evaluation.report_data import EvaluationFacts, RunFacts, Score
from pipeline.settings.recipe import Recipe

MAIN, MATHS, ABLATIONS = "main", "maths", "ablations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number of a table, or none."""

    text: str = "–"
    details: tuple[str, ...] = ()
    """Interval and k of ours; source of a quoted one, in words."""
    mark: str = ""
    """Of a quoted one: ``q`` and the number of its source."""
    is_ours: bool = False

    @property
    def is_quoted(self) -> bool:
        """Whether the number is the paper's."""
        return bool(self.mark)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A model, checkpoint or variant."""

    title: str
    subtitle: str = ""
    is_ours: bool = False
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One of the paper's tables, with ours beside it."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    """What may not be compared, and why."""

    @property
    def has_ours(self) -> bool:
        """Whether anything of this run stands in it."""
        return any(row.is_ours for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """One of our scores on one of the paper's benchmarks."""

    evaluation: EvaluationFacts
    benchmark: QuotedBenchmark
    score: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperSection:
    """Everything the report says of the paper."""

    tables: tuple[Table, ...]
    sources: Mapping[str, str]
    """Mark of a quoted cell to where its number was read."""
    paper: str
    ours: tuple[Ours, ...]
    benchmarks_run: tuple[str, ...]
    """What this run was evaluated on, by its own names."""

    @property
    def is_comparable(self) -> bool:
        """Whether anything of this run stands in a table."""
        return any(table.has_ours for table in self.tables)


def describe_paper(
    recipe: Recipe, facts: RunFacts, paper: PaperResults, ablations: AblationTable | None
) -> PaperSection:
    """All three tables.

    A run on mathematics alone stands in the table of the paper's maths variant, any other in the
    main table.
    """
    names = {entry.name: entry.use or entry.name for entry in recipe.settings.benchmarks}
    ours = [
        Ours(evaluation=entry, benchmark=benchmark, score=score)
        for entry in facts.evaluations
        for score in entry.scores
        if (benchmark := paper.benchmark_of(names.get(score.benchmark, score.benchmark)))
    ]
    place = MATHS if is_maths_only(recipe) else MAIN
    tables = [
        _results_table(paper, table, ours if table.key == place else []) for table in paper.tables
    ]
    tables.append(_ablation_table(paper, ablations, names))
    run = dict.fromkeys(score.benchmark for entry in facts.evaluations for score in entry.scores)
    return PaperSection(
        tables=tuple(tables),
        sources={f"q{n}": text for n, text in enumerate(paper.sources.values(), start=1)},
        paper=f"“{paper.paper.title}” (arXiv {paper.paper.arxiv})",
        ours=tuple(ours),
        benchmarks_run=tuple(run),
    )


def is_maths_only(recipe: Recipe) -> bool:
    """Whether every phase takes mathematics alone."""
    phases = recipe.settings.curriculum.phases.values()
    return bool(phases) and all(phase.domains == ("math",) for phase in phases)


def _results_table(paper: PaperResults, table: QuotedTable, ours: Sequence[Ours]) -> Table:
    rows = []
    for entry in dict.fromkeys(one.evaluation.name for one in ours):
        own = {one.benchmark.key: one for one in ours if one.evaluation.name == entry}
        cells = tuple(
            _own_cell(own[b.key].score) if b.key in own else Cell() for b in paper.benchmarks
        )
        rows.append(Row(title=entry, subtitle="this run", is_ours=True, cells=cells))
    for key in table.models:
        cells = tuple(_quoted_cell(paper, paper.cells[key].get(b.key)) for b in paper.benchmarks)
        rows.append(Row(title=paper.model(key).title, cells=cells))
    return Table(
        key=table.key,
        title=table.title,
        columns=tuple(benchmark.title for benchmark in paper.benchmarks),
        rows=tuple(rows),
        notes=tuple(_describe_results(paper, table, ours)),
    )


def _own_cell(score: Score) -> Cell:
    low, high = (100 * end for end in score.interval)
    return Cell(
        text=f"{100 * score.avg_at_k:.1f}",
        details=(f"{low:.1f}–{high:.1f}", f"avg@{score.samples_per_item}"),
        is_ours=True,
    )


def _quoted_cell(paper: PaperResults, cell: QuotedCell | None) -> Cell:
    if cell is None:
        return Cell()
    about = "about " if cell.approximate else ""
    mark = f"q{list(paper.sources).index(cell.source) + 1}"
    return Cell(text=f"{about}{cell.value:.1f}", details=(paper.sources[cell.source],), mark=mark)


def _describe_results(paper: PaperResults, table: QuotedTable, ours: Sequence[Ours]) -> list[str]:
    """What a results table cannot carry."""
    notes = _describe_protocol(paper, ours)
    own = paper.cells[table.own]
    small = min(paper.benchmarks, key=lambda benchmark: benchmark.items)
    error = standard_error(own[small.key].value, small.items)
    notes.append(
        f"{small.items} problems make the standard error of one score up to {error:.1f} points, "
        f"whatever k is: smaller differences on {small.title} are within noise, the paper's own "
        "leads included."
    )
    for benchmark, rival in paper.rivals_ahead(table):
        score = paper.cells[rival.key][benchmark.key].value
        notes.append(
            "The paper's line that its model beats all 7B baselines on all tasks is not true of "
            f"its own table: {rival.title} has {score:.1f} on {benchmark.title}, "
            f"{paper.model(table.own).title} {own[benchmark.key].value:.1f}."
        )
    return notes + paper.caveats_of(table.key)


def _describe_protocol(paper: PaperResults, ours: Sequence[Ours]) -> list[str]:
    """In what our sampling and grading differ from the paper's."""
    if not ours:
        return []
    notes = []
    protocol = paper.protocol
    settings = {one.evaluation.name: one.evaluation.version.manifest.settings for one in ours}
    for key, title in (
        ("repetition_penalty", "a repetition penalty"),
        ("temperature", "temperature"),
        ("top_p", "top-p"),
        ("max_new_tokens", "a limit of new tokens"),
    ):
        theirs = getattr(protocol, key)
        others = sorted({float(s[key]) for s in settings.values() if s.get(key, theirs) != theirs})
        if others:
            shown = ", ".join(f"{value:,g}" for value in others)
            notes.append(f"The paper sampled with {title} of {theirs:,g}, this run with {shown}.")
    seen = {one.benchmark.key: one for one in ours}
    for one in seen.values():
        notes += _describe_benchmark(one)
    notes.append(
        f"Graders differ. The paper's takes {protocol.grader}; here only a box (or a Python block) "
        "after the thinking counts, and nothing is guessed: ours is the stricter one."
    )
    return notes


def _describe_benchmark(one: Ours) -> list[str]:
    """In what one benchmark's k and items differ."""
    notes = []
    title, k = one.benchmark.title, one.score.samples_per_item
    if one.benchmark.samples is not None and one.benchmark.samples != k:
        notes.append(
            f"{title}: the paper averages {one.benchmark.samples} samples a problem, this run {k}. "
            "Both estimate the same mean; fewer samples add noise."
        )
    if one.score.num_items != one.benchmark.items:
        window = f" ({one.benchmark.window})" if one.benchmark.window else ""
        notes.append(
            f"{title}: the paper's has {one.benchmark.items} problems{window}, this run's "
            f"{one.score.num_items}: another set of problems, so the scores may not be compared."
        )
    return notes


def _ablation_table(
    paper: PaperResults, ablations: AblationTable | None, names: dict[str, str]
) -> Table:
    """The paper's leave-one-out runs, each with ours under it."""
    rows = []
    own = list(ablations.rows) if ablations is not None else []
    used = [b for b in paper.benchmarks if any(b.key in a.cells for a in paper.ablations)]
    ours_on = dict.fromkeys(score.benchmark for row in own for score in row.scores)
    others = [n for n in ours_on if paper.benchmark_of(names.get(n, n)) not in used]
    for row in (row for row in own if not row.paper):
        rows.append(_own_ablation(row, used, others, paper=paper, names=names))
    for quoted in paper.ablations:
        cells = [_quoted_difference(paper, quoted, benchmark) for benchmark in used]
        rows.append(Row(title=quoted.title, cells=(*cells, *(Cell() for _ in others))))
        rows += [
            _own_ablation(row, used, others, paper=paper, names=names)
            for row in own
            if row.paper == quoted.key
        ]
    notes = list(ablations.notes) if ablations is not None else []
    if ablations is not None:
        notes.append(
            "Ours: mean over seeds, then the difference to the full recipe with its interval, p "
            "corrected by Holm over all differences of the table, and the standard deviation of "
            "the mean between seeds."
        )
    return Table(
        key=ABLATIONS,
        title="Ablation table",
        columns=(
            *(benchmark.title for benchmark in used),
            *(_name_column(paper, names.get(name, name)) for name in others),
        ),
        rows=tuple(rows),
        notes=(*notes, *paper.caveats_of(ABLATIONS)),
    )


def _name_column(paper: PaperResults, name: str) -> str:
    known = paper.benchmark_of(name)
    return known.title if known is not None else name


def _quoted_difference(
    paper: PaperResults, ablation: QuotedAblation, benchmark: QuotedBenchmark
) -> Cell:
    cell = ablation.cells.get(benchmark.key)
    if cell is None:
        return Cell()
    difference = "" if cell.difference is None else f" ({cell.difference:+.1f})"
    base = _quoted_cell(paper, cell)
    return Cell(text=base.text + difference, details=base.details, mark=base.mark)


def _own_ablation(
    row: AblationRow,
    used: Sequence[QuotedBenchmark],
    others: Sequence[str],
    *,
    paper: PaperResults,
    names: dict[str, str],
) -> Row:
    found: dict[str, AblationScore] = {}
    for score in row.scores:
        benchmark = paper.benchmark_of(names.get(score.benchmark, score.benchmark))
        found[benchmark.key if benchmark in used and benchmark else score.benchmark] = score
    keys = [*(benchmark.key for benchmark in used), *others]
    matched = "" if row.matching == "none" else f", {row.matching} matched"
    seeds = f"{len(row.seeds)} seed{'s' if len(row.seeds) > 1 else ''}"
    return Row(
        title=row.title + matched,
        subtitle=f"this run, {seeds}, {row.num_steps:,} steps",
        is_ours=True,
        cells=tuple(_ablation_cell(found[key]) if key in found else Cell() for key in keys),
    )


def _ablation_cell(score: AblationScore) -> Cell:
    text = f"{100 * score.mean.mean:.1f}"
    low, high = (100 * end for end in score.mean.interval)
    spread = score.mean.seed_spread
    seeds = () if spread is None else (f"seeds ±{100 * spread:.1f}",)
    if score.difference is None:
        return Cell(text=text, details=(f"{low:.1f}–{high:.1f}", *seeds), is_ours=True)
    low, high = (100 * end for end in score.difference.interval)
    p_value = () if score.p_holm is None else (f"p {format_p(score.p_holm)}",)
    return Cell(
        text=f"{text} ({100 * score.difference.mean:+.1f})",
        details=(f"{low:+.1f} to {high:+.1f}", *p_value, *seeds),
        is_ours=True,
    )
