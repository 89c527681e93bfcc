"""What a command costs: processor time, wall time and memory of it and all its descendants."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
INTERVAL_S = 0.1
_SET_CHILD_SUBREAPER = 36
_PATIENCE_S = 20.0
"""How long processes that the command left behind may take to end."""


@dataclass(slots=True)
class Cost:
    """What a command took."""

    cpu_s: float = 0.0
    """User and system time of the tree."""
    wall_s: float = 0.0
    peak_mib: int = 0
    """Largest sum of resident memory over the tree; pages that processes share count in each."""
    output: str = ""
    curve: list[tuple[float, int]] = field(default_factory=list)
    """Seconds and MiB, a point a sample."""
    machine_s: float = 0.0
    """Processor time of the whole machine meanwhile: it holds what runs outside the tree, as do
    workers of a cluster, and whatever else was at work."""


def measure(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Cost:
    """Run a command to its end.

    Raises:
        RuntimeError: It failed; the log says why.
    """
    # What the command leaves behind comes to this process, else its time would be lost: workers
    # of multiprocessing's fork server belong to a process that nobody waits for.
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)
    before, machine_before = _children_s(), _machine_s()
    cost, started = Cost(), time.monotonic()
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **environment}
        )
        ended = threading.Event()
        watcher = threading.Thread(target=_watch, args=(cost, ended), daemon=True)
        watcher.start()
        assert process.stdout is not None
        cost.output = process.stdout.read().decode()
        process.wait()
        cost.wall_s = time.monotonic() - started
        _wait_for_all()
        ended.set()
        watcher.join()
    cost.cpu_s, cost.machine_s = _children_s() - before, _machine_s() - machine_before
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}; see {log}")
    return cost


def _children_s() -> float:
    """Processor time of all descendants that ended and were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _machine_s() -> float:
    """Processor time of everything since the machine started, waiting for disks left out."""
    user, nice, system, _, _, irq, softirq = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _wait_for_all() -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            time.sleep(INTERVAL_S)
    raise RuntimeError(f"processes of the command still run {_PATIENCE_S} s after it")


def _watch(cost: Cost, ended: threading.Event) -> None:
    started = time.monotonic()
    while not ended.wait(INTERVAL_S):
        mib = sum(_resident(one) for one in _tree(os.getpid())[1:]) * PAGE >> 20
        cost.peak_mib = max(cost.peak_mib, mib)
        cost.curve.append((round(time.monotonic() - started, 2), mib))


def _tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue  # It ended meanwhile.
    return found


def _resident(pid: int) -> int:
    """Pages of a process in memory."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
