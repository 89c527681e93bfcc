"""What deploying leaves on a real server, once and again, and what a dry run tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_flows import read_run, run_flow

from flows.pools import ensure_pool
from flows.schedules import FlowSchedule, sync_schedules
from flows.server import AUTOMATION, ensure_zombie_automation

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
    pytest.mark.timeout(300),
]


def test_deploying_again_changes_only_what_was_asked_anew() -> None:
    from prefect.client.orchestration import get_client

    from flows.deployments import make_deployments

    for deployment in make_deployments() * 2:
        deployment.apply()
    nightly = FlowSchedule(flow="evaluate", cron="0 2 * * *", timezone="UTC")
    noon = FlowSchedule(flow="evaluate", cron="0 12 * * *", timezone="Europe/Berlin")
    assert sync_schedules([nightly], "local") == ["evaluate/local runs at 0 2 * * * (UTC)"]
    assert sync_schedules([nightly], "local") == []
    assert sync_schedules([nightly, noon], "local") == [
        "evaluate/local runs at 0 12 * * * (Europe/Berlin)"
    ]
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("evaluate/local")
        by_hand = client.create_deployment_schedules(deployment.id, [_every_monday()])
        assert len(sync_schedules([], "local")) == 2
        left = client.read_deployment_by_name("evaluate/local").schedules
        # What a person has added in the page stays.
        assert [schedule.id for schedule in left] == [schedule.id for schedule in by_hand]
        assert len(client.read_deployments()) == 6


def _every_monday() -> Any:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    return DeploymentScheduleCreate(schedule=CronSchedule(cron="0 9 * * 1"), active=True)


def test_the_zombie_automation_is_one_is_current_and_stays_switched_off() -> None:
    from prefect.client.orchestration import get_client
    from prefect.events.schemas.automations import AutomationCore

    assert ensure_zombie_automation() == "created"
    assert ensure_zombie_automation() == "unchanged"
    with get_client(sync_client=True) as client:
        (found,) = client.read_automations_by_name(AUTOMATION)
        # Two starts at the same moment have made two, of an earlier version, and one is off.
        twin = AutomationCore.model_validate(
            {
                **found.model_dump(exclude={"id", "owner_resource"}),
                "description": "older",
                "enabled": False,
            }
        )
        client.create_automation(twin)
        client.update_automation(found.id, twin)
        assert ensure_zombie_automation() == "updated"
        (left,) = client.read_automations_by_name(AUTOMATION)
    assert (left.description, left.enabled) == (found.description, False)


def test_a_work_pool_is_made_once_and_keeps_what_a_person_changed() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolUpdate

    for target in ("process", "kubernetes"):
        assert ensure_pool(target, 2) == "created, 2 runs at the same time"
        assert ensure_pool(target, 3) == "exists"
    with get_client(sync_client=True) as client:
        assert client.read_work_pool("promptcot-kubernetes").concurrency_limit == 2
        template = client.read_work_pool("promptcot-kubernetes").base_job_template
        template["variables"]["properties"]["namespace"]["default"] = "lab"
        client.update_work_pool("promptcot-kubernetes", WorkPoolUpdate(base_job_template=template))
        assert ensure_pool("kubernetes", 2).startswith("kept, with a template of its own")
        kept = client.read_work_pool("promptcot-kubernetes").base_job_template
    assert kept == template


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


def test_a_run_whose_process_was_killed_says_so_in_its_name() -> None:
    from prefect import get_client
    from prefect.states import Crashed, Running

    from flows.synth_promptcot import synth_promptcot

    (told,) = synth_promptcot.on_crashed_hooks or []
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(synth_promptcot, name="demo-8x2", state=Running())
        crash = Crashed(message="Flow run process exited with non-zero status code -9.\nMore.")
        served = run.model_copy(update={"deployment_id": run.id})
        told(synth_promptcot, served, crash)
        name = client.read_flow_run(run.id).name
        told(synth_promptcot, run, crash)
        alone = client.read_flow_run(run.id).name
        client.delete_flow_run(run.id)
    assert name == (
        "demo-8x2 stopped: Flow run process exited with non-zero status code -9 — "
        f"continue: prefect flow-run retry {run.id}"
    )
    assert alone == "demo-8x2 stopped: Flow run process exited with non-zero status code -9"
