"""A judge's word on nearest items: only a clear no clears a row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curriculum.decontaminating import add_judgements, decontaminate_file
from curriculum.semantic_items import ItemJudge, judge_nearest_items, read_verdict
from pipeline.contamination import ItemText
from pipeline.errors import ConfigError
from pipeline.settings import load_recipe
from pipeline.settings.recipe import Recipe
from promptcot.engines.protocol import Answer

ITEM = "A gardener plants 24 tulips in equal rows of 6. How many rows are there?"
RECIPE = """
name = "judged"
seed = 1
[teachers.default]
engine = "scripted"
script = "script.jsonl"
"""
SCRIPT = [
    {"match": "sailor", "text": "Other story, same sum.\nSame problem: yes"},
    {"match": "harbour", "text": "I cannot tell."},
    {"match": "Problem 2", "text": "Nothing alike.\n**Same problem: no**"},
]
ROWS = [
    {"id": "a", "text": "A sailor ties 24 knots, always 6 on a rope. How many ropes are tied?"},
    {"id": "b", "text": "A harbour has many ships."},
    {"id": "c", "text": "Name the capital of a country."},
    {"id": "d", "text": ITEM},
]


def make_recipe(folder: Path) -> Recipe:
    lines = "".join(json.dumps(row) + "\n" for row in SCRIPT)
    (folder / "script.jsonl").write_text(lines, encoding="utf-8")
    (folder / "judged.toml").write_text(RECIPE, encoding="utf-8")
    return load_recipe(str(folder / "judged.toml"))


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_what_no_rule_sees_is_flagged_by_the_judge(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    rows = write(tmp_path / "rows.jsonl", ROWS)
    items = write(tmp_path / "bench.jsonl", [{"id": "i", "question": ITEM}])
    report = decontaminate_file(recipe, rows, items)
    assert report["flagged_ids"] == ["d"]
    assert report["per_benchmark"] == {
        "bench": {"items": 1, "rows_flagged": 1, "template_twins": 0}
    }
    out = tmp_path / "out"
    add_judgements(report, rows, items, ItemJudge(recipe, "default", out))
    # What a rule flagged is not asked about; a reply without a verdict counts against the row.
    assert report["judged_pairs"] == 3
    assert [(m["text_id"], m["verdict"]) for m in report["judged"]] == [
        ("a", "yes"),
        ("b", "unclear"),
    ]
    assert report["flagged_ids"] == ["d", "a", "b"]


def test_the_nearest_items_are_asked_about(tmp_path: Path) -> None:
    items = [
        ItemText("b", "near", ITEM),
        ItemText("b", "far", "Prove that the square root of 2 is irrational."),
    ]
    texts = [("t", "A gardener plants 30 tulips in equal rows. How many rows are there?")]
    (match,) = judge_nearest_items(
        texts, items, ItemJudge(make_recipe(tmp_path), "default", tmp_path, nearest=1)
    )
    assert (match.item_id, match.verdict, match.is_contamination) == ("near", "no", False)
    assert match.cosine > 0.5


def test_an_unknown_judge_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no teacher 'nobody'"):
        judge_nearest_items([], [], ItemJudge(make_recipe(tmp_path), "nobody", tmp_path))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Same problem: yes", "yes"),
        ("so\n> Same problem: NO.", "no"),
        ("Same problem: yes\nWait.\nSame problem: no", "unclear"),
        ("It is not the same problem: yes and no", "unclear"),
        ("", "unclear"),
    ],
)
def test_verdicts_fail_closed(text: str, verdict: str) -> None:
    answer = Answer(text=text, finish_reason="stop", num_prompt_tokens=1, num_completion_tokens=1)
    assert read_verdict(answer) == verdict
