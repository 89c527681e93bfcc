"""The server that serving started comes back when it is killed, but not without end."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flows import kept_server
from flows.kept_server import restarting

SERVER = [sys.executable, "-c", "input()"]


class Starts:
    """Starts processes that stand for servers, and lets a test wait for each."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.told = threading.Semaphore(0)

    def __call__(self) -> tuple[subprocess.Popen[bytes], Path]:
        self.processes.append(subprocess.Popen(SERVER, stdin=subprocess.PIPE))
        self.told.release()
        return self.processes[-1], Path("unused.log")

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def test_a_killed_server_is_started_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kept_server, "_LOOK_S", 0.01)
    starts = Starts()
    try:
        with restarting(starts()[0], starts) as kept:
            starts.told.acquire()
            starts.processes[0].kill()
            assert starts.told.acquire(timeout=30)
        assert kept.process is starts.processes[1]
        assert kept.process.poll() is None
    finally:
        starts.end()
    assert "exit code -9): starting it again" in capsys.readouterr().out
    assert len(starts.processes) == 2, "what is ended afterwards stays ended"


def test_a_server_that_cannot_live_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kept_server, "_LOOK_S", 0.01)
    monkeypatch.setattr(sys.modules[__name__], "SERVER", [sys.executable, "-c", "exit(3)"])
    starts = Starts()
    try:
        with restarting(starts()[0], starts) as kept:
            kept.wait_until_given_up(60)
    finally:
        starts.end()
    assert len(starts.processes) == 5
    assert "died 5 times in 10 minutes and is not started again" in capsys.readouterr().out


def test_a_server_that_was_there_before_is_followed_by_one_of_our_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its keeper was killed, then it died itself."""
    monkeypatch.setattr(kept_server, "_LOOK_S", 0.01)
    starts, gone = Starts(), threading.Event()
    try:
        with restarting(None, starts, gone.is_set) as kept:
            assert kept.process is None
            gone.set()
            assert starts.told.acquire(timeout=30)
        assert [kept.process] == starts.processes
    finally:
        starts.end()
    assert "the Prefect server is gone: starting it again" in capsys.readouterr().out
