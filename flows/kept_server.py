"""A Prefect server that dies is started again by who serves: runs go on meanwhile.

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
_LOOK_S = 1.0


class KeptServer:
    """Looks after a server in a thread of its own.

    Args:
        process: The running server, if it was started here.
        start: Starts another one.
        is_gone: Whether a server that was there before listens no longer.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes] | None,
        start: Start,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> None:
        self.process = process
        self._start = start
        self._is_gone = is_gone
        self._deaths: list[float] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no longer; a server that was started here and runs now is :attr:`process`."""
        self._is_over.set()
        self._thread.join()

    def wait_until_given_up(self, seconds: float) -> None:
        """Return when the server has died too often to be started again, or time is up."""
        self._thread.join(seconds)

    def _watch(self) -> None:
        while not self._is_over.wait(_LOOK_S):
            process = self.process
            is_gone = self._is_gone() if process is None else process.poll() is not None
            if is_gone and not self._revive():
                return

    def _revive(self) -> bool:
        """Start it again; false when that is no use."""
        now = time.monotonic()
        self._deaths = [*(death for death in self._deaths if now - death < _WINDOW_S), now]
        if len(self._deaths) >= _MOST_STARTS:
            console.warn(
                f"the Prefect server died {len(self._deaths)} times in {_WINDOW_S / 60:.0f} "
                "minutes and is not started again; runs go on, but nobody sees them: stop this "
                "command and start it again"
            )
            return False
        how = "is gone" if self.process is None else f"ended (exit code {self.process.returncode})"
        console.warn(f"the Prefect server {how}: starting it again")
        self.process, _ = self._start()
        return True


@contextmanager
def restarting(
    process: subprocess.Popen[bytes] | None,
    start: Start,
    is_gone: Callable[[], bool] = lambda: False,
) -> Iterator[KeptServer]:
    """Start a server again whenever it dies within the block; arguments as of the class."""
    kept = KeptServer(process, start, is_gone)
    try:
        yield kept
    finally:
        kept.close()
