"""``python -m evaluation benchmarks`` shows what each benchmark is, and fails where one is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.__main__ import app
from pipeline import console
from pipeline.cli import exit_code_of
from pipeline.errors import EXIT_GATE, EXIT_OK, EXIT_USER
from pipeline.settings.recipe import Recipe


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMPTCOT_BENCHMARKS", raising=False)


def call(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    console.reset()
    code = exit_code_of(app, "python -m evaluation", ["benchmarks", *map(str, argv)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_each_benchmark_is_shown_with_its_items_and_hash(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "--recipe", recipe.path, "--json")
    assert code == EXIT_OK
    sums, programs = json.loads(out)["benchmarks"]
    assert (sums["num_items"], sums["grader"], sums["hash"]) == (3, "math", "not recorded")
    assert (programs["num_items"], programs["grader"]) == (1, "stdin")
    assert (sums["samples_per_item"], sums["source"]) == (2, "sums.jsonl")
    pinned = f"benchmarks.0.content_sha256={sums['content_sha256']}"
    code, out, _ = call(capsys, "--recipe", recipe.path, "--json", "--set", pinned)
    assert code == EXIT_OK
    assert json.loads(out)["benchmarks"][0]["hash"] == "ok"


def test_a_changed_or_missing_one_fails_and_the_others_are_still_shown(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["--set", f"benchmarks.0.content_sha256={'0' * 64}"]
    code, out, err = call(capsys, "--recipe", recipe.path, "--json", *wrong)
    assert code == EXIT_GATE
    assert "the recipe expects 0000" in err
    sums, programs = json.loads(out)["benchmarks"]
    assert "content hash" in sums["problem"]
    assert (programs["num_items"], programs["problem"]) == (1, "")
    (recipe.path.parent / "programs.jsonl").unlink()
    code, out, err = call(capsys, "--recipe", recipe.path)
    assert code == EXIT_USER
    assert "benchmark 'programs': file not found" in err
    assert "not found" in out


def test_the_papers_benchmarks_are_shown_with_what_is_missing(
    shared_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTCOT_BENCHMARKS", str(shared_data / "benchmarks"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, out, err = call(capsys, "--recipe", "paper", "--json")
    assert code == EXIT_USER
    assert "livecodebench_v5/ with test.jsonl" in err
    found = {entry["name"]: entry for entry in json.loads(out)["benchmarks"]}
    good = {name: entry["num_items"] for name, entry in found.items() if entry["hash"] == "ok"}
    assert good == {
        "math500": 500,
        "aime24": 30,
        "aime25": 30,
        "olympiadbench": 675,
        "humaneval": 164,
        "humaneval_plus": 164,
    }
    missing = found["livecodebench_v5"]
    assert missing["questions_at"].endswith("livecodebench_v5_qwq.jsonl")
    assert all(entry["licence"] for entry in found.values())
