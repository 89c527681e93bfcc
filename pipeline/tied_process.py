"""Processes that do not outlive who started them: ``python -m pipeline.tied_process PID COMMAND…``.

Becomes COMMAND, to which the kernel sends SIGTERM when the process PID that started it dies, even
by SIGKILL (Linux; elsewhere the command runs untied). A command that starts processes of its own
finds its process id in their environment, so that these can tie themselves to it in turn. Between
fork and exec a process with threads must not run Python, hence this program in between.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

LAUNCHER_PID = "PROMPTCOT_LAUNCHER_PID"
"""Environment variable: the process that all processes of one launch end with."""
_PR_SET_PDEATHSIG = 1
_EXIT_NOT_STARTED = 127


def tie_to_parent(signal_number: int) -> None:
    """Have the kernel send this process a signal when its parent's starting thread ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number)


def tie_to_launcher() -> None:
    """End by SIGTERM with the launcher that started this process, if there is one.

    A launcher that died before this process could ask ends it now.
    """
    launcher = os.environ.get(LAUNCHER_PID)
    if launcher is None:
        return
    tie_to_parent(signal.SIGTERM)
    if not _is_there(int(launcher)):
        signal.raise_signal(signal.SIGTERM)


def _is_there(pid: int) -> bool:
    if sys.platform != "linux":
        return True
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    # After the name, which may hold anything: Z is dead and not yet waited for.
    return status.rpartition(")")[2].split()[0] != "Z"


def run(arguments: Sequence[str]) -> int:
    """Tie this process to its parent and become the command; returns only if that fails."""
    parent, *command = arguments
    tie_to_parent(signal.SIGTERM)
    if sys.platform == "linux" and os.getppid() != int(parent):
        return _EXIT_NOT_STARTED
    os.environ[LAUNCHER_PID] = str(os.getpid())
    try:
        os.execvp(command[0], command)
    except OSError as exc:
        sys.stderr.write(f"error: {command[0]} does not start: {exc.strerror}\n")
    return _EXIT_NOT_STARTED


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
