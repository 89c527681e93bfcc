"""The flows on a real server: states, names, artifacts, and how many task runs there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.steps import Outcome, Step
from pipeline.errors import TeacherUnreachable
from promptcot.stage_names import STAGES

MAX_TASK_RUNS = 20
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


def test_a_dataset_run_shows_its_counts_rows_card_and_settings(tmp_path: Path) -> None:
    from flows.build_curriculum import build_curriculum

    parameters = {"phase": 1, "out": str(tmp_path), "overrides": ["synthesis.bank=demo.toml"]}
    first = run_flow(build_curriculum, **parameters)
    assert first.is_completed(), first.message
    run, _, artifacts = read_run(first)
    assert run.name == "demo-data-1+1"
    assert set(artifacts) == {"funnel", "sample", "data-card", "resolved-config"}
    assert '"rejected"' in artifacts["funnel"].data
    assert "`curriculum.phases.1.max_tokens` | `512`" in artifacts["resolved-config"].data
    assert not artifacts["data-card"].data.startswith("---")

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
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("recipe", ["nowhere", "nowhere/else.toml"])
def test_an_unknown_recipe_is_said_in_the_runs_own_state(recipe: str) -> None:
    from flows.synth_promptcot import synth_promptcot

    state = run_flow(synth_promptcot, recipe=recipe)
    assert state.is_failed()
    assert recipe in state.message


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
    assert set(artifacts) == {"funnel", "sample", "data-card", "resolved-config", "scores"}
    assert (tmp_path / "out" / "report" / "index.html").is_file()

    again = run_flow(reproduce, **parameters)
    states = {task.name: task.state_name for task in read_run(again)[1]}
    assert states.pop("report") == "Completed"
    assert set(states.values()) == {"Reused"}
