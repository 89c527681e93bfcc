"""The Prefect server of the tests, brought up from nothing by the user's own command."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_START_S = 180.0


def free_port() -> int:
    """A port that nothing else is given until the server listens, seconds later.

    Those of connections, and of servers that ask for any, begin at 32,768.
    """
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


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


class OwnServer:
    """``python -m flows.deployments``, which starts a server and serves; used again while it runs.

    Args:
        folder: For Prefect's home and the log.
    """

    def __init__(self, folder: Path) -> None:
        self.home, self.log = folder / "home", folder / "serve.log"
        self.environment = make_environment(self.home, free_port())
        self.url = self.environment["PREFECT_API_URL"]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def database(self) -> Path:
        return self.home / "prefect.db"

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def start(self) -> None:
        """Bring it up, unless it is up."""
        if self.process is not None:
            return
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.deployments"],
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_S
        while "Ctrl-C stops serving" not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)

    def end(self, number: signal.Signals) -> int:
        """Send it a signal and wait; its exit code."""
        assert self.process is not None
        process, self.process = self.process, None
        process.send_signal(number)
        return process.wait(60)

    def prefect(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a ``prefect`` command as typed in the repository's root."""
        return subprocess.Popen(
            [str(Path(sys.executable).parent / "prefect"), *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextmanager
def talking_to(url: str) -> Iterator[None]:
    """Have this process use a server; nothing of it is left open afterwards.

    A connection that stays open draws from the global generator of random numbers every 20 s,
    which a property test elsewhere would be blamed for.
    """
    from prefect.context import _temporary_global_settings_context, get_settings_context
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogHandler
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    # Without heartbeats a run does not wait a second for the thread that sends them.
    settings = {PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    # Threads know the process's settings only.
    with temporary_settings(settings), _temporary_global_settings_context(get_settings_context()):
        yield
        APILogHandler().flush()
        EventsWorker.drain_all()
