"""What names a local file: its content. Files of gigabytes are hashed once a process."""

from __future__ import annotations

import time
from pathlib import Path

from pipeline.hashing import file_sha256

_known: dict[tuple[str, int, int, int], str] = {}
_SETTLED_S = 2.0
"""A file younger than this may change again within one tick of its clock."""


def identify(path: Path) -> str:
    """SHA-256 of a file; remembered while size, place and time of change stay the same."""
    state = path.stat()
    key = (str(path), state.st_ino, state.st_size, state.st_mtime_ns)
    if key not in _known:
        digest = file_sha256(path)
        if time.time() - state.st_mtime < _SETTLED_S:
            return digest
        _known[key] = digest
    return _known[key]
