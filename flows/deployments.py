"""Everything Prefect needs, from nothing: ``python -m flows.deployments``.

Finds or starts the server, registers one deployment of each flow and serves them until Ctrl-C.
Then ``prefect deployment run synth-promptcot`` and the web pages work.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import cli
from pipeline.errors import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

app = cli.make_app(
    "deployments",
    "Bring up Prefect: server, deployments and the process that runs them.\n\n"
    "Example: python -m flows.deployments",
)


@app.command()
def deployments(
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Runs at the same time; others wait.")
    ] = 1,
    dry_run: cli.DryRunOption = False,
) -> None:
    """Bring up Prefect: server, deployments and the process that runs them.

    Example: python -m flows.deployments
    """
    variables = _prepare_environment()
    # Until serving begins, SIGTERM would end this process without stopping a server it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_INTERRUPTED))
    from prefect import serve
    from prefect.settings import get_current_settings

    from flows.server import create_zombie_automation, probe, running_server
    from pipeline import console

    current = get_current_settings()
    api_url = str(current.api.url).rstrip("/")
    if dry_run:
        console.say(f"at {api_url} answers: {probe(api_url)}")
        for name in sorted(flow_tags()):
            console.say(f"  would serve {name}/local")
        return
    with running_server(api_url, current.home) as server:
        create_zombie_automation()
        served = make_deployments()
        _show_next(served, api_url, variables)
        # Returns on Ctrl-C and on SIGTERM, which it takes for the normal end of serving.
        serve(*served, limit=limit, print_starting_message=False, pause_on_shutdown=False)
    _show_end(api_url, server.process is not None)


def flow_tags() -> dict[str, list[str]]:
    """The flows by name, with the tags their runs carry."""
    return {
        "synth-promptcot": ["promptcot", "stage:synthesis"],
        "refine-rationales": ["promptcot", "stage:synthesis"],
        "build-curriculum": ["promptcot", "stage:curriculum"],
        "train-sft": ["promptcot", "stage:training"],
        "evaluate": ["promptcot", "stage:evaluation"],
        "reproduce": ["promptcot", "stage:all"],
    }


def make_deployments() -> list[RunnerDeployment]:
    """One deployment, named ``local``, of every flow."""
    from flows.bare_name_plugin import DEPLOYMENT_NAME
    from flows.build_curriculum import build_curriculum
    from flows.evaluate import evaluate
    from flows.refine_rationales import refine_rationales
    from flows.reproduce import reproduce
    from flows.synth_promptcot import synth_promptcot
    from flows.train_sft import train_sft

    flows: list[Any] = [
        synth_promptcot,
        refine_rationales,
        build_curriculum,
        train_sft,
        evaluate,
        reproduce,
    ]
    tags = flow_tags()
    return [flow.to_deployment(name=DEPLOYMENT_NAME, tags=tags[flow.name]) for flow in flows]


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
