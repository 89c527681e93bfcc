"""Ends what Ray started for a process that was killed: ``python ray_guard.py OWNER``, by itself.

Ray's servers end with the process that started them. Its two agents do not: for a minute they try
to report the death to the head, which is gone too (170 MB, measured). So this small process waits
for its input to end, as it does whatever ends its owner, and kills every younger process that has
to do with the owner's session. On systems without ``/proc`` it does nothing. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from pathlib import Path

_QUIET_S = 3.0
"""Without a find: a process that was just being started has shown by then whose it is."""
_POLL_S = 0.2


def end_session(owner: int) -> None:
    """Kill what belongs to the Ray session that this process id began, until nothing does."""
    # Ray's name of a session: when it began, and the process that began it.
    session = re.compile(rf"/session_[0-9_-]+_{owner}/")
    # A cluster that an earlier process of this number left is somebody else's.
    oldest = _started(Path("/proc/self"))
    deadline = time.monotonic() + _QUIET_S
    while time.monotonic() < deadline:
        for folder in Path("/proc").glob("[0-9]*"):
            # Gone meanwhile, or another user's.
            with contextlib.suppress(OSError):
                if _started(folder) >= oldest and _is_of(folder, session):
                    os.kill(int(folder.name), signal.SIGKILL)
                    deadline = time.monotonic() + _QUIET_S
        time.sleep(_POLL_S)


def _started(process: Path) -> int:
    """When, in ticks of the machine."""
    # The name in brackets may hold anything, blanks and brackets included.
    return int((process / "stat").read_bytes().rpartition(b")")[2].split()[19])


def _is_of(process: Path, session: re.Pattern[str]) -> bool:
    """Whether it was told of the session's folder, or has a log of it open."""
    if session.search((process / "cmdline").read_text(errors="replace")):
        return True
    return any(session.search(str(path.readlink())) for path in (process / "fd").iterdir())


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_session(int(sys.argv[1]))
