"""Disks that run full: a small tmpfs of one's own, or a limit on the size of files."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KINDS = ("tmpfs", "limit")
"""A tmpfs needs root; the limit does not, and answers "File too large"."""


class SmallDisk:
    """A folder with little room.

    Args:
        folder: Made here; a tmpfs is mounted on it.
        kind: One of :data:`KINDS`.
        room: Bytes of the tmpfs, or of the largest file.
    """

    def __init__(self, folder: Path, kind: str, room: int) -> None:
        self.folder, self._kind = folder, kind
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.full = "No space left on device" if kind == "tmpfs" else "File too large"
        folder.mkdir()
        if kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, self._before[1]))
            return
        command = ["mount", "-t", "tmpfs", "-o", f"size={room}", "none", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("a tmpfs may not be mounted here")

    def grow(self) -> None:
        """Make room for everything."""
        if self._kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, self._before)
            return
        command = ["mount", "-o", "remount,size=512m", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)

    def close(self) -> None:
        """Take it away."""
        self.grow()
        if self._kind == "tmpfs":
            subprocess.run(["umount", "-l", str(self.folder)], check=True)


@contextmanager
def small_disk(folder: Path, kind: str, room: int) -> Iterator[SmallDisk]:
    """A small disk for the block."""
    disk = SmallDisk(folder, kind, room)
    try:
        yield disk
    finally:
        disk.close()
