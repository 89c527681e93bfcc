"""Everything Prefect needs, from nothing: ``python -m flows.deployments``.

Finds or starts the server, registers one deployment of each flow (``flows.catalog``) and serves
them until Ctrl-C. Then ``prefect deployment run synth-promptcot`` and the web pages work. With
``--target process`` or ``kubernetes`` it registers them for the workers of a pool instead.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.catalog import CATALOG, Target
from pipeline import cli
from pipeline.errors import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

    from flows.schedules import FlowSchedule

app = cli.make_app(
    "deployments",
    "Bring up Prefect: server, deployments and the process that runs them.\n\n"
    "Example: python -m flows.deployments",
)


@app.command()
def deployments(
    target: Annotated[
        Target, typer.Option("--target", help="Served here, or registered for a pool's workers.")
    ] = "local",
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Runs at the same time; others wait.")
    ] = 1,
    schedule: Annotated[
        list[str] | None,
        typer.Option("--schedule", help='Run by itself, e.g. "synth-promptcot=0 2 * * *".'),
    ] = None,
    timezone: Annotated[str, typer.Option("--timezone", help="Of the schedules.")] = "UTC",
    write: Annotated[
        bool, typer.Option("--write", help="Only write prefect.yaml and deploy/ anew.")
    ] = False,
    dry_run: cli.DryRunOption = False,
) -> None:
    """Bring up Prefect: server, deployments and the process that runs them.

    Example: python -m flows.deployments
    """
    if write:
        _write_files(dry_run)
        return
    variables = _prepare_environment()
    # Until serving begins, SIGTERM would end this process without stopping a server it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_INTERRUPTED))
    from prefect.settings import get_current_settings

    from flows.schedules import parse_schedules
    from flows.server import probe
    from pipeline import console

    schedules = parse_schedules(schedule or [], timezone)
    current = get_current_settings()
    api_url = str(current.api.url).rstrip("/")
    if dry_run:
        console.say(f"at {api_url} answers: {probe(api_url)}")
        for entry in CATALOG:
            console.say(f"  would {_VERBS[target]} {entry.name}/{target}: {entry.description}")
        for wanted in schedules:
            console.say(f"  would run {wanted.flow} at {wanted.cron} ({wanted.timezone})")
        return
    if target != "local":
        from flows.pools import deploy_to_pool

        deploy_to_pool(target, api_url, schedules, limit=limit)
        return
    _serve(api_url, current.home, schedules, limit=limit, variables=variables)


_POLL_S = 2
_VERBS: dict[Target, str] = {"local": "serve", "process": "deploy", "kubernetes": "deploy"}


def _serve(
    api_url: str,
    home: Path,
    schedules: list[FlowSchedule],
    *,
    limit: int,
    variables: list[str],
) -> None:
    from prefect import serve

    from flows.schedules import sync_schedules
    from flows.server import ensure_zombie_automation, running_server
    from pipeline import console

    with running_server(api_url, home) as server:
        ensure_zombie_automation()
        served = make_deployments()
        for deployment in served:
            deployment.apply()
        for change in sync_schedules(schedules, "local"):
            console.say(change)
        _show_next(served, api_url, variables)
        _quieten_runner()
        # Prefect ends with SystemExit on SIGTERM, and returns on Ctrl-C.
        with contextlib.suppress(SystemExit):
            serve(*served, limit=limit, print_starting_message=False, pause_on_shutdown=False)
        # While nothing serves, scheduled runs would pile up and all start at the next start.
        if schedules:
            sync_schedules([], "local")
    _show_end(api_url, server.process is not None)


def _quieten_runner() -> None:
    """Keep Prefect's runner from repeating, at every look for work, that runs wait for a place."""
    last = ""

    def is_news(record: logging.LogRecord) -> bool:
        nonlocal last
        before, last = last, record.getMessage()
        return last != before

    logging.getLogger("prefect.runner").addFilter(is_news)
    # Prefect's answer to SIGTERM calls its own coroutine without awaiting it.
    warnings.filterwarnings("ignore", message="coroutine 'Runner.astop' was never awaited")


def _write_files(dry_run: bool) -> None:
    from flows.manifests import make_files, write_files
    from pipeline import console
    from pipeline.settings.recipe import RECIPES

    if dry_run:
        for name in make_files():
            console.say(f"would write {name}")
        return
    written = write_files(RECIPES.parent)
    for name in written:
        console.say(f"wrote {name}")
    if not written:
        console.say("prefect.yaml and deploy/ are as the catalog says")


def make_deployments() -> list[RunnerDeployment]:
    """One deployment, named ``local``, of every flow."""
    found = []
    for entry in CATALOG:
        flow: Any = getattr(importlib.import_module(f"flows.{entry.function}"), entry.function)
        found.append(
            flow.to_deployment(name="local", tags=entry.tags, description=entry.description)
        )
    return found


def _prepare_environment() -> list[str]:
    """Set what ``[tool.prefect]`` of pyproject.toml sets, for a start from another folder.

    Prefect reads its settings when it is imported, and its children inherit these.

    Returns:
        Variables a person needs in the terminal where they type ``prefect …``.
    """
    from flows.server import DEFAULT_API_URL, HEARTBEAT_S
    from pipeline.settings.recipe import RECIPES

    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_S))
    # Prefect's own 10 are a long wait for a person who has just pressed Run.
    os.environ.setdefault("PREFECT_RUNNER_POLL_FREQUENCY", str(_POLL_S))
    if "PREFECT_API_URL" in os.environ:
        return [f"PREFECT_API_URL={os.environ['PREFECT_API_URL']}"]
    if Path.cwd() == RECIPES.parent:
        return []
    os.environ["PREFECT_API_URL"] = DEFAULT_API_URL
    return [f"PREFECT_API_URL={DEFAULT_API_URL}", "PREFECT_PLUGINS_ENABLED=1"]


def _show_next(served: list[RunnerDeployment], api_url: str, variables: list[str]) -> None:
    from pipeline import console

    prefix = "".join(f"{variable} " for variable in variables)
    console.heading(f"Prefect is up: {api_url.removesuffix('/api')}")
    console.say(f"serving {', '.join(str(deployment.flow_name) for deployment in served)}")
    console.say("in another terminal, for example:")
    console.say(f"  {prefix}prefect deployment run synth-promptcot --watch")
    console.say(f"  {prefix}prefect deployment run build-curriculum -p phase=1")
    console.say(f"  {prefix}prefect deployment run reproduce -p recipe=demo")
    console.say("Ctrl-C stops serving")


def _show_end(api_url: str, was_started: bool) -> None:
    from pipeline import console

    console.say("stopped serving")
    if was_started:
        console.say("the Prefect server that was started here has been stopped too")
    else:
        console.say(f"the Prefect server at {api_url} was there before and still runs")


if __name__ == "__main__":
    cli.run_app(app, "python -m flows.deployments")
