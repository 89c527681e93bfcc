"""A server that this process started is started again when it dies: runs go on meanwhile.

A run needs Prefect's server to tell its states, not to work: its client tries again for about a
minute, and its files do not depend on it.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import console

Start = Callable[[], tuple[subprocess.Popen[bytes], Path]]
"""Starts a server; returns its process and its log."""

_MOST_STARTS = 5
"""A server that dies this often within :data:`_WINDOW_S` is left alone: it cannot work here."""
_WINDOW_S = 600.0
_LOOK_S = 0.5


class KeptServer:
    """Looks after a server in a thread of its own.

    Args:
        process: The running server.
        start: Starts another one.
    """

    def __init__(self, process: subprocess.Popen[bytes], start: Start) -> None:
        self.process = process
        self._start = start
        self._deaths: list[float] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no longer; the server that runs now is :attr:`process`."""
        self._is_over.set()
        self._thread.join()

    def wait_until_given_up(self, seconds: float) -> None:
        """Return when the server has died too often to be started again, or time is up."""
        self._thread.join(seconds)

    def _watch(self) -> None:
        while not self._is_over.wait(_LOOK_S):
            if self.process.poll() is not None and not self._revive():
                return

    def _revive(self) -> bool:
        """Start it again; false when that is no use."""
        code = self.process.returncode
        now = time.monotonic()
        self._deaths = [*(death for death in self._deaths if now - death < _WINDOW_S), now]
        if len(self._deaths) >= _MOST_STARTS:
            console.warn(
                f"the Prefect server died {len(self._deaths)} times in {_WINDOW_S / 60:.0f} "
                "minutes and is not started again; runs go on, but nobody sees them: stop this "
                "command and start it again"
            )
            return False
        console.warn(f"the Prefect server ended (exit code {code}): starting it again")
        self.process, _ = self._start()
        return True


@contextmanager
def restarting(process: subprocess.Popen[bytes], start: Start) -> Iterator[KeptServer]:
    """Start a server again whenever it dies within the block."""
    kept = KeptServer(process, start)
    try:
        yield kept
    finally:
        kept.close()
