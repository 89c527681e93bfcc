"""The Prefect server of a laptop: found when one answers, started when none does.

Outputs: a log file of the started server in Prefect's home folder.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import httpx

from flows.kept_server import KeptServer, restarting
from pipeline import console
from pipeline.errors import ConfigError, PipelineError
from pipeline.keys import server_environment

if TYPE_CHECKING:
    from prefect.events.schemas.automations import AutomationCore

DEFAULT_API_URL = "http://127.0.0.1:4200/api"
_START_TIMEOUT_S = 180.0
"""A first start creates the database; 55 s have been seen on a busy two-core machine."""
_STOP_TIMEOUT_S = 20.0
_LOG_LINES = 5
AUTOMATION = "promptcot: mark runs without a heartbeat as crashed"
HEARTBEAT_S = 30
_MISSED_BEATS = 3

Answer = Literal["server", "nothing", "other"]


@contextmanager
def running_server(api_url: str, home: Path) -> Iterator[KeptServer]:
    """A server at the URL for the duration of the block; its ``process`` is one started here.

    A server that answers already is used and left running. One that dies meanwhile is started
    again, also one that was there before, if it was a local one.

    Args:
        api_url: E.g. ``http://127.0.0.1:4200/api``.
        home: Prefect's home folder; holds the started server's log.

    Raises:
        ConfigError: Something else listens there, or a remote server does not answer.
        PipelineError: The server does not start.
    """
    answer = probe(api_url)
    if answer == "server":
        console.say(f"a Prefect server answers at {api_url}")
        with _replacing(api_url, home) as other:
            yield other
        return
    if answer == "other":
        raise ConfigError(
            f"something that is no Prefect server listens at {api_url}",
            hint="stop it, or choose another port, for this command and for `prefect`: "
            "export PREFECT_API_URL=http://127.0.0.1:4201/api",
        )
    process, log = _start(api_url, home)
    kept: KeptServer | None = None
    try:
        _wait_until_ready(process, api_url, log)
        with restarting(process, partial(_start, api_url, home)) as kept:
            yield kept
    finally:
        stop(process if kept is None or kept.process is None else kept.process)


@contextmanager
def _replacing(api_url: str, home: Path) -> Iterator[KeptServer]:
    """Have a local server that was there before followed by one of ours when it is gone."""

    def is_gone() -> bool:
        return _is_local(api_url) and probe(api_url) == "nothing"

    kept: KeptServer | None = None
    try:
        with restarting(None, partial(_start, api_url, home), is_gone) as kept:
            yield kept
    finally:
        if kept is not None and kept.process is not None:
            stop(kept.process)


def _is_local(api_url: str) -> bool:
    address = urlsplit(api_url)
    return address.hostname in {"127.0.0.1", "localhost", "::1"} and address.path == "/api"


def probe(api_url: str) -> Answer:
    """What answers at an API URL: a Prefect server, nothing, or another program."""
    try:
        reply = httpx.get(f"{api_url}/health", timeout=10, trust_env=False)
    except httpx.ConnectError:
        return "nothing"
    except httpx.HTTPError:
        return "other"
    return "server" if reply.status_code == 200 and reply.text.strip() == "true" else "other"


def _start(api_url: str, home: Path) -> tuple[subprocess.Popen[bytes], Path]:
    address = urlsplit(api_url)
    if not _is_local(api_url):
        raise ConfigError(
            f"no Prefect server answers at {api_url}, and only local ones are started here",
            hint=f"start it there, or: export PREFECT_API_URL={DEFAULT_API_URL}",
        )
    home.mkdir(parents=True, exist_ok=True)
    log = home / "promptcot-server.log"
    console.say(f"starting a Prefect server at {api_url} (the first start can take a minute)")
    command = [sys.executable, "-m", "prefect", "server", "start"]
    if log.is_file():
        # Says why the server before this one ended.
        log.replace(log.with_name(f"{log.name}.1"))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", str(address.hostname), "--port", str(address.port or 80)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=server_environment(
                {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
            ),
            # Its database holds blocks and the key that they are encrypted with.
            umask=0o077,
            # Ctrl-C in the terminal stops the serving process first, and that one the server.
            start_new_session=True,
        )
    return process, log


def _wait_until_ready(process: subprocess.Popen[bytes], api_url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while probe(api_url) != "server":
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            has_ended = process.poll() is not None
            why = f"ended with code {process.returncode}" if has_ended else "did not answer"
            raise PipelineError(
                f"the Prefect server {why}: {' | '.join(lines[-_LOG_LINES:])}",
                hint=f"read its whole log: {log}",
            )
        time.sleep(0.5)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a started server, gently first."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def ensure_zombie_automation() -> Literal["created", "updated", "unchanged"]:
    """Have the server mark runs whose process died; returns what there was to do.

    A killed process cannot report its own end: without this its run stays *Running* for ever. An
    automation of an earlier version is brought up to date, one that was created twice at the same
    moment is deleted, and one that a person has switched off stays off.
    """
    from prefect import get_client

    wanted = _make_zombie_automation()
    with get_client(sync_client=True) as client:
        there = sorted(client.read_automations_by_name(AUTOMATION), key=lambda found: found.id)
        if not there:
            client.create_automation(wanted)
            return "created"
        for extra in there[1:]:
            client.delete_automation(extra.id)
        first = there[0]
        what = {"description", "trigger", "actions"}
        if _plain(first, what) == _plain(wanted, what):
            return "unchanged"
        wanted.enabled = first.enabled
        client.update_automation(first.id, wanted)
        return "updated"


def _make_zombie_automation() -> AutomationCore:
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    ends = {"Completed", "Failed", "Cancelled", "Crashed"}
    beat = "prefect.flow-run.heartbeat"
    return AutomationCore(
        name=AUTOMATION,
        description="A run that stops sending heartbeats has lost its process.",
        trigger=EventTrigger(
            after={beat},
            expect={beat, *(f"prefect.flow-run.{end}" for end in ends)},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=HEARTBEAT_S * _MISSED_BEATS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message="The run's process died: no heartbeat. Run it again to continue.",
            )
        ],
    )


def _plain(automation: AutomationCore, fields: set[str]) -> Any:
    """The fields as values that compare: sets in order, without ids that the server gives."""
    return _ordered(automation.model_dump(mode="json", include=fields))


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(item) for key, item in value.items() if key != "id"}
    if isinstance(value, list):
        return sorted((_ordered(item) for item in value), key=repr)
    return value
