"""The user's literal lines, from nothing to green, through real processes.

``python -m flows.deployments`` starts a server and serves; ``prefect deployment run NAME --watch``
is typed in the repository's root; Ctrl-C ends it all.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from own_server import ROOT, OwnServer, free_port, make_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


def test_the_literal_command_runs_green_and_ctrl_c_leaves_nothing_behind(
    tmp_path: Path, scripted_recipe: Path, own_server: OwnServer
) -> None:
    own_server.start()
    run = ("deployment", "run")
    parameters = ["-p", f"recipe={scripted_recipe}", "-p", f"out={tmp_path / 'run'}"]
    green = own_server.prefect(*run, "synth-promptcot", *parameters, "--watch")
    # Waits for the first: runs take turns.
    red = own_server.prefect(*run, "evaluate/local", "-p", "recipe=nowhere", "--watch")
    unknown = own_server.prefect(*run, "synth")

    _, said = unknown.communicate(timeout=240)
    assert unknown.returncode == 1
    assert "synth-promptcot/local" in said
    assert "Traceback" not in said

    told, said = green.communicate(timeout=240)
    assert green.returncode == 0, told + said + own_server.said()
    assert "'Completed'" in told
    assert (tmp_path / "run" / "synthesis" / "verified" / "LATEST").is_file()

    red.communicate(timeout=240)
    assert red.returncode == 1
    assert "no recipe named 'nowhere'" in own_server.said()
    assert "Traceback" not in own_server.said()

    assert own_server.end(signal.SIGINT) == 0, own_server.said()
    assert "has been stopped too" in own_server.said()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{own_server.url}/health")


def test_a_port_taken_by_another_program_is_named(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port := free_port()), "--bind", "127.0.0.1"],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    ) as other:
        try:
            wait_for_listener(port)
            done = start_deployments(make_environment(tmp_path, port))
        finally:
            other.terminate()
    assert done.returncode == 2
    assert f"no Prefect server listens at http://127.0.0.1:{port}/api" in done.stderr
    assert "PREFECT_API_URL" in done.stderr


def wait_for_listener(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens at port {port}")


def start_deployments(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """``python -m flows.deployments`` where it is expected to refuse."""
    return subprocess.run(
        [sys.executable, "-m", "flows.deployments"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_remote_server_that_is_silent_is_not_started_here(tmp_path: Path) -> None:
    environment = make_environment(tmp_path, 9)
    environment["PREFECT_API_URL"] = "http://127.0.0.1:9/prefect/api"
    done = start_deployments(environment)
    assert done.returncode == 2
    assert "only local ones are started here" in done.stderr
