"""The user's literal lines, from nothing to green, through real processes.

``python -m flows.deployments`` starts a server and serves; ``prefect deployment run NAME --watch``
is typed in the repository's root; Ctrl-C ends it all.
"""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest
from own_server import OwnServer

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
