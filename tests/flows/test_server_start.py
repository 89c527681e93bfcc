"""What the Prefect server that is started here is given, and who can read what it keeps."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from own_server import free_port

from flows import server
from pipeline.errors import ConfigError, PipelineError


def test_the_server_gets_no_key_keeps_its_files_to_the_user_and_listens_to_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[str], dict[str, Any]]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **how: started.append((command, how)))
    for variable in ("ANY_NAME", "PROMPTCOT_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "sk-planted-0123456789")
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_NAME", "runs")
    server._start("http://127.0.0.1:4321/api", tmp_path)
    ((command, how),) = started
    assert command[-4:] == ["--host", "127.0.0.1", "--port", "4321"]
    assert "sk-planted-0123456789" not in how["env"].values()
    assert how["env"]["PREFECT_SERVER_DATABASE_NAME"] == "runs"
    assert how["env"]["DO_NOT_TRACK"] == "1"
    assert how["umask"] == 0o077


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "prefect.example.org"])
def test_no_server_is_started_for_other_machines(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="only local ones are started"):
        server._start(f"http://{host}:4321/api", tmp_path)


def test_a_server_that_ends_at_once_is_not_said_to_be_slow(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("no such option\n", encoding="utf-8")
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(PipelineError, match="ended with code 0: no such option"):
        server._wait_until_ready(process, f"http://127.0.0.1:{free_port()}/api", log)


def test_a_port_taken_by_another_program_is_named(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{other.server_port}/api"
        with pytest.raises(ConfigError) as refused, server.running_server(url, tmp_path):
            pass
        other.shutdown()
        thread.join()
    assert f"no Prefect server listens at {url}" in str(refused.value)
    assert "PREFECT_API_URL" in refused.value.hint


def test_a_remote_server_that_is_silent_is_not_started_here(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/prefect/api"
    with (
        pytest.raises(ConfigError, match="only local ones are started here"),
        server.running_server(url, tmp_path),
    ):
        pass
