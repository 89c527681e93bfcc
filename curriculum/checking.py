"""Check files that are not part of a build: rows in a source's schema."""

from __future__ import annotations

from collections import Counter
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
from pipeline import console
from pipeline.errors import ConfigError
from pipeline.hashing import file_sha256
from pipeline.records import Rejected
from pipeline.settings.recipe import Recipe
from pipeline.settings.sources import SourceKind, SourceSettings

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
