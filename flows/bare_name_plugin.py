"""Prefect plugin: ``prefect deployment run synth-promptcot`` finds its deployment by flow name.

Prefect wants FLOW/DEPLOYMENT there. Prefect has no supported way to extend its command line, so
this plugin (entry point group ``prefect.plugins``, allow-listed in pyproject.toml) replaces
``PrefectClient.read_deployment_by_name`` in the process of ``prefect deployment run|inspect`` and
nowhere else. When Prefect has changed so that this cannot work, Prefect stays as it is.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import httpx
from prefect.plugins import register_hook

from pipeline import console

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

DEPLOYMENT_NAME = "local"
"""The deployment that a bare flow name means when a flow has several."""
_START = "python -m flows.deployments"

ReadByName = Callable[[Any, str], Awaitable["DeploymentResponse"]]


@register_hook
def setup_environment(*, ctx: Any) -> None:
    """Prefect's start-up hook: teach this one command bare names."""
    # pluggy knows positional arguments only and Prefect passes this one by name: keyword-only.
    del ctx
    if not is_name_command(sys.argv, os.environ):
        return
    try:
        from prefect.client.orchestration import PrefectClient

        stock = PrefectClient.read_deployment_by_name
    except (ImportError, AttributeError) as exc:
        logging.getLogger(__name__).debug("Prefect has changed; bare names are off: %s", exc)
        return
    setattr(PrefectClient, "read_deployment_by_name", _with_bare_names(stock))  # noqa: B010


def is_name_command(argv: Sequence[str], environ: Any) -> bool:
    """Whether this process is ``prefect deployment run|inspect`` typed by a person."""
    if "PREFECT__FLOW_RUN_ID" in environ or not argv:
        return False
    program = Path(argv[0])
    is_prefect = program.stem == "prefect" or program.parts[-2:] == ("prefect", "__main__.py")
    words = [word for word in argv[1:] if not word.startswith("-")]
    return is_prefect and any(
        group in {"deployment", "deployments"} and verb in {"run", "inspect"}
        for group, verb in itertools.pairwise(words)
    )


def _with_bare_names(stock: ReadByName) -> ReadByName:
    """The replacement: names with a slash go to Prefect's own method."""

    async def read_deployment_by_name(client: PrefectClient, name: str) -> DeploymentResponse:
        try:
            full = name if "/" in name else await find_full_name(client, name)
            deployment = await stock(client, full)
        except httpx.ConnectError:
            url = str(client.api_url).rstrip("/")
            _refuse(f"no Prefect server answers at {url}", f"start it with: {_START}")
        _warn_if_not_served(deployment, full)
        return deployment

    return read_deployment_by_name


async def find_full_name(client: PrefectClient, flow_name: str) -> str:
    """FLOW/DEPLOYMENT of a flow's only or preferred deployment.

    Raises:
        SystemExit: There is none, or no obvious one; the choices have been printed.
    """
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    wanted = FlowFilter(name=FlowFilterName(any_=[flow_name]))
    names = sorted(d.name for d in await client.read_deployments(flow_filter=wanted))
    preferred = [name for name in (DEPLOYMENT_NAME, flow_name) if name in names]
    if len(names) == 1 or preferred:
        return f"{flow_name}/{(preferred or names)[0]}"
    if names:
        choices = ", ".join(f"{flow_name}/{name}" for name in names)
        _refuse(f"{flow_name!r} has several deployments: {choices}", "name one of them")
    known = ", ".join(await _deployed_flows(client))
    return _refuse(
        f"no deployment of a flow named {flow_name!r}",
        f"use one of: {known}" if known else f"nothing is deployed yet; start with: {_START}",
    )


async def _deployed_flows(client: PrefectClient) -> list[str]:
    flows = {flow.id: flow.name for flow in await client.read_flows()}
    deployments = await client.read_deployments()
    return sorted(f"{flows[d.flow_id]}/{d.name}" for d in deployments if d.flow_id in flows)


def _refuse(message: str, hint: str) -> NoReturn:
    """Say it in one line and end the command with Prefect's own exit code for refusals."""
    console.show_error(message, hint)
    raise SystemExit(1)


def _warn_if_not_served(deployment: DeploymentResponse, name: str) -> None:
    """Without a serving process or a worker a run would wait, late, with no word of why."""
    if str(getattr(deployment.status, "value", "")) == "NOT_READY":
        pool = deployment.work_pool_name
        start = f"prefect worker start --pool {pool}" if pool else _START
        console.warn(f"nothing serves {name} at the moment; the run waits until you start {start}")
