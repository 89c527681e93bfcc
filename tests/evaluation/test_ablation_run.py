"""Ablations from recipe to table: real datasets, training and evaluation, as tiny as they get."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import polars
import pytest
from conftest import write_lines

from evaluation.__main__ import app
from evaluation.ablation_plan import list_arms, read_options
from evaluation.ablation_results import read_runs
from evaluation.ablation_run import prepare_runs, run_ablations
from pipeline import console
from pipeline.cli import exit_code_of
from pipeline.errors import ConfigError, GateRefused, PipelineError, StoreError
from pipeline.manifest import resolve_version
from pipeline.settings.recipe import RECIPES, Recipe, load_recipe

DATA = RECIPES.parent / "curriculum" / "data"
RECIPE = f"""
name = "tiny-ablations"

[[benchmarks]]
name = "sums"
path = "sums.jsonl"
domain = "math"

[model]
hidden_size = 16
num_hidden_layers = 1
head_dim = 16
state_size = 8
n_groups = 2
chunk_size = 32
tie_word_embeddings = true

[training]
learning_rate = 3e-3
warmup_steps = 1
documents_per_step = 6
precision = "float32"
activation = "none"
num_threads = 1
tokenise_workers = 1
[training.phases.1]
max_length = 160
[training.phases.2]
max_length = 160

[[curriculum.sources]]
name = "open-code-reasoning"
kind = "open_code_reasoning"
paths = ["{DATA}/open_code_reasoning_split_0.parquet"]
licence = "cc-by-4.0"
[[curriculum.sources]]
name = "open-thoughts2"
kind = "open_thoughts2"
paths = ["{DATA}/open_thoughts2.parquet"]
licence = "apache-2.0"
[[curriculum.sources]]
name = "promptcot"
kind = "mapping"
paths = ["promptcot.jsonl"]
licence = "apache-2.0"
domain = "math"
mapping = {{ question = "question", thinking = "thinking", answer = "answer" }}

[curriculum]
num_workers = 1
[curriculum.phases.1]
sources = [{{ source = "open-code-reasoning", cap_rows = 12 }}, {{ source = "open-thoughts2", cap_rows = 24 }}]
max_tokens = 160
[curriculum.phases.1.variants]
no-open-thoughts2 = {{ without = ["open-thoughts2"] }}
[curriculum.phases.2]
sources = [{{ source = "promptcot" }}]
max_tokens = 160
[curriculum.phases.2.variants.no-promptcot]
sources = [{{ source = "open-code-reasoning", cap_rows = 12 }}, {{ source = "open-thoughts2", cap_rows = 24 }}]

[evaluation]
samples_per_item = 2
max_new_tokens = 4
batch_size = 8
num_threads = 1
bootstrap_samples = 100

[ablations]
seeds = [0, 1]
[ablations.variants.without-promptcot]
title = "without PromptCoT"
phases = ["1"]
matched = {{ data = {{ 2 = "no-promptcot" }} }}
paper = "without-promptcot"
[ablations.variants.without-open-thoughts2]
data = {{ 1 = "no-open-thoughts2" }}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    sums = [{"id": f"s{n}", "question": f"What is {n} + 1?", "answer": n + 1} for n in range(4)]
    write_lines(tmp_path / "sums.jsonl", sums)
    own = [
        {
            "question": f"A farmer has {n} cows, buys {n + 7} and sells {n % 5}. How many are left?",
            "thinking": f"First {n} + {n + 7} = {2 * n + 7}. Then take {n % 5} away.",
            "answer": f"There are \\boxed{{{2 * n + 7 - n % 5}}} left.",
        }
        for n in range(20, 32)
    ]
    write_lines(tmp_path / "promptcot.jsonl", own)
    (tmp_path / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    return load_recipe(str(tmp_path / "tiny.toml"))


def call(
    capsys: pytest.CaptureFixture[str], recipe: Recipe, out: Path, *argv: str
) -> tuple[int, Any, str]:
    console.reset()
    capsys.readouterr()
    options = ["ablation", "--recipe", str(recipe.path), "--out", str(out), "--json", *argv]
    code = exit_code_of(app, "python -m evaluation", options)
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else None, captured.err


def sources(out: Path, phase: str) -> set[str]:
    version = resolve_version(out / "datasets" / f"phase-{phase}")
    frame = polars.concat([polars.read_parquet(path) for path in version.shard_paths()])
    return set(frame["source"].unique())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_variants_are_trained_evaluated_and_tabulated_and_really_differ(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code, plan, err = call(capsys, recipe, out, "--dry-run")
    assert (code, len(plan["runs"]), out.exists()) == (0, 6, False)
    assert plan["runs"][0]["steps"] is None and "its dataset is not built yet" in err

    code, _, err = call(capsys, recipe, out, "--only", "without-promptcot")
    assert code == 0, err
    # Started as the trainer's own command, with the same settings: what is finished is known.
    only = ("--only", "without-open-thoughts2", "--seeds", "0")
    launcher = ("--set", "training.launch.launcher=command")
    launcher += ("--set", f'training.launch.args=["{sys.executable}"]')
    code, table, err = call(capsys, recipe, out, *only, *launcher)
    assert code == 0, err
    assert err.count("finished before") == 2, "both phases of the full recipe"
    assert {row["name"]: row["seeds"] for row in table["rows"]} == {
        "full": [0, 1],
        "without-open-thoughts2": [0],
        "without-promptcot": [0, 1],
    }
    assert [len(row["scores"]) for row in table["rows"]] == [1, 1, 1]
    assert table["rows"][0]["scores"][0]["difference"] is None
    assert table["rows"][1]["scores"][0]["difference"]["mean"] is not None

    assert sources(out, "1") == {"open-code-reasoning", "open-thoughts2"}
    assert sources(out, "1-no-open-thoughts2") == {"open-code-reasoning"}
    records = {(run.record.name, run.record.seed): run.record for run in read_runs(out)}
    weights = [record.phases[max(record.phases)].checkpoint for record in records.values()]
    assert len(weights) == len(set(weights)) == 5, "no two runs end with the same weights"
    full, without = records["full", 0], records["without-promptcot", 0]
    assert without.phases["1"] == full.phases["1"] and list(without.phases) == ["1"]
    linked = out / "ablations" / "without-promptcot" / "0" / "checkpoints" / "phase-1"
    assert linked.is_symlink() and linked.resolve().parts[-4:-2] == ("full", "0")
    less = records["without-open-thoughts2", 0]
    assert 0 < less.phases["1"].num_steps < full.phases["1"].num_steps


@pytest.mark.slow
def test_matched_variants_take_the_steps_or_tokens_of_the_recipe(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arms = list_arms(recipe, [], "tokens")
    runs = {run.arm.label: run for run in prepare_runs(recipe, arms, [0], out)}
    steps = {
        label: {phase: run.recipe.settings.training.phases[phase].max_steps for phase in "12"}
        for label, run in runs.items()
    }
    assert steps["full"] == {"1": -1, "2": -1}
    assert steps["without-open-thoughts2-tokens"]["2"] == -1, "the same data needs no matching"

    only = ("--only", "without-promptcot", "--only", "without-open-thoughts2", "--seeds", "0")
    code, plan, _ = call(capsys, recipe, out, *only, "--matched", "tokens", "--dry-run")
    full, promptcot, thoughts = plan["runs"]
    step = full["tokens"] / full["steps"]
    assert code == 0 and full["steps"] > 4
    for variant in (promptcot, thoughts):
        assert variant["tokens"] == pytest.approx(full["tokens"], abs=1.1 * step)
    _, plan, _ = call(capsys, recipe, out, *only, "--matched", "steps", "--dry-run")
    assert len({run["steps"] for run in plan["runs"]}) == 1
    assert [run["variant"] for run in plan["runs"]][1:] == [
        "without-promptcot-steps",
        "without-open-thoughts2-steps",
    ]


def test_what_cannot_be_run_is_the_users_mistake(recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match="no ablation 'nonesuch'"):
        list_arms(recipe, ["nonesuch"], "none")
    with pytest.raises(ConfigError, match="--seeds: "):
        read_options(recipe, "", "0,x")
    with pytest.raises(ConfigError, match="--matched: "):
        read_options(recipe, "epochs", "")
    served = load_recipe(str(recipe.path), ["evaluation.engine=default"])
    with pytest.raises(ConfigError, match="would answer for every variant alike"):
        list_arms(served, [], "none")
    assert read_options(recipe, "steps", "3, 5") == ("steps", (3, 5))
    unmatched = load_recipe(
        str(recipe.path), ["ablations.variants.without-promptcot.matched={phases=['1']}"]
    )
    with pytest.raises(ConfigError, match="trains phase 1 only: its steps cannot match"):
        list_arms(unmatched, [], "steps")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "ablations.variants.without-open-thoughts2.data={1='nope'}",
            "wants variant 'nope' of phase 1",
        ),
        ("ablations.variants.without-open-thoughts2.phases=['3']", "names phase '3'"),
        ("ablations.variants.full={}", "not 'full'"),
        ("ablations.seeds=[1,1]", "seeds are different numbers"),
    ],
)
def test_ablations_are_held_against_the_curriculum(
    recipe: Recipe, change: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(str(recipe.path), [change])


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ("exit 3", GateRefused, "exit code 3"),
        ("exit 1", StoreError, "exit code 1"),
        ("exit 0", StoreError, "left no checkpoint of phase 1"),
        (None, ConfigError, "does not start"),
    ],
)
def test_a_launcher_that_fails_is_told_apart(
    tmp_path: Path, recipe: Recipe, script: str | None, error: type[PipelineError], message: str
) -> None:
    launcher = tmp_path / "launch"
    if script is not None:
        launcher.write_text(f"#!/bin/sh\n{script}\n")
        launcher.chmod(0o755)
    overrides = ["training.launch.launcher=command", f'training.launch.args=["{launcher}"]']
    chosen = load_recipe(str(recipe.path), overrides)
    out = tmp_path / "out"
    with pytest.raises(error, match=message):
        run_ablations(chosen, list_arms(chosen, ["without-promptcot"], "none"), [0], out)
    assert not list(out.rglob("run.json"))
