"""Rows with an id and a text against benchmarks: ``python -m curriculum decontaminate FILE``."""

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
    from curriculum.semantic_items import ItemJudge

TEXT_FIELDS = ("text", "question", "problem", "prompt", "input", "statement")
"""Where a row's text may stand, first match wins."""
ID_FIELDS = ("id", "unique_id", "task_id", "question_id", "idx")
MAX_SHOWN = 20
_SLICE = 1000
"""Rows searched together."""


def decontaminate_file(recipe: Recipe, path: Path, benchmark: Path | None) -> dict[str, Any]:
    """Look for benchmark items in any rows with an id and a text.

    Raises:
        SourceError: A file is missing, unreadable or empty, or a row lacks an id or a text.
    """
    index = BenchmarkIndex(
        _read_items(recipe, benchmark), recipe.settings.curriculum.decontamination
    )
    flagged: list[dict[str, Any]] = []
    twins: list[dict[str, Any]] = []
    num_rows = 0
    rows = read_texts(path)
    while part := list(islice(rows, _SLICE)):
        num_rows += len(part)
        found = index.find_in_texts([text for _, text in part])
        for (row_id, _), matches in zip(part, found, strict=True):
            for match in matches:
                (flagged if match.is_contamination else twins).append(_report(row_id, match))
    counts, twin_counts = _count_rows(flagged), _count_rows(twins)
    return {
        "path": str(path),
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
    report: dict[str, Any], path: Path, benchmark: Path | None, judge: ItemJudge
) -> None:
    """Ask a teacher about the rows that no rule flagged, and flag what it says is an item.

    Raises:
        ConfigError: The recipe has no such teacher, or the encoder cannot be used.
        TeacherError: The teacher or the encoder failed.
    """
    from curriculum.semantic_items import judge_nearest_items

    known = dict.fromkeys(report["flagged_ids"])
    texts = [(row_id, text) for row_id, text in read_texts(path) if row_id not in known]
    judged = judge_nearest_items(texts, _read_items(judge.recipe, benchmark), judge)
    found = [match for match in judged if match.is_contamination]
    report["judged_pairs"] = len(judged)
    report["judged"] = [asdict(match) for match in found]
    report["flagged_ids"] = [*known, *dict.fromkeys(match.text_id for match in found)]


def read_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Stream (id, text) of a file; both fields are found by their usual names.

    Raises:
        SourceError: The file cannot be read, or a row lacks an id or a text.
    """
    for number, row in enumerate(iterate_rows(path, ()), start=1):
        row_id = next((row[name] for name in ID_FIELDS if row.get(name) is not None), None)
        text = next((row[name] for name in TEXT_FIELDS if isinstance(row.get(name), str)), None)
        if row_id is None or text is None:
            what, names = ("id", ID_FIELDS) if row_id is None else ("text", TEXT_FIELDS)
            raise SourceError(
                f"{path}: row {number} has no {what} (looked for {', '.join(names)}; it has "
                f"{', '.join(row)})",
                hint=f"add a column `{names[0]}`",
            )
        yield str(row_id), text


def show_flagged(report: dict[str, Any]) -> None:
    """Print flagged rows and counts."""
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
