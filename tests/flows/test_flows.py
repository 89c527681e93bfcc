"""The flows on a real server: states, names, artifacts, and how many task runs there are."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flow_runs import read_run, run_flow
from seed_recipe import SHOP_SCRIPT, SHOP_SEEDS, write_seed_recipe
from tiny_scorer import build_tiny_scorer

from flows.status_source import FolderSource
from flows.steps import TRAINING, Outcome, Step
from pipeline.errors import StoreError, TeacherUnreachable
from pipeline.events import emit, listening
from pipeline.manifest import resolve_version, verify_version
from pipeline.records import Triple
from promptcot.stage_names import STAGES

MAX_TASK_RUNS = 200
"""The server loses records of bursts far above this; a run's page is unreadable before that."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
    pytest.mark.timeout(300),
]


def test_a_dataset_run_shows_its_counts_rows_card_and_settings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from flows.build_curriculum import build_curriculum

    parameters = {"phase": 1, "out": str(tmp_path), "overrides": ["synthesis.bank=demo.toml"]}
    first = run_flow(build_curriculum, **parameters)
    assert first.is_completed(), first.message
    run, _, artifacts = read_run(first)
    assert run.name == "demo-data-1+1"
    assert set(artifacts) == {
        *("funnel", "sample", "data-card", "decontamination"),
        *("resolved-config", "progress", "report"),
    }
    assert '"rejected"' in artifacts["funnel"].data
    assert "`curriculum.phases.1.max_tokens` | `512`" in artifacts["resolved-config"].data
    assert not artifacts["data-card"].data.startswith("---")
    # The changed setting is one of synthesis, which training does not read.
    after = f"prefect deployment run train-sft -p phase=1 -p out={tmp_path}"
    assert artifacts["report"].data.endswith(f"    {after}")
    assert caplog.messages[-1].endswith(f"; next: {after}")

    second = run_flow(build_curriculum, **parameters)
    assert second.is_completed()
    _, tasks, artifacts = read_run(second)
    assert len(tasks) <= MAX_TASK_RUNS
    assert [task.state_name for task in tasks] == ["Reused"]
    assert "kept" in tasks[0].state.message
    assert "funnel" in artifacts


def test_a_failed_run_ends_with_one_sentence_and_its_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from flows.train_sft import train_sft

    # Nothing has been built, so there is nothing to train on.
    parameters = {"out": str(tmp_path), "overrides": ["synthesis.bank=demo.toml"]}
    state = run_flow(train_sft, phase=1, **parameters)
    assert state.is_failed()
    assert state.message.startswith("SFT phase 1: ")
    assert " — remedy: " in state.message
    assert " — continue: " in state.message
    assert "Traceback" not in caplog.text
    run, _, artifacts = read_run(state)
    assert run.name.startswith("demo-sft-1+1 stopped: SFT phase 1: ")
    assert artifacts["failure"].description == state.message
    # The same is told without Prefect.
    told = FolderSource(tmp_path).read()
    assert told["run"]["state"] == "failed" and told["steps"][0]["state"] == "failed"
    assert told["run"]["failure"]["error"] == state.message
    assert told["run"]["what"] == "flow train-sft"


@pytest.mark.parametrize("recipe", ["nowhere", "nowhere/else.toml"])
def test_an_unknown_recipe_is_said_in_the_runs_own_state(recipe: str) -> None:
    from flows.synth_promptcot import synth_promptcot

    state = run_flow(synth_promptcot, recipe=recipe)
    assert state.is_failed()
    assert recipe in state.message


def test_a_failure_names_the_shard_and_what_was_finished_is_reused_after_it(
    tmp_path: Path, scripted_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import shard_bars
    from flows.synth_promptcot import synth_promptcot

    monkeypatch.setattr(shard_bars, "SHORTEST_S", 0.0)
    script = scripted_recipe.parent / "script.jsonl"
    whole = script.read_text(encoding="utf-8")
    script.write_text("\n".join(whole.splitlines()[:-2]), encoding="utf-8")
    parameters = {
        "recipe": str(scripted_recipe),
        "out": str(tmp_path / "out"),
        "overrides": ["synthesis.batch_size=1"],
    }
    state = run_flow(synth_promptcot, **parameters)
    assert state.is_failed()
    found = re.match(r"solutions, at (solutions-0000\d), \d of \d shards finished: ", state.message)
    assert found, state.message
    run, tasks, artifacts = read_run(state)
    assert found.group(1) in run.name and found.group(1) in artifacts["failure"].data
    bars = {task.name: task.state_name for task in tasks}
    assert bars[found.group(1)] == "Failed"
    assert bars["problems-00000"] == "Completed"
    assert len(tasks) <= MAX_TASK_RUNS

    # A stage that needs nothing of what is missing is not done again.
    again = run_flow(synth_promptcot, **parameters)
    states = {task.name: task.state_name for task in read_run(again)[1]}
    assert states["combinations"] == "Reused" and states["judged"] == "Reused"
    assert "problems-00000" not in states


def test_only_an_unreachable_teacher_is_tried_again(tmp_path: Path) -> None:
    from prefect import flow

    from flows.running import run_step
    from flows.shard_bars import ShardBars
    from pipeline.settings.recipe import load_recipe

    calls = {"flaky": 0, "bug": 0}
    bars = ShardBars(2)

    def answer_late(recipe: Any, out: Path) -> Outcome:
        calls["flaky"] += 1
        shard = {"stage": "problems", "unit": "problems", "shard": "00003-cafe"}
        with listening(bars.hear):
            emit("stage.started", stage="problems", total=9)
            if calls["flaky"] < 3:
                emit("stage.failed", error="no answer", **shard)
                raise TeacherUnreachable("no answer", hint="start it")
            emit("shard.finished", rows_in=7, rows_out=6, rejected=1, **shard)
        return Outcome(line="answered", path=out)

    def fail(recipe: Any, out: Path) -> Outcome:
        calls["bug"] += 1
        raise ZeroDivisionError

    @flow
    def try_both() -> Any:
        step = run_step.with_options(retry_delay_seconds=0)
        states = [
            step(Step(key=key, title=key, stages=(), run=run), recipe, tmp_path, return_state=True)
            for key, run in (("flaky", answer_late), ("bug", fail))
        ]
        assert [state.is_completed() for state in states] == [True, False]

    recipe = load_recipe("demo")
    state = try_both(return_state=True)
    assert state.is_completed()
    assert calls == {"flaky": 3, "bug": 1}
    (bar,) = [task for task in read_run(state)[1] if task.name == "problems-00003"]
    assert (bar.state_name, bar.run_count) == ("Completed", 3)
    assert bar.state.message == "try 3: 1 shard: 7 problems in, 6 out, 1 rejected"


LAUNCHED = """
import sys
from pathlib import Path
from pipeline.events import recording
from pipeline.settings.events import EventSettings
from pipeline.stage_events import Work

with (
    recording(Path(sys.argv[1]), EventSettings(), "training of phase 1"),
    Work("training-1", "steps", 40, done=0) as work,
):
    for step in (1, 15, 30):
        work.done = step
        work.tell("training.step", is_due=True, step=step, loss=4 - step / 10, tokens_per_second=900)
    Work("training-2", "steps", 40).tell("training.step", is_due=True, step=1, loss=1.0)
    sys.exit("out of memory")
"""


def test_a_launched_training_shows_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told by another process, in the log that both write."""
    from flows import shard_bars, train_sft

    def launch(recipe: Any, out: Path) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-c", LAUNCHED, out], check=False, capture_output=True, text=True
        )
        raise StoreError(f"training failed: {done.stderr.strip()}", hint="take smaller batches")

    step = dataclasses.replace(TRAINING["1"], run=launch)
    monkeypatch.setattr(train_sft, "TRAINING", {"1": step})
    monkeypatch.setattr(shard_bars, "SHORTEST_S", 0.0)
    state = run_flow(train_sft.train_sft, phase=1, out=str(tmp_path))
    place = "SFT phase 1, at training-1, 30 of 40 steps finished: training failed: out of memory"
    assert state.message.startswith(place)
    _, tasks, artifacts = read_run(state)
    assert {task.name: task.state.message for task in tasks if task.name != "sft-1"} == {
        "training-1-00001-00015": "15 steps",
        "training-1-00016-00030": "15 steps",
    }
    assert "| training-1 | 30 of 40 | 1.000 | 900 |" in artifacts["progress"].data
    assert "training-2" not in artifacts["progress"].data


def test_the_whole_reproduction_is_few_task_runs_and_quick_again(
    tmp_path: Path, scripted_recipe: Path
) -> None:
    from flows.reproduce import reproduce

    parameters = {"recipe": str(scripted_recipe), "out": str(tmp_path / "out")}
    first = run_flow(reproduce, **parameters)
    assert first.is_completed(), first.message
    run, tasks, artifacts = read_run(first)
    assert run.name == "scripted"
    names = [task.name for task in sorted(tasks, key=lambda task: task.start_time)]
    assert names[:7] == [*STAGES, "data-1"]
    assert names[-2:] == ["evaluation", "report"]
    assert len(tasks) <= MAX_TASK_RUNS
    assert set(artifacts) == {
        *("funnel", "sample", "data-card", "decontamination", "scores", "loss-curve"),
        *("resolved-config", "progress", "report"),
    }
    page = tmp_path / "out" / "report" / "index.html"
    assert page.is_file() and f"xdg-open {page}" in artifacts["report"].data
    assert re.match(
        r"\d+ verified traces from 8 combinations; [\d,]+ tokens", artifacts["report"].description
    )

    again = run_flow(reproduce, **parameters)
    states = {task.name: task.state_name for task in read_run(again)[1]}
    assert states.pop("report") == "Completed"
    assert set(states.values()) == {"Reused"}


def test_a_dry_run_plans_every_step_and_writes_nothing(tmp_path: Path) -> None:
    from flows.reproduce import reproduce

    parameters = {"domain": "math", "rows": 4, "seed": 7, "out": str(tmp_path / "out")}
    state = run_flow(reproduce, **parameters, dry_run=True)
    assert state.is_completed(), state.message
    assert "nothing was written" in state.message
    assert not (tmp_path / "out").exists()
    run, tasks, artifacts = read_run(state)
    assert run.name == "demo-math-4rows-seed7-plan"
    assert {"promptcot", "stage:all", "recipe:demo", "domain:math", "dry-run"} <= set(run.tags)
    assert tasks == [] and set(artifacts) == {"plan", "resolved-config"}
    plan = artifacts["plan"].data
    assert "| problems | take at most 4 rows, ask at most 8 times" in plan
    assert "`synthesis.combinations.num_combinations` | `4`" in artifacts["resolved-config"].data


def test_a_dry_run_refuses_what_the_run_would_refuse(tmp_path: Path) -> None:
    from flows.synth_promptcot import synth_promptcot

    state = run_flow(synth_promptcot, teacher="nobody", out=str(tmp_path / "o"), dry_run=True)
    assert state.is_failed()
    assert "nobody" in state.message and " — remedy: " in state.message


@pytest.fixture
def refine_recipe(tmp_path: Path) -> Path:
    """Nine problems, three rounds, and a scoring model with random weights."""
    scorer = build_tiny_scorer(tmp_path / "scorer")
    return write_seed_recipe(tmp_path, seeds=SHOP_SEEDS, script=SHOP_SCRIPT, scorer=scorer)


def tasks_in_order(state: Any) -> list[Any]:
    return sorted(read_run(state)[1], key=lambda task: task.start_time)


def test_each_round_is_a_task_and_a_second_run_reuses_them_all(
    refine_recipe: Path, tmp_path: Path
) -> None:
    from flows.refine_rationales import refine_rationales

    out = tmp_path / "out"
    parameters = {"recipe": str(refine_recipe), "out": str(out)}
    first = run_flow(refine_rationales, **parameters)
    assert first.is_completed(), first.message
    run, _, artifacts = read_run(first)
    assert run.name == "tiny-refine-3x4"
    tasks = tasks_in_order(first)
    assert [task.name for task in tasks] == ["refined-1", "refined-2", "refined-3"]
    assert [task.state_name for task in tasks] == ["Completed"] * 3

    chosen = []
    for number, task in enumerate(tasks, start=1):
        version = resolve_version(out / "synthesis" / f"refined-{number}")
        verify_version(version)
        rows = [Triple.model_validate(row) for row in version.rows()]
        objective = version.manifest.extra["objective"]
        chosen.append(objective["chosen"])
        assert task.state.message == (
            f"8 of 9 problems, objective {objective['chosen']:.2f}, "
            f"of a random choice {objective['drawn']:.2f}"
        )
        scores = [row.score for row in rows if row.score is not None]
        assert sum(scores) / len(rows) == pytest.approx(objective["chosen"], abs=1e-4)
    assert chosen == sorted(chosen)
    assert first.message == f"refinement, round 3: {tasks[-1].state.message}"

    folder = out / "synthesis" / "refinement"
    rounds = json.loads((folder / "rounds.json").read_text(encoding="utf-8"))["rounds"]
    assert [entry["objective"]["chosen"] for entry in rounds] == chosen
    assert (folder / "objective.svg").read_text(encoding="utf-8").startswith("<svg")

    assert set(artifacts) == {"resolved-config", "sample", "objective", "progress", "report"}
    assert "`synthesis.refinement.rounds` | `3`" in artifacts["resolved-config"].data
    table = json.loads(artifacts["objective"].data)
    assert [row["kept"].split()[0] for row in table] == [f"{value:.2f}" for value in chosen]
    assert str(folder / "objective.svg") in artifacts["objective"].description
    sample = json.loads(artifacts["sample"].data)
    assert len(sample) == 8
    assert {"problem", "rationale", "score"} <= sample[0].keys()

    before = {path: path.stat().st_mtime_ns for path in (out / "synthesis").rglob("*.parquet")}
    second = run_flow(refine_rationales, **parameters)
    assert second.is_completed(), second.message
    tasks = tasks_in_order(second)
    assert [task.state_name for task in tasks] == ["Reused"] * 3
    assert [task.state.message for task in tasks][-1] == first.message.removeprefix(
        "refinement, round 3: "
    )
    after = {path: path.stat().st_mtime_ns for path in (out / "synthesis").rglob("*.parquet")}
    assert after == before
    assert set(read_run(second)[2]) == set(artifacts)


def test_a_scoring_model_that_is_missing_is_said_in_one_sentence(
    refine_recipe: Path, tmp_path: Path
) -> None:
    from flows.refine_rationales import refine_rationales

    state = run_flow(
        refine_rationales,
        recipe=str(refine_recipe),
        out=str(tmp_path / "out"),
        overrides=["synthesis.refinement.scorer.model=nowhere"],
    )
    assert state.is_failed()
    assert state.message.startswith("refinement, round 1: scoring model 'nowhere'")
    assert " — remedy: " in state.message
