"""The command line: scores as JSON, answer files of any model, errors with their exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation import answer_files
from evaluation.__main__ import app
from pipeline import console
from pipeline.cli import exit_code_of
from pipeline.settings.recipe import Recipe
from promptcot.verification.sandbox import find_sandbox

needs_sandbox = pytest.mark.skipif(
    find_sandbox() is None, reason="bubblewrap does not work on this machine"
)


@pytest.fixture(autouse=True)
def fresh_console() -> Iterator[None]:
    console.reset()
    yield
    console.reset()


def call(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    console.reset()
    code = exit_code_of(app, "python -m evaluation", [str(part) for part in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def grade(
    capsys: pytest.CaptureFixture[str], recipe: Recipe, rows: list[Any], benchmark: str = "sums"
) -> tuple[int, dict[str, Any], str]:
    path = recipe.path.parent / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    code, out, err = call(
        capsys,
        *("grade", "--benchmark", benchmark, "--answers", path),
        *("--recipe", recipe.path, "--json"),
    )
    return code, json.loads(out) if out else {}, err


def test_answers_of_any_model_are_graded_one_by_one(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": "s0", "answer": r"<think>\boxed{9}</think> It is \boxed{1}."},
        {"id": "s1", "answer": r"\boxed{7}"},
    ]
    code, report, _ = grade(capsys, recipe, rows)
    assert code == 0
    assert [(v["id"], v["reason"]) for v in report["verdicts"]] == [
        ("s0", "correct"),
        ("s1", "wrong"),
        ("s2", "missing"),
    ]
    assert report["num_missing"] == 1
    assert report["scores"]["avg_at_k"] == pytest.approx(1 / 3)
    assert report["scores"]["reasons"] == {"correct": 1, "missing": 1, "wrong": 1}


def test_a_thought_that_was_cut_off_is_told_apart(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": "s0", "answer": r"<think>so it is \boxed{1}"},
        {"id": "s1", "answer": "<think>x</think> It is", "finish_reason": "length"},
        {"id": "s2", "answer": "<think>x</think> I do not know.", "finish_reason": "stop"},
    ]
    code, report, err = grade(capsys, recipe, rows)
    reasons = [verdict["reason"] for verdict in report["verdicts"]]
    assert (code, reasons) == (0, ["truncated", "truncated", "no_answer"])
    assert report["scores"]["truncated_rate"] == pytest.approx(2 / 3)
    assert "s0: truncated" in err


def test_a_file_is_graded_in_pieces(
    recipe: Recipe, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_files, "_PIECE_ROWS", 2)
    monkeypatch.setattr(answer_files, "_PIECE_CHARS", 40)
    rows = [
        {"id": f"s{n}", "sample": k, "answer": " " * 15 * k + rf"\boxed{{{n + 1}}}"}
        for k in range(3)
        for n in range(3)
    ]
    code, report, _ = grade(capsys, recipe, rows)
    assert (code, report["scores"]["avg_at_k"], len(report["verdicts"])) == (0, 1.0, 9)
    assert [v["id"] for v in report["verdicts"]] == ["s0", "s1", "s2"] * 3


def test_the_papers_benchmarks_are_known_to_every_recipe(
    recipe: Recipe,
    shared_data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROMPTCOT_BENCHMARKS", str(shared_data / "benchmarks"))
    items = answer_files.load_items(recipe, "aime24")
    rows = [
        {"id": item.id, "answer": rf"<think>\boxed{{0}}</think>\boxed{{{item.gold.text}}}"}
        for item in items
        if item.gold
    ]
    code, report, _ = grade(capsys, recipe, rows, "aime24")
    assert (code, report["num_items"], report["scores"]["avg_at_k"]) == (0, 30, 1.0)


def test_several_samples_of_an_item_are_numbered(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": f"s{n}", "sample": sample, "answer": rf"\boxed{{{n + sample}}}"}
        for n in range(3)
        for sample in (1, 2)
    ]
    code, report, _ = grade(capsys, recipe, rows)
    assert (code, report["scores"]["samples_per_item"]) == (0, 2)
    assert (report["scores"]["avg_at_k"], report["scores"]["pass_at_k"]) == (0.5, 1.0)


@needs_sandbox
def test_programs_are_run_and_a_file_is_a_benchmark_too(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": "p0", "answer": "```python\nprint(4)\n```"}]
    file = str(recipe.path.parent / "programs.jsonl")
    code, report, err = grade(capsys, recipe, rows, file)
    assert code == 0
    assert report["verdicts"][0]["reason"] == "tests_failed"
    assert "expected '10', got '4'" in err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "zz", "answer": "1"}], "row 1: the benchmark has no item 'zz'"),
        ([{"id": "s0", "answer": "1"}] * 2, "row 2: id 's0' was answered by row 1"),
        ([{"id": "s0", "text": "1"}], "row 1: no field 'answer'; it has id, text"),
        ([{"id": "s0", "answer": 1}], "row 1: 'answer' should be a text"),
        ([], "has no rows"),
    ],
)
def test_a_wrong_answer_file_is_the_users_mistake(
    recipe: Recipe, capsys: pytest.CaptureFixture[str], rows: list[Any], message: str
) -> None:
    code, report, err = grade(capsys, recipe, rows)
    assert (code, report) == (2, {})
    assert message in err
    assert "remedy:" in err


def test_half_a_character_in_an_answer_is_graded_and_told(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report, _ = grade(capsys, recipe, [{"id": "s0", "answer": "\\boxed{\ud83d}"}])
    assert code == 0
    assert (report["verdicts"][0]["extracted"], report["verdicts"][0]["correct"]) == (
        "\ud83d",
        False,
    )


def test_an_unknown_benchmark_names_the_known_ones(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = grade(capsys, recipe, [], "nonesuch")
    assert code == 2
    assert "use one of sums, programs" in err


@needs_sandbox
def test_run_prints_one_json_object_with_the_scores(
    recipe: Recipe, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(checkpoint, out / "checkpoints" / "phase-1")
    options = ("run", "--recipe", recipe.path, "--out", out, "--json")
    code, text, _ = call(capsys, *options, "--dry-run")
    assert (code, json.loads(text)["answers_per_checkpoint"]) == (0, 8)
    assert not (out / "evaluation").exists()
    code, text, err = call(capsys, *options)
    (result,) = json.loads(text)["evaluations"]
    assert code == 0
    assert (result["checkpoint"], result["rows_in"], result["rows_out"]) == ("phase-1", 8, 8)
    assert [score["benchmark"] for score in result["scores"]] == ["sums", "programs"]
    assert "recipe tiny" in err
    assert (out / "evaluation" / "phase-1" / "LATEST").read_text().strip() == result["version"]


def test_run_without_a_checkpoint_says_how_to_get_one(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "run", "--recipe", recipe.path, "--out", tmp_path / "none")
    assert code == 2
    assert "python -m trainer.sft --phase 1" in err
    (tmp_path / "empty").mkdir()
    code, _, err = call(capsys, "run", "--recipe", recipe.path, "--checkpoint", tmp_path / "empty")
    assert code == 2
    assert "holds no model" in err
