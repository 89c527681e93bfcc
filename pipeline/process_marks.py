"""Which process a number means, after the system has given it to another one."""

from __future__ import annotations

from pathlib import Path


def process_mark(pid: int) -> str | None:
    """A process's start in ticks since the machine's, with the machine's; none if it is gone."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        # The name in brackets may hold anything, blanks and brackets included.
        ticks = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return None
    return f"{boot[:8]}-{ticks}"
