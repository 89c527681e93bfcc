"""Deployments for the workers of a pool: ``python -m flows.deployments --target process``.

What it does is what ``prefect work-pool create`` and ``prefect deploy --all`` do, in one go and
again without harm. The server is one that stays: it is not started here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flows.catalog import POOLS, Target
from flows.manifests import DEPLOY_FILES, IMAGE_VARIABLE, TEMPLATE_FILE
from flows.server import ensure_zombie_automation, probe
from pipeline import console
from pipeline.errors import ConfigError, PipelineError
from pipeline.settings.recipe import RECIPES

if TYPE_CHECKING:
    from flows.schedules import FlowSchedule

_ROOT = RECIPES.parent
_LINES = 5


def deploy_to_pool(
    target: Target, api_url: str, schedules: Sequence[FlowSchedule], *, limit: int
) -> None:
    """Create the pool if it is missing, deploy every flow to it and set schedules.

    Args:
        target: ``process`` or ``kubernetes``.
        api_url: Of the server.
        schedules: All that there shall be on this target.
        limit: Runs of a new pool at the same time.

    Raises:
        ConfigError: No server answers, or the container image is not named.
        PipelineError: Prefect refuses to deploy.
    """
    from flows.schedules import sync_schedules

    if probe(api_url) != "server":
        raise ConfigError(
            f"no Prefect server answers at {api_url}, and workers need one that stays",
            hint="start it: prefect server start --background",
        )
    if target == "kubernetes" and not os.environ.get(IMAGE_VARIABLE):
        raise ConfigError(
            "no container image is named", hint=f"export {IMAGE_VARIABLE}=registry/name:tag"
        )
    console.say(f"work pool {POOLS[target]}: {ensure_pool(target, limit)}")
    console.say(f"zombie automation: {ensure_zombie_automation()}")
    _deploy_all(target)
    for change in sync_schedules(schedules, target):
        console.say(change)
    console.heading("deployed; a worker runs them, for example:")
    kind = "process" if target == "process" else "kubernetes"
    console.say(f"  prefect worker start --pool {POOLS[target]} --type {kind}")
    console.say(f"  prefect deployment run synth-promptcot/{target}")


def ensure_pool(target: Target, limit: int) -> str:
    """Create a target's work pool if there is none; returns what was found or done, in words.

    A pool that exists keeps its limit and its template, which a person may have edited.
    """
    from prefect import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    name, template = POOLS[target], make_template(target)
    with get_client(sync_client=True) as client:
        try:
            there = client.read_work_pool(name)
        except ObjectNotFound:
            new = WorkPoolCreate(
                name=name, type=target, base_job_template=template, concurrency_limit=limit
            )
            client.create_work_pool(new)
            return f"created, {limit} runs at the same time"
    if there.type != target:
        raise ConfigError(
            f"work pool {name} is of type {there.type}, not {target}",
            hint=f"delete it if nothing needs it: prefect work-pool delete {name}",
        )
    if target == "kubernetes" and there.base_job_template != template:
        return (
            "kept, with a template of its own; to replace that: prefect work-pool update "
            f"{name} --base-job-template {TEMPLATE_FILE}"
        )
    return "exists"


def make_template(target: Target) -> dict[str, Any]:
    """A pool's base job template."""
    if target == "kubernetes":
        from flows.job_template import make_job_template

        return make_job_template()
    from prefect.workers.process import ProcessWorker

    return ProcessWorker.get_default_base_job_template()


def _deploy_all(target: Target) -> None:
    """Prefect's own command, on the committed file."""
    file = DEPLOY_FILES[target]
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", file],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise PipelineError(
            f"prefect deploy refused {file}: {' | '.join(lines[-_LINES:])}",
            hint=f"see all of it: prefect deploy --all --prefect-file {file}",
        )
    console.say(f"deployed every flow of {file}")
