"""The verbs of ``python -m promptcot``: help, refusals that say what to do, and what they print."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import synthesis_fixture as fixture
from scripted_synthesis import make_recipe

from pipeline import console
from pipeline.cli import exit_code_of
from pipeline.errors import ConfigError
from pipeline.settings.recipe import load_recipe
from promptcot.__main__ import app
from promptcot.commands import seed_override

VERBS = [
    "run",
    "estimate",
    "concepts",
    "combinations",
    "problems",
    "distinct",
    "judge",
    "solve",
    "verify",
    "triples",
    "refine",
    "calibrate",
    "ledger",
    "report",
]


@pytest.fixture(autouse=True)
def fresh_console() -> None:
    console.reset()


def call(*args: str) -> int:
    return exit_code_of(app, "python -m promptcot", args)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(verb, "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Example: python -m promptcot {verb}" in shown
    for option in ("--recipe", "--set", "--out", "--json"):
        assert option in shown


def test_help_comes_at_once() -> None:
    command = [sys.executable, "-m", "promptcot", "--help"]
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert all(f"  {verb} " in shown for verb in VERBS)
    # The processor's time: this machine may be busy with other tests.
    assert min(times) < 0.5


def test_concepts_without_seeds_says_what_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_recipe(tmp_path)
    out = tmp_path / "out"
    assert call("concepts", "--recipe", str(tmp_path / "tiny.toml"), "--out", str(out)) == 2
    shown = capsys.readouterr().err
    assert "names no seed problems" in shown
    assert "concepts --seeds FILE" in shown
    assert not out.exists()


def test_seed_files_are_added_to_those_of_the_recipe(tmp_path: Path) -> None:
    recipe = fixture.write_recipe(tmp_path)
    names = ["contest.jsonl", 'odd "name" é.jsonl.gz']
    for name in names:
        (tmp_path / name).write_text("{}\n", encoding="utf-8")
    files = [tmp_path / name for name in names]
    override = seed_override(
        recipe, files, columns=["problem=question", "level=Level of it"], domain="math"
    )
    seeds = load_recipe(str(recipe.path), [override]).settings.synthesis.seeds
    assert [source.name for source in seeds] == ["contest", "contest-2", 'odd "name" é']
    assert seeds[0] == recipe.settings.synthesis.seeds[0]
    for source, path in zip(seeds[1:], files, strict=True):
        assert Path(source.path) == path
        assert source.columns == {"problem": "question", "level": "Level of it"}
        assert source.domain == "math"


@pytest.mark.parametrize(
    ("columns", "file", "message"),
    [
        (["problem"], "there.jsonl", "is not field=column"),
        ([], "nowhere.jsonl", "no such file"),
    ],
)
def test_wrong_seed_options_are_named(
    tmp_path: Path, columns: list[str], file: str, message: str
) -> None:
    recipe = fixture.write_recipe(tmp_path)
    (tmp_path / "there.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        seed_override(recipe, [tmp_path / file], columns=columns)


def test_the_ledger_counts_each_answer_once_and_per_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = fixture.write_recipe(tmp_path)
    fixture.build_run(tmp_path / "run")
    capsys.readouterr()
    args = ("--recipe", str(recipe.path), "--out", str(tmp_path / "run"))
    assert call("ledger", *args, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    judged = found["stages"]["judged"]
    assert judged["requests"] == 180
    assert judged["completion_tokens"] == 90 * 300 + 90 * 280
    assert judged["per_accepted_row"]["completion_tokens"] == judged["completion_tokens"] / 60
    # Only the first judge has a price.
    assert judged["usd"] == pytest.approx((90 * 400 * 0.4 + 90 * 300 * 1.6) / 1e6)
    assert judged["gpu_hours"] == pytest.approx(90 * 300 / 900 / 3600 * 4)
    # Requests for tests are part of verification.
    assert found["stages"]["verified"]["requests"] == 22
    assert found["total"]["requests"] == sum(s["requests"] for s in found["stages"].values())
    assert found["total"]["per_accepted_row"]["usd"] == pytest.approx(found["total"]["usd"] / 60)
    console.reset()
    assert call("ledger", *args) == 0
    assert "Cost per accepted row, and per verified trace" in capsys.readouterr().out


def test_a_ledger_of_nothing_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = fixture.write_recipe(tmp_path)
    out = tmp_path / "none"
    assert call("ledger", "--recipe", str(recipe.path), "--out", str(out), "--json") == 0
    assert json.loads(capsys.readouterr().out)["total"]["requests"] == 0
    assert not out.exists()


def test_the_report_is_written_where_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = fixture.write_recipe(tmp_path)
    fixture.build_run(tmp_path / "run")
    args = ("report", "--recipe", str(recipe.path), "--out", str(tmp_path / "run"), "--json")
    capsys.readouterr()
    assert call(*args, "--dry-run") == 0
    path = Path(json.loads(capsys.readouterr().out)["path"])
    assert not path.exists()
    console.reset()
    assert call(*args) == 0
    assert path.is_file()


@pytest.mark.parametrize("verb", ["triples", "refine", "distinct"])
def test_a_dry_run_tells_the_bounds_and_writes_nothing(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_recipe(tmp_path)
    out = tmp_path / "out"
    args = (verb, "--recipe", str(tmp_path / "tiny.toml"), "--out", str(out), "--dry-run", "--json")
    assert call(*args) == 0
    found = json.loads(capsys.readouterr().out)
    assert [stage["stage"] for stage in found["stages"]] == [verb]
    assert (found["requests"] > 0) == (verb != "distinct")
    assert not out.exists()
