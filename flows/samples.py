"""A few rows of a version as short texts, for a table that a person skims."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from pipeline.manifest import Version

MAX_ROWS = 10
_SEARCHED_ROWS = 2000
"""Rows are spread over at most so many, so that a large version is not read to its end."""
_MAX_CHARS = 100
"""Cells of Prefect's tables do not wrap; the rows themselves are in the version."""


def sample_rows(version: Version) -> list[dict[str, Any]]:
    """Rows spread over (the beginning of) a version, each as column title → short text.

    Args:
        version: Of verified traces, training rows, triples or sampled answers.
    """
    step = max(1, min(version.manifest.rows_out, _SEARCHED_ROWS) // MAX_ROWS)
    rows = list(islice(version.rows(), 0, step * MAX_ROWS, step))
    if not rows:
        return []
    if "solution" in rows[0]:
        return [_describe_trace(row) for row in rows]
    if "rationale" in rows[0]:
        return [_describe_triple(row) for row in rows]
    if "completion" in rows[0]:
        return [_describe_training_row(row) for row in rows]
    return [_describe_answer(row) for row in rows]


def shorten(text: object) -> str:
    """One line of at most 100 characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= _MAX_CHARS else line[: _MAX_CHARS - 1] + "…"


def _describe_trace(row: dict[str, Any]) -> dict[str, Any]:
    solution = row["solution"]
    problem = solution["problem"]
    return {
        "domain": problem["domain"],
        "problem": shorten(problem["statement"]),
        "answer": shorten(row["final_answer"]),
        "checked by": row["method"],
        "thinking": shorten(solution["thinking"]),
        "level": problem["level"],
        "concepts": _join(problem["concepts"]),
    }


def _describe_training_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "domain": row["domain"],
        "source": row["source"],
        "question": shorten(row["question"]),
        "completion": shorten(row["completion"][-1]["content"]),
        "tokens": row["num_tokens"],
    }


def _describe_triple(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "domain": row["domain"],
        "problem": shorten(row["problem"]),
        "rationale": shorten(row["rationale"]),
        "score": f"{row['score']:.2f}" if row["score"] is not None else "",
        "mean of drawn": f"{row['mean_score']:.2f}" if row["mean_score"] is not None else "",
        "level": row["level"],
        "concepts": _join(row["concepts"]),
    }


def _describe_answer(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "benchmark": row["benchmark"],
        "question": shorten(row["question"]),
        "expected": shorten(row["gold"] if row["gold"] is not None else "tests"),
        "answered": shorten(row["extracted"] if row["extracted"] is not None else row["text"]),
        "correct": "yes" if row["correct"] else "no",
        "why not": "" if row["correct"] else str(row["reason"] or "").replace("_", " "),
    }


def _join(words: Iterable[str]) -> str:
    return shorten(", ".join(words))
