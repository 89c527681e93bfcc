"""Shared fixtures: no test reaches the network, and every run folder is the test's own."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from pipeline import console

# Both limits go by the clock, which on shared cores tells how busy the machine is.
hypothesis.settings.register_profile(
    "shared-cores", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared-cores")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
# Kernels run in Triton's interpreter where there is no GPU. It looks when it is first imported,
# which any test module may do before the kernels' own.
if not (shutil.which("nvidia-smi") or any(Path("/dev").glob("nvidia*"))):
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Workers of one run (scripts/test has two) share the cores; PyTorch would take all of them in each.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _WORKERS)))

# A shell's background job ignores SIGINT, and so would every process that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_LOOPBACK = ("127.", "localhost", "::1", "0.0.0.0")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to anything but this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(_LOOPBACK):
            raise OSError(f"tests are offline; connection to {address[0]} refused")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def fresh_console() -> Iterator[None]:
    """A command that a test runs with ``--json`` moves the console to standard error for good."""
    console.reset()
    yield
    console.reset()


LASTING_THREADS = (
    "GlobalEventLoopThread",  # Prefect's loops, one of each a process; they wait for calls
    "RunSyncEventLoopThread",
    "math-grader",  # supervises the grading process, which lives as long as this one
    "code-grader",  # the curriculum keeps one, as many programs are graded in few parts
    "tqdm_monitor",
)
"""Beginnings of names of the threads that a library starts once and keeps."""

ENDING_S = 10.0
"""How long a thread may take to notice that it has nothing left to do."""


def find_left_threads(before: set[threading.Thread]) -> list[str]:
    """Names of the threads that were started since and still run, whatever they wait for."""
    left = [thread for thread in threading.enumerate() if thread not in before]
    return sorted(
        thread.name
        for thread in left
        # A test server's connections end when the client is collected.
        if not thread.name.startswith(LASTING_THREADS) and "process_request" not in thread.name
    )


@pytest.fixture(autouse=True, scope="module")
def no_threads_left() -> Iterator[None]:
    """What a file's tests start ends with them: a thread left behind acts on the tests of others."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + ENDING_S
    while (left := find_left_threads(before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, f"threads outlive the tests of this file: {left}"


@pytest.fixture(autouse=True, scope="module")
def frozen_heap() -> Iterator[None]:
    """Modules that a file has imported are looked at by no later collection of garbage.

    With PyTorch and TRL loaded each one takes 0.3 s, and a training of three steps makes several.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def shared_data() -> Path:
    """Folder of real data beside the checkout; tests that want it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the optional folder ../shared/data beside the checkout")
    return folder
