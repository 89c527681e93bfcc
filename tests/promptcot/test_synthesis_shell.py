"""Synthesis on a scripted teacher from the command line: estimates, figures, seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripted_synthesis import SCRIPT, make_recipe

from pipeline import console
from pipeline.cli import exit_code_of
from pipeline.manifest import Version, resolve_version
from promptcot.__main__ import app
from promptcot.stage_names import STAGES


def test_estimates_write_nothing_and_know_the_measured_speed(
    undisturbed: tuple[Path, dict[str, Version]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_recipe(tmp_path)
    recipe = str(tmp_path / "tiny.toml")
    args = ["run", "--recipe", recipe, "--out", str(tmp_path / "none"), "--dry-run", "--json"]
    assert exit_code_of(app, "python -m promptcot", args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["requests"] == 24 + 24 + 96 + 6
    assert found["seconds"] is None
    assert not (tmp_path / "none").exists()
    args = ["estimate", "--recipe", recipe, "--out", str(undisturbed[0]), "--json"]
    assert exit_code_of(app, "python -m promptcot", args) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] > 0


def test_command_reports_the_funnel_as_json(
    undisturbed: tuple[Path, dict[str, Version]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_recipe(tmp_path)
    args = ["run", "--recipe", str(tmp_path / "tiny.toml"), "--out", str(undisturbed[0]), "--json"]
    assert exit_code_of(app, "python -m promptcot", args) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == sorted(STAGES)
    name = resolve_version(undisturbed[0] / "synthesis" / "verified").name
    assert found["verified"]["version"] == name
    assert found["verified"]["reused"] is True


SEED_PROBLEMS = [
    "A baker sells 12 loaves each morning and 9 each afternoon. How many loaves are sold in a week of six days?",
    "A train of 14 wagons carries 8 crates in every wagon. After 30 crates are unloaded, how many are left?",
    "Find the remainder when the sum of the first 40 odd numbers is divided by 7.",
    "Equal numbers of red and blue beads fill 6 bags of 18 beads each. How many red beads are there in all?",
]
NAMED = [
    '{"concepts": ["multiplication", "Addition", "word problems", "rates", "weeks and days"], "level": "AIME"}',
    '{"concepts": ["multiplication", "subtraction", "equal groups", "order of operations", "estimation"], "level": "AMC12"}',
    '{"concepts": ["modular arithmetic", "sums of odd numbers", "division", "remainders", "arithmetic series"], "level": "AIME"}',
    '{"concepts": ["equal groups", "division", "addition", "ratios", "linear equations"], "level": "AMC12"}',
]


def test_a_recipe_with_seeds_makes_its_bank_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = [
        {"match": problem, "text": reply}
        for problem, reply in zip(SEED_PROBLEMS, NAMED, strict=True)
    ]
    # A seed is also an example in the prompts for problems, and those come first.
    make_recipe(tmp_path, script=[*SCRIPT, *script])
    lines = [json.dumps({"question": problem, "no": n}) for n, problem in enumerate(SEED_PROBLEMS)]
    (tmp_path / "contest.jsonl").write_text("\n".join(lines), encoding="utf-8")
    small = "synthesis.combinations={num_combinations = 4, size = 3}"
    args = ["--recipe", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "out"), "--json"]
    args += ["--set", small]
    seeds = ["--seeds", str(tmp_path / "contest.jsonl"), "--domain", "math"]
    assert exit_code_of(app, "python -m promptcot", ["concepts", *args, *seeds]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["extracted"]["rows_out"] == found["concepts"]["rows_out"] == 4
    # What it says to pass to later stages is what they take.
    again = shown.err.split("--set '")[1].split("'\n")[0]
    console.reset()
    assert exit_code_of(app, "python -m promptcot", ["run", *args, "--set", again]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"extracted", "concepts", *STAGES}
    assert found["concepts"]["reused"]
    assert found["verified"]["rows_out"] > 0
    version = resolve_version(tmp_path / "out" / "synthesis" / "combinations")
    used = {concept for row in version.rows() for concept in row["concepts"]}
    named = {c.lower() for reply in NAMED for c in json.loads(reply)["concepts"]}
    assert {concept.lower() for concept in used} <= named
    # "Addition" and "addition" are one concept.
    assert len({concept.lower() for concept in used}) == len(used)
