"""Shared fixtures: no test reaches the network, and every run folder is the test's own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import console

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
# Kernels run in Triton's interpreter where there is no GPU. It looks when it is first imported,
# which any test module may do before the kernels' own.
if not (shutil.which("nvidia-smi") or any(Path("/dev").glob("nvidia*"))):
    os.environ.setdefault("TRITON_INTERPRET", "1")

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


@pytest.fixture
def shared_data() -> Path:
    """Folder of real data beside the checkout; tests that want it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the optional folder ../shared/data beside the checkout")
    return folder
