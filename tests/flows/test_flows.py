"""The flows on a real server: states, names, artifacts, and how many task runs there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from echo_teacher import echoing_teacher
from key_search import find_key, layers
from own_server import OwnServer
from seed_recipe import SHOP_SCRIPT, SHOP_SEEDS, write_seed_recipe
from tiny_scorer import build_tiny_scorer

from flows.status_source import FolderSource
from flows.steps import Outcome, Step
from pipeline import redaction
from pipeline.errors import TeacherUnreachable
from pipeline.manifest import resolve_version, verify_version
from pipeline.records import Triple
from pipeline.redaction import MASK
from promptcot.stage_names import STAGES

MAX_TASK_RUNS = 200
"""The server loses records of bursts far above this; a run's page is unreadable before that."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
    pytest.mark.timeout(300),
]


def run_flow(flow: Any, **parameters: Any) -> Any:
    """Run a flow and return its final state."""
    return flow(**parameters, return_state=True)


def read_run(state: Any) -> tuple[Any, list[Any], dict[str, Any]]:
    """The flow run, its task runs and its artifacts by key, as the server knows them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterFlowRunId,
        FlowRunFilter,
        FlowRunFilterId,
    )

    run_id = state.state_details.flow_run_id
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        tasks = client.read_task_runs(flow_run_filter=of_run)
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
        )
    return run, tasks, {artifact.key: artifact for artifact in artifacts}


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
    from pipeline.settings.recipe import load_recipe

    calls = {"flaky": 0, "bug": 0}

    def answer_late(recipe: Any, out: Path) -> Outcome:
        calls["flaky"] += 1
        if calls["flaky"] < 3:
            raise TeacherUnreachable("no answer", hint="start it")
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
    assert try_both(return_state=True).is_completed()
    assert calls == {"flaky": 3, "bug": 1}


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


LOCKED = "teachers.default.model=locked"
PLANTED = "sk-Qz7/pL+9vXe2RkT4mNw8Yb1Hc"


@pytest.fixture
def secret_block(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A key that only a Prefect block holds; what the flows make of it is undone."""
    from prefect.blocks.system import Secret

    # Set first, so that leaving the test takes away what the flow will set.
    monkeypatch.setenv("PROMPTCOT_API_KEY", "")
    monkeypatch.delenv("PROMPTCOT_API_KEY")
    Secret(value=PLANTED).save("teacher-key", overwrite=True)
    yield "teacher-key"
    redaction._values.discard(PLANTED)


@pytest.mark.timeout(120)
def test_no_run_leaves_a_key_behind(
    tmp_path: Path,
    scripted_recipe: Path,
    secret_block: str,
    prefect_server: OwnServer,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from prefect import flow, get_run_logger
    from prefect.logging.handlers import APILogHandler

    from evaluation.run import evaluate_checkpoint
    from flows.build_curriculum import build_curriculum
    from flows.running import run_step
    from flows.synth_promptcot import synth_promptcot
    from pipeline.settings.recipe import load_recipe

    @flow
    def tell_it(recipe: Any, out: Path) -> Any:
        get_run_logger().warning("sent with %s", PLANTED)

        def fail(recipe: Any, out: Path) -> Outcome:
            raise ValueError(f"illegal header {PLANTED}")

        step = Step(key="bug", title="bug", stages=(), run=fail)
        return run_step(step, recipe, out, return_state=True)

    out = tmp_path / "out"
    with echoing_teacher(tmp_path / "script.jsonl") as url:
        overrides = [
            "teachers.default.engine=http",
            f'teachers.default.base_urls=["{url}"]',
            f'secret_blocks={{PROMPTCOT_API_KEY="{secret_block}"}}',
            "evaluation.engine=default",
            "evaluation.prompt_format=chat",
        ]
        parameters = {"recipe": str(scripted_recipe), "out": str(out), "overrides": overrides}
        made = run_flow(synth_promptcot, **parameters)
        assert made.is_completed(), made.message
        built = run_flow(build_curriculum, phase=1, **parameters)
        assert built.is_completed(), built.message
        recipe = load_recipe(str(scripted_recipe), overrides)
        evaluate_checkpoint(recipe, None, out, "teacher")
        other = {"out": str(tmp_path / "other"), "overrides": [*overrides, LOCKED]}
        locked = run_flow(synth_promptcot, **parameters | other)
    assert locked.is_failed()
    assert f"unknown key: Bearer {MASK}" in locked.message
    bug = run_flow(tell_it, recipe=recipe, out=out)
    assert f"illegal header {MASK}" in read_run(bug)[1][0].state.message

    console = tmp_path / "console.txt"
    console.write_text("".join(capfd.readouterr()), encoding="utf-8")
    APILogHandler().flush()
    database = prefect_server.database
    places = [console, *database.parent.glob(f"{database.name}*")]
    # What the teacher sent back has arrived in each of them, and the key in none.
    for place in (out, tmp_path / "other", places):
        files = place if isinstance(place, list) else [p for p in place.rglob("*") if p.is_file()]
        assert any(MASK.encode() in part for p in files for part in layers(p.read_bytes()))
    assert find_key(PLANTED, out, tmp_path / "other", *places) == []
    assert any(
        "sent with" in part.decode("latin-1") for p in places[1:] for part in [p.read_bytes()]
    )
