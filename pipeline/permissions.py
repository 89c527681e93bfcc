"""Who can touch what a run writes: only its user can change it; who can read it, the umask says.

Run folders hold other people's texts and model answers, never keys. Labs read each other's runs, so
reading is left to the user's umask (``umask 077`` makes them private). Writing is not: whoever can
write into a run folder decides what the next command resumes from.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from pipeline.errors import StoreError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def keep_others_from_writing() -> None:
    """Have this process and its children create nothing that group or others can write."""
    # Strict between the two calls, in which another thread may create a file.
    before = os.umask(0o077)
    os.umask(before | _OTHERS_WRITE)


def is_open_to_all(folder: Path) -> bool:
    """Whether any user of the machine can create files in a folder, or replace what is there."""
    mode = folder.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def open_no_link(path: str | Path, flags: int) -> int:
    """Open a file of a known name; as an ``opener`` of ``open``, or by itself.

    Raises:
        StoreError: A symbolic link is there: writing through it would change a file elsewhere.
    """
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as exc:
        if exc.errno != errno.ELOOP:
            raise
        raise StoreError(
            f"{path} is a symbolic link; logs and locks are not written through one",
            hint="remove the link; to keep a run elsewhere, pass that folder as --out",
        ) from exc
