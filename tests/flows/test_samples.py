"""Sample tables: rows of every kind of version as short texts, spread over the version."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.artifacts import describe_card, describe_config, describe_funnel_row, describe_score
from flows.samples import MAX_ROWS, sample_rows, shorten
from pipeline.settings.recipe import load_recipe

ANSWER = {
    "benchmark": "demo-math",
    "question": "What is 1 + 1?",
    "gold": "2",
    "text": "three",
    "extracted": None,
    "correct": False,
    "reason": "no_answer",
}


def version(rows: list[dict[str, Any]]) -> Any:
    return SimpleNamespace(
        folder=Path("runs/demo/x"),
        manifest=SimpleNamespace(rows_out=len(rows)),
        rows=lambda: iter(rows),
    )


@pytest.mark.parametrize(("num_rows", "shown"), [(0, 0), (3, 3), (10, 10), (57, 10), (5000, 10)])
def test_a_sample_is_spread_over_the_version(num_rows: int, shown: int) -> None:
    rows = sample_rows(version([{**ANSWER, "question": f"q{n}"} for n in range(num_rows)]))
    assert len(rows) == shown <= MAX_ROWS
    assert len({row["question"] for row in rows}) == shown
    if num_rows == 57:
        assert rows[-1]["question"] == "q45"


def test_a_wrong_answer_says_why() -> None:
    (row,) = sample_rows(version([ANSWER]))
    assert row["answered"] == "three"
    assert (row["correct"], row["why not"]) == ("no", "no answer")


def test_long_texts_are_one_short_line() -> None:
    assert shorten("a\n b") == "a b"
    assert len(shorten("word " * 100)) == 100
    assert shorten("word " * 100).endswith("…")


def test_the_config_names_relaxed_gates_and_keys_as_set_takes_them() -> None:
    page = describe_config(
        load_recipe("demo", ["synthesis.verification.minimum_votes=1"]), Path("runs/demo")
    )
    assert "## Gates that this recipe relaxes" in page
    assert "| `synthesis.verification.minimum_votes` | `1` |" in page
    assert "| `benchmarks.0.name` | `demo-math` |" in page


def test_a_card_loses_the_hubs_front_matter_only() -> None:
    page = describe_card(version([]), "---\nlicense: mit\n---\n# Card\n\n---\nend\n")
    assert "license" not in page
    assert "# Card\n\n---\nend" in page


def test_a_funnel_row_has_one_reason_with_its_count() -> None:
    stage = {"stage": "Problems", "unit": "problems", "in": 64, "out": 50, "rejected": 14}
    row = describe_funnel_row({**stage, "reasons": {"truncated": 11, "copies example": 3}})
    assert row["top reason"] == "truncated 11"
    assert describe_funnel_row({**stage, "reasons": {}})["top reason"] == "none"


def test_a_score_has_its_interval() -> None:
    score = {
        "benchmark": "demo-math",
        "checkpoint": "phase-1",
        "samples_per_item": 4,
        "avg_at_k": 0.125,
        "interval": [0.02, 0.3],
        "num_items": 16,
        "truncated_rate": 0.5,
    }
    row = describe_score(score)
    assert row["avg@4"] == "12.5%"
    assert row["interval"] == "2.0% to 30.0%"


def test_a_triple_shows_its_score_if_it_has_one() -> None:
    triple = {
        "domain": "math", "problem": "How many?", "rationale": "Count.", "level": "AIME",
        "concepts": ["counting", "sets"], "score": -12.345, "mean_score": -20.0,
        "prompt": "p", "completion": "c",
    }  # fmt: skip
    scored, plain = sample_rows(version([triple, {**triple, "score": None, "mean_score": None}]))
    assert (scored["score"], scored["mean of drawn"]) == ("-12.35", "-20.00")
    assert scored["concepts"] == "counting, sets"
    assert plain["score"] == ""
