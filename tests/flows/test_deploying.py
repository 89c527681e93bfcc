"""What deploying leaves on a real server, once and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from own_server import OwnServer

from flows.pools import ensure_pool
from flows.schedules import FlowSchedule, sync_schedules
from flows.server import AUTOMATION, ensure_zombie_automation, probe, running_server

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
    # Never due while tests run.
    rare = FlowSchedule(flow="evaluate", cron="0 2 29 2 *", timezone="UTC")
    noon = FlowSchedule(flow="evaluate", cron="0 12 29 2 *", timezone="Europe/Berlin")
    assert sync_schedules([rare], "local") == ["evaluate/local runs at 0 2 29 2 * (UTC)"]
    assert sync_schedules([rare], "local") == []
    assert sync_schedules([rare, noon], "local") == [
        "evaluate/local runs at 0 12 29 2 * (Europe/Berlin)"
    ]
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("evaluate/local")
        by_hand = client.create_deployment_schedules(deployment.id, [_by_hand()])
        assert len(sync_schedules([], "local")) == 2
        left = client.read_deployment_by_name("evaluate/local").schedules
        # What a person has added in the page stays.
        assert [schedule.id for schedule in left] == [schedule.id for schedule in by_hand]
        assert len(client.read_deployments()) == 6


def _by_hand() -> Any:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    return DeploymentScheduleCreate(schedule=CronSchedule(cron="0 9 29 2 *"), active=True)


def test_the_zombie_automation_is_one_is_current_and_stays_switched_off() -> None:
    from prefect.client.orchestration import get_client
    from prefect.events.schemas.automations import AutomationCore

    # Serving has made it.
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
        client.delete_automation(left.id)
    assert ensure_zombie_automation() == "created"
    assert (left.description, left.enabled) == (found.description, False)


def test_a_server_that_answers_is_used_and_left_running(
    tmp_path: Path, own_server: OwnServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_server(own_server.url, tmp_path) as kept:
        assert kept.process is None
    assert f"a Prefect server answers at {own_server.url}" in capsys.readouterr().out
    assert probe(own_server.url) == "server"


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
