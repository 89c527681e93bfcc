"""The user's literal lines, from nothing to green, through real processes.

``python -m flows.deployments`` starts a server and serves; ``prefect deployment run NAME --watch``
is typed in the repository's root; Ctrl-C ends it all.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 180

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_environment(home: Path, port: int) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return {
        **kept,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "DO_NOT_TRACK": "1",
        # A table that is cut at 80 columns cannot be searched.
        "COLUMNS": "300",
    }


def prefect(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A ``prefect`` command as typed in the repository's root."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "prefect"), *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@contextmanager
def serving(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``python -m flows.deployments`` until it says that it serves."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.deployments"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while "Ctrl-C stops serving" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.5)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def test_the_literal_command_runs_green_and_ctrl_c_leaves_nothing_behind(
    tmp_path: Path, scripted_recipe: Path
) -> None:
    port = free_port()
    environment = make_environment(tmp_path / "home", port)
    log = tmp_path / "serve.log"
    parameters = ["-p", f"recipe={scripted_recipe}", "-p", f"out={tmp_path / 'run'}"]
    with serving(environment, log) as process:
        done = prefect(environment, "deployment", "run", "synth-promptcot", *parameters, "--watch")
        assert done.returncode == 0, done.stdout + done.stderr + log.read_text(encoding="utf-8")
        assert "'Completed'" in done.stdout
        assert (tmp_path / "run" / "synthesis" / "verified" / "LATEST").is_file()

        full = prefect(environment, "deployment", "run", "synth-promptcot/local", *parameters)
        assert full.returncode == 0, full.stdout + full.stderr

        unknown = prefect(environment, "deployment", "run", "synth")
        assert unknown.returncode == 1
        assert "synth-promptcot/local" in unknown.stderr
        assert "Traceback" not in unknown.stderr

        wrong = ["-p", "recipe=nowhere", "--watch"]
        failed = prefect(environment, "deployment", "run", "evaluate", *wrong)
        assert failed.returncode == 1
        assert "no recipe named 'nowhere'" in log.read_text(encoding="utf-8")
        assert "Traceback" not in log.read_text(encoding="utf-8")

        with serving(environment, tmp_path / "second.log"):
            pass
        assert "stopped" not in log.read_text(encoding="utf-8")
        automations = httpx.post(f"http://127.0.0.1:{port}/api/automations/filter", json={})
        assert len(automations.json()) == 1

        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text(encoding="utf-8")
    assert "has been stopped too" in log.read_text(encoding="utf-8")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/api/health")


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
