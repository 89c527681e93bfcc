"""Check files that are not part of a build: rows in a source's schema, or any texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np

from curriculum.dedupe import REASONS, find_duplicates
from curriculum.dedupe import STAGE as DEDUPE
from curriculum.judging import Judged, limit_length, make_features, open_judge
from curriculum.measure import Measured
from curriculum.near_questions import HashedQuestions, make_search
from curriculum.question_hashes import hash_questions
from curriculum.sources.catalog import Parser, read_source_file
from curriculum.sources.questions import load_questions
from curriculum.sources.reading import iterate_rows
from pipeline import console
from pipeline.benchmarks import load_benchmark_index
from pipeline.contamination import BenchmarkIndex, ItemText, Match
from pipeline.errors import ConfigError, SourceError
from pipeline.hashing import file_sha256
from pipeline.records import Rejected
from pipeline.settings.recipe import Recipe
from pipeline.settings.sources import SourceKind, SourceSettings

TEXT_FIELDS = ("text", "question", "problem", "prompt", "input", "statement")
"""Where a row's text may stand, first match wins."""
ID_FIELDS = ("id", "unique_id", "task_id", "question_id", "idx")
MAX_SHOWN = 20


def check_source_file(recipe: Recipe, source: str, path: Path) -> dict[str, Any]:
    """Judge every row of a file as a build would, duplicates within the file included.

    Args:
        recipe: Limits, benchmarks, and the join's question files.
        source: A source kind, or a source's name in the recipe.
        path: The file.

    Raises:
        ConfigError: Unknown source.
        SourceError: The file is missing, unreadable, empty or has other columns.
    """
    settings = _source_settings(recipe, source)
    parser = Parser(settings=settings, questions=load_questions(recipe, settings.questions))
    judge = open_judge(recipe, parser)
    max_tokens = _limit_of(recipe, settings.name)
    revision = file_sha256(path) if path.is_file() else ""
    judged = judge.judge(list(read_source_file(settings, path, revision)))
    rows = _outcomes(recipe, [limit_length(one, max_tokens) for one in judged])
    refused = [row for row in rows if not row["accepted"]]
    rejected: dict[str, Counter[str]] = {}
    for row in refused:
        rejected.setdefault(row["stage"], Counter())[row["reason"]] += 1
    return {
        "path": str(path),
        "source": source,
        "max_tokens": max_tokens,
        "rows_in": len(rows),
        "accepted": len(rows) - len(refused),
        "rejected": {stage: dict(sorted(c.items())) for stage, c in sorted(rejected.items())},
        "rows": rows,
    }


def _source_settings(recipe: Recipe, source: str) -> SourceSettings:
    sources = recipe.settings.curriculum.sources
    for entry in sources:
        if entry.name == source:
            return entry
    for entry in sources:
        if entry.kind == source:
            return entry
    kinds = [kind for kind in get_args(SourceKind) if kind != "mapping"]
    if source not in kinds:
        known = ", ".join([*kinds, *(entry.name for entry in sources)])
        raise ConfigError(f"unknown source {source!r}", hint=f"use one of {known}")
    return SourceSettings.model_validate({"name": source, "kind": source, "paths": ["-"]})


def _limit_of(recipe: Recipe, source: str) -> int | None:
    """Token limit of the first phase that takes the source."""
    for _, phase in sorted(recipe.settings.curriculum.phases.items()):
        if any(entry.source == source for entry in phase.sources):
            return phase.max_tokens
    return None


def _outcomes(recipe: Recipe, judged: list[Judged]) -> list[dict[str, Any]]:
    """One report per row, in file order."""
    accepted = [n for n, one in enumerate(judged) if isinstance(one.outcome, Measured)]
    removed = _find_repeated(recipe, [judged[number] for number in accepted])
    repeated = {accepted[place]: found for place, found in removed.items()}
    rows = []
    for number, one in enumerate(judged):
        stage = reason = detail = ""
        domain, num_tokens = "other", 0
        if isinstance(one.outcome, Rejected):
            stage, reason, detail = one.outcome.stage, one.outcome.reason, one.outcome.detail
        else:
            domain = one.outcome.row.candidate.domain
            num_tokens = one.outcome.size.num_tokens
        if number in repeated:
            reason, kept = repeated[number]
            stage, detail = DEDUPE, f"kept {judged[accepted[kept]].row_id} instead"
        rows.append(
            {
                "row": number + 1,
                "row_id": one.row_id,
                "accepted": not reason,
                "stage": stage,
                "reason": reason,
                "detail": detail,
                "domain": domain,
                "num_tokens": num_tokens,
            }
        )
    return rows


def _find_repeated(recipe: Recipe, accepted: list[Judged]) -> dict[int, tuple[str, int]]:
    """Duplicates among accepted rows: place to reason and the place of the row that stays."""
    settings = recipe.settings.curriculum
    measured = [one.outcome for one in accepted if isinstance(one.outcome, Measured)]
    if not measured or not settings.deduplicate:
        return {}
    features = make_features(measured)
    questions = HashedQuestions(hash_questions([one.row.question for one in measured]))
    found = find_duplicates(
        features,
        np.arange(len(features)),
        settings.traces_per_question,
        find_near=make_search(questions, settings),
    )
    return {
        removed: (REASONS[reason], kept)
        for removed, kept, reason in zip(
            found.removed.tolist(), found.kept.tolist(), found.reasons.tolist(), strict=True
        )
    }


def show_check(report: dict[str, Any]) -> None:
    """Print counts, reasons, and the first rejected rows."""
    refused = [row for row in report["rows"] if not row["accepted"]]
    if refused:
        console.table(
            f"rejected rows{_of_many(len(refused))}",
            ["row", "id", "stage", "reason", "detail"],
            [
                [r["row"], r["row_id"][:8], r["stage"], r["reason"], r["detail"]]
                for r in refused[:MAX_SHOWN]
            ],
        )
    limit = report["max_tokens"]
    console.say(
        f"{report['rows_in']:,} rows = {report['accepted']:,} accepted + {len(refused):,} rejected "
        f"({f'at most {limit:,} tokens' if limit else 'no token limit: no phase takes it'})"
    )


def _of_many(count: int) -> str:
    return f" (first {MAX_SHOWN} of {count:,})" if count > MAX_SHOWN else ""


def decontaminate_file(recipe: Recipe, path: Path, benchmark: Path | None) -> dict[str, Any]:
    """Look for benchmark items in any rows with an id and a text.

    Raises:
        SourceError: A file is missing, unreadable or empty, or a row lacks an id or a text.
    """
    if benchmark is None:
        index = load_benchmark_index(recipe)
    else:
        items = [
            ItemText(benchmark.name.partition(".")[0], row_id, text)
            for row_id, text in read_texts(benchmark)
        ]
        index = BenchmarkIndex(items, recipe.settings.curriculum.decontamination)
    if not len(index):
        raise SourceError(
            f"recipe {recipe.name} lists no [[benchmarks]]", hint="pass --benchmark FILE"
        )
    flagged: list[dict[str, Any]] = []
    twins: list[dict[str, Any]] = []
    num_rows = 0
    for row_id, text in read_texts(path):
        num_rows += 1
        for match in index.find(text):
            (flagged if match.is_contamination else twins).append(_report(row_id, match))
    return {
        "path": str(path),
        "rows": num_rows,
        "benchmarks": index.items_per_benchmark(),
        "flagged_ids": list(dict.fromkeys(entry["id"] for entry in flagged)),
        "flagged": flagged,
        "template_twins": twins,
    }


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


def _report(row_id: str, match: Match) -> dict[str, Any]:
    return {
        "id": row_id,
        "benchmark": match.benchmark,
        "item": match.item_id,
        "rule": match.rule,
        "score": match.score,
        "span": match.span,
    }


def show_flagged(report: dict[str, Any]) -> None:
    """Print flagged rows and counts."""
    flagged = report["flagged"]
    if flagged:
        console.table(
            f"flagged{_of_many(len(flagged))}",
            ["id", "benchmark", "item", "rule", "score", "span"],
            [
                [f["id"], f["benchmark"], f["item"], f["rule"], f["score"], f["span"][:80]]
                for f in flagged[:MAX_SHOWN]
            ],
        )
    console.say(
        f"{len(report['flagged_ids']):,} of {report['rows']:,} rows hold a benchmark item; "
        f"{len(report['template_twins']):,} template twins (other numbers; not flagged)"
    )
