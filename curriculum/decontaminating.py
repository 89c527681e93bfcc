"""Rows with a text against benchmarks: ``python -m curriculum decontaminate FILE``.

Rows are searched slice by slice; what grows with the file is only what was found in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curriculum.sources.reading import iterate_rows
from pipeline import console
from pipeline.benchmarks import load_benchmark_items
from pipeline.contamination import BenchmarkIndex, ItemText, Match
from pipeline.errors import SourceError
from pipeline.settings.recipe import Recipe

if TYPE_CHECKING:
    from curriculum.semantic_items import ItemJudge, SemanticMatch

TEXT_FIELDS = ("text", "question", "problem", "prompt", "input", "statement")
"""Where a row's text may stand, first match wins."""
ID_FIELDS = ("id", "unique_id", "task_id", "question_id", "idx")
"""Where a file may keep ids; the first row decides, and without any a row is named by its number.
"""
MAX_SHOWN = 20
_SLICE = 1000
"""Rows searched together."""


def decontaminate_file(
    recipe: Recipe, path: Path, benchmark: Path | None, text_column: str = ""
) -> dict[str, Any]:
    """Look for benchmark items in any rows with a text.

    Args:
        recipe: Its benchmarks and rules.
        path: The rows.
        benchmark: A file of items instead of the recipe's.
        text_column: Where the rows' text stands; by default one of :data:`TEXT_FIELDS`.

    Raises:
        SourceError: A file is missing, unreadable or empty, or a row lacks a text, or the id that
            the first row has.
    """
    index = BenchmarkIndex(
        _read_items(recipe, benchmark), recipe.settings.curriculum.decontamination
    )
    flagged: list[dict[str, Any]] = []
    twins: list[dict[str, Any]] = []
    num_rows = 0
    rows = read_texts(path, text_column)
    while part := list(islice(rows, _SLICE)):
        num_rows += len(part)
        found = index.find_in_texts([text for _, text in part])
        for (row_id, _), matches in zip(part, found, strict=True):
            for match in matches:
                (flagged if match.is_contamination else twins).append(_report(row_id, match))
    counts, twin_counts = _count_rows(flagged), _count_rows(twins)
    return {
        "path": str(path),
        "id_column": find_id_column(path),
        "rows": num_rows,
        "benchmarks": index.items_per_benchmark(),
        "per_benchmark": {
            name: {
                "items": items,
                "rows_flagged": counts[name],
                "template_twins": twin_counts[name],
            }
            for name, items in index.items_per_benchmark().items()
        },
        "flagged_ids": list(dict.fromkeys(entry["id"] for entry in flagged)),
        "flagged": flagged,
        "template_twins": twins,
    }


def add_judgements(
    report: dict[str, Any],
    path: Path,
    benchmark: Path | None,
    judge: ItemJudge,
    text_column: str = "",
) -> None:
    """Ask a teacher about the rows that no rule flagged, and flag what it says is an item.

    Raises:
        ConfigError: The recipe has no such teacher, or the encoder cannot be used.
        TeacherError: The teacher or the encoder failed.
    """
    from curriculum.semantic_items import open_item_judge

    known = dict.fromkeys(report["flagged_ids"])
    rows = (row for row in read_texts(path, text_column) if row[0] not in known)
    found: list[SemanticMatch] = []
    num_judged = 0
    with open_item_judge(_read_items(judge.recipe, benchmark), judge) as ask:
        while part := list(islice(rows, _SLICE)):
            judged = ask(part)
            num_judged += len(judged)
            found += [match for match in judged if match.is_contamination]
    report["judged_pairs"] = num_judged
    report["judged"] = [asdict(match) for match in found]
    report["flagged_ids"] = [*known, *dict.fromkeys(match.text_id for match in found)]


def find_id_column(path: Path) -> str | None:
    """The column of a file's ids, by its first row; ``None`` where rows are named by number.

    Raises:
        SourceError: The file cannot be read.
    """
    first = next(iterate_rows(path, ()))
    return next((name for name in ID_FIELDS if first.get(name) is not None), None)


def read_texts(path: Path, text_column: str = "") -> Iterator[tuple[str, str]]:
    """Stream (id, text) of a file; where it has no ids, they are row numbers from 0.

    Args:
        path: The file.
        text_column: Where the text stands; by default one of :data:`TEXT_FIELDS`.

    Raises:
        SourceError: The file cannot be read, or a row lacks a text, or the id that the first has.
    """
    id_column = find_id_column(path)
    names = (text_column,) if text_column else TEXT_FIELDS
    for number, row in enumerate(iterate_rows(path, ())):
        text = next((row[name] for name in names if isinstance(row.get(name), str)), None)
        if text is None:
            raise SourceError(
                f"{path}: row {number} (from 0) has no text in {' or '.join(names)}; it has "
                f"{', '.join(row) or 'no columns'}",
                hint="name the column of the text: --text-column NAME",
            )
        row_id = number if id_column is None else row.get(id_column)
        if row_id is None:
            raise SourceError(
                f"{path}: row {number} (from 0) has no {id_column}, which the first row has",
                hint=f"give every row its {id_column}, or none",
            )
        yield str(row_id), text


def show_flagged(report: dict[str, Any]) -> None:
    """Print flagged rows and counts."""
    if report["id_column"] is None:
        console.say(
            f"the rows have no id (looked for {', '.join(ID_FIELDS)}): ids are row numbers, from 0"
        )
    flagged = report["flagged"]
    if flagged:
        more = f" (first {MAX_SHOWN} of {len(flagged):,})" if len(flagged) > MAX_SHOWN else ""
        console.table(
            f"flagged{more}",
            ["id", "benchmark", "item", "rule", "score", "span"],
            [
                [f["id"], f["benchmark"], f["item"], f["rule"], f["score"], f["span"][:80]]
                for f in flagged[:MAX_SHOWN]
            ],
        )
    console.table(
        "benchmarks",
        ["benchmark", "items", "rows flagged", "template twins"],
        [[name, *entry.values()] for name, entry in report["per_benchmark"].items()],
    )
    if judged := report.get("judged"):
        console.table(
            "flagged by the judge",
            ["id", "benchmark", "item", "cosine", "verdict"],
            [list(match.values()) for match in judged[:MAX_SHOWN]],
        )
    console.say(
        f"{len(report['flagged_ids']):,} of {report['rows']:,} rows hold a benchmark item; "
        f"{len(report['template_twins']):,} template twins (other numbers or another question; "
        "not flagged)"
    )


def _read_items(recipe: Recipe, benchmark: Path | None) -> list[ItemText]:
    if benchmark is None:
        items = load_benchmark_items(recipe)
    else:
        name = benchmark.name.partition(".")[0]
        items = [ItemText(name, row_id, text) for row_id, text in read_texts(benchmark)]
    if not items:
        raise SourceError(
            f"recipe {recipe.name} lists no [[benchmarks]]", hint="pass --benchmark FILE"
        )
    return items


def _count_rows(entries: list[dict[str, Any]]) -> Counter[str]:
    """Rows of each benchmark, each row once."""
    return Counter(benchmark for _, benchmark in {(e["id"], e["benchmark"]) for e in entries})


def _report(row_id: str, match: Match) -> dict[str, Any]:
    report = {
        "id": row_id,
        "benchmark": match.benchmark,
        "item": match.item_id,
        "rule": match.rule,
        "score": match.score,
        "span": match.span,
    }
    return report | ({"differs": match.differs} if match.differs else {})
