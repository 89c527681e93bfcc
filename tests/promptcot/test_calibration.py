"""Judges scored against a person's labels: figures, intervals, files, and bad label rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import promptcot
from pipeline import console
from pipeline.cli import exit_code_of
from pipeline.errors import SourceError
from pipeline.records import Rating
from pipeline.settings.concepts import CODE_LEVELS, MATH_LEVELS
from pipeline.settings.judging import JudgingSettings
from pipeline.settings.recipe import load_recipe
from promptcot.__main__ import app
from promptcot.calibration import calibrate, read_labels
from promptcot.calibration_report import Share, score_judge, score_panel
from promptcot.engines.ledger import read_ledger
from promptcot.panel import Opinion, Vote, decide
from promptcot.parsing import Defect
from promptcot.ratings import CRITERIA, Ratings
from promptcot.run_context import SynthesisRun

SAMPLE = Path(promptcot.__path__[0]) / "data" / "labelled_problems.jsonl"
ROW = {
    "id": "a",
    "problem": "What is 2 + 2?",
    "concepts": ["addition"],
    "level": "AMC12",
    "domain": "math",
    "label": "bad",
}
RECIPE = """
name = "scored"
[teachers.default]
engine = "scripted"
script = "script.jsonl"
"""


def reply(verdict: str) -> str:
    return "\n".join([f"{name}: {verdict}" for name in CRITERIA])


def open_run(folder: Path, script: Sequence[dict[str, Any]], *overrides: str) -> SynthesisRun:
    lines = [json.dumps(row) + "\n" for row in script]
    (folder / "script.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "scored.toml").write_text(RECIPE, encoding="utf-8")
    return SynthesisRun(load_recipe(str(folder / "scored.toml"), overrides), folder / "out")


def opinion(*verdicts: str | None, settings: JudgingSettings | None = None) -> Opinion:
    votes = tuple(
        Vote(
            judge=f"j{position}",
            model="m",
            number=0,
            ratings=Defect("judge_empty", "")
            if verdict is None
            else Ratings(dict.fromkeys(CRITERIA.values(), Rating(verdict)), None),
            prompt_hash="",
            seed=0,
        )
        for position, verdict in enumerate(verdicts)
    )
    return Opinion(votes, decide(votes, settings or JudgingSettings()))


P, A, B = Rating.PERFECT, Rating.ACCEPTABLE, Rating.BAD


def test_scores_by_hand() -> None:
    labels = [P, P, P, A, B, B]
    opinions = [
        opinion("perfect", "perfect"),
        opinion("perfect", "acceptable"),
        opinion("bad", "perfect"),
        opinion("perfect", "perfect"),
        opinion("bad", "bad"),
        opinion(None, "perfect"),
    ]
    first = score_judge("j0", labels, opinions)
    assert (first.precision.hits, first.precision.total) == (2, 3)
    assert (first.recall.hits, first.recall.total) == (2, 3)
    assert first.num_unreadable == 1
    assert first.confusion["bad"] == {"perfect": 0, "acceptable": 0, "bad": 1, "unreadable": 1}
    assert first.kappa.num_items == 5
    second = score_judge("j1", labels, opinions)
    assert (second.precision.hits, second.precision.total) == (2, 4)
    panel = score_panel(labels, opinions, JudgingSettings())
    assert (panel.precision.hits, panel.precision.total) == (1, 2)
    assert (panel.recall.hits, panel.recall.total) == (1, 3)
    assert panel.confusion["perfect"] == {
        "perfect": 1,
        "acceptable": 1,
        "bad": 1,
        "unreadable": 0,
    }
    assert panel.num_unreadable == 1


def test_panel_is_scored_by_what_the_recipe_keeps() -> None:
    settings = JudgingSettings(minimum_verdict="acceptable")
    labels = [P, A, B]
    opinions = [opinion("acceptable", settings=settings)] * 3
    panel = score_panel(labels, opinions, settings)
    assert (panel.precision.hits, panel.precision.total) == (2, 3)
    # A judge is scored at "perfect" all the same, and said it never.
    assert score_judge("j0", labels, opinions).precision.value is None


def test_share_of_nothing_has_no_value_and_the_widest_interval() -> None:
    nothing = Share(0, 0)
    assert (nothing.value, nothing.low, nothing.high) == (None, 0.0, 1.0)
    json.dumps(nothing.as_json(), allow_nan=False)
    # Twelve of twelve is no certainty.
    assert Share(12, 12).low == pytest.approx(0.7575, abs=1e-4)


def test_bundled_sample_is_sound() -> None:
    rows = read_labels(SAMPLE)
    labels = Counter(row.label for row in rows)
    assert len(rows) >= 24
    assert min(labels.values()) >= 5
    assert {row.domain for row in rows} == {"math", "code"}
    assert {row.level for row in rows} <= {*MATH_LEVELS, *CODE_LEVELS}
    assert all(row.note for row in rows)


def test_report_on_the_bundled_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read_labels(SAMPLE)
    # A judge that sees the planted contradiction and the missing speeds, and nothing else.
    script = [
        {"match": "3, 4 and 9", "text": reply("Bad")},
        {"match": "The towns are 300 km apart", "text": reply("Acceptable")},
        {"match": "ladder", "text": "no idea"},
        {"match": "", "text": reply("Perfect")},
    ]
    console.reset()
    with open_run(tmp_path, script, "synthesis.judging.judges=[{votes=2}]") as run:
        report = calibrate(run, SAMPLE)
    report.show()
    assert "labelled_problems.jsonl" in capsys.readouterr().out
    console.reset()
    panel = report.panel
    good = sum(row.label is P for row in rows)
    assert (panel.recall.hits, panel.recall.total) == (good, good)
    assert panel.precision.total == len(rows) - 3
    # Hardly better than keeping everything, and the report says what that would give.
    assert report.base_rate.value == good / len(rows)
    assert report.judges[0].num_ratings == 2 * len(rows)
    assert report.judges[0].num_unreadable == 2
    assert panel.num_unreadable == 1
    stored = json.loads((tmp_path / "out/calibration/report.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(report.as_json()))
    assert str(tmp_path) not in json.dumps(stored)
    said = [
        json.loads(line)
        for line in (tmp_path / "out/calibration/verdicts.jsonl").read_text().splitlines()
    ]
    found = next(row for row in said if row["id"] == "impossible-triangle")
    assert (found["kept"], found["refused_because"], found["label"]) == (
        False,
        "verdict_bad",
        "bad",
    )
    assert [vote["verdict"] for vote in found["votes"]] == ["bad", "bad"]


def test_answers_are_paid_once_and_edited_problems_anew(tmp_path: Path) -> None:
    labels = tmp_path / "mine.jsonl"
    labels.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    script = [{"match": "", "text": reply("Bad")}]
    with open_run(tmp_path, script) as run:
        first = calibrate(run, labels)
    # Another name and label ask nothing new.
    labels.write_text(json.dumps(ROW | {"id": "b", "label": "perfect"}) + "\n", encoding="utf-8")
    with open_run(tmp_path, script) as run:
        second = calibrate(run, labels)
    assert second.panel.confusion["perfect"]["bad"] == 1
    assert first.panel.confusion["bad"]["bad"] == 1
    (line,) = read_ledger(tmp_path / "out")
    assert (line.stage, line.requests) == ("calibration", 1)
    edited = ROW | {"problem": "What is 2 + 3?"}
    labels.write_text(json.dumps(edited) + "\n", encoding="utf-8")
    with open_run(tmp_path, script) as run:
        calibrate(run, labels)
    assert read_ledger(tmp_path / "out")[0].requests == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({k: v for k, v in ROW.items() if k != "label"}, "line 2, label: Field required"),
        (ROW | {"label": "good"}, "line 2, label: Input should be 'perfect'"),
        (ROW | {"domain": "physics"}, "line 2, domain"),
        (ROW | {"concepts": []}, "line 2, concepts"),
        (ROW | {"concepts": "addition"}, "line 2, concepts"),
        (ROW | {"problem": ""}, "line 2, problem"),
        (ROW | {"answer": 4}, "line 2, answer: Extra inputs"),
        (ROW | {"id": "first"}, "line 2, id: 'first' stands in line 1 too"),
        ("{not json", "line 2, the whole line: Invalid JSON"),
        ([1], "line 2, the whole line"),
    ],
)
def test_bad_row_is_named_by_file_line_and_field(tmp_path: Path, line: Any, words: str) -> None:
    path = tmp_path / "mine.jsonl"
    text = line if isinstance(line, str) else json.dumps(line)
    path.write_text(json.dumps(ROW | {"id": "first"}) + f"\n{text}\n", encoding="utf-8")
    with pytest.raises(SourceError) as e:
        read_labels(path)
    assert f"{path}, {words}" in str(e.value)


def test_file_without_rows_or_text_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n", encoding="utf-8")
    with pytest.raises(SourceError, match="no labelled problem"):
        read_labels(empty)
    empty.write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError, match="cannot be read"):
        read_labels(empty)
    with pytest.raises(SourceError, match="cannot be read"):
        read_labels(tmp_path / "none.jsonl")


def test_command_scores_the_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_run(tmp_path, [{"match": "", "text": reply("Perfect")}])
    console.reset()
    args = ["calibrate", "--recipe", str(tmp_path / "scored.toml"), "--out", str(tmp_path / "out")]
    args += ["--labels", str(SAMPLE), "--json"]
    assert exit_code_of(app, "python -m promptcot", args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["panel"]["recall"]["value"] == 1.0
    assert found["panel"]["precision"]["total"] == found["num_problems"]
    console.reset()
