"""A Ray cluster of this machine ends with the run that started it, whoever is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow

RUN = """
import time
from pipeline import cli
from pipeline.errors import PipelineError
from pipeline.executors import open_executor
from pipeline.settings.execution import ExecutionSettings

if __name__ == "__main__":
    try:
        with open_executor(ExecutionSettings(executor="ray"), 2, remedy="feed it less") as executor:
            for second, _ in executor.map(time.sleep, [0.5] * 200):
                print("done", flush=True)
    except PipelineError as exc:
        print(f"{exc}; {exc.hint}", flush=True)
"""


@contextmanager
def working(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A run whose tasks are being done, and all processes below it."""
    script = folder / "run.py"
    script.write_text(RUN, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=folder
    ) as run:
        assert run.stdout is not None
        below: list[psutil.Process] = []
        try:
            while run.stdout.readline() != "done\n":
                assert run.poll() is None
            below += psutil.Process(run.pid).children(recursive=True)
            yield run, below
        finally:
            run.kill()
            for process in below:
                with suppress(psutil.Error):
                    process.kill()


def require_ended(processes: list[psutil.Process]) -> None:
    _, left = psutil.wait_procs(processes, timeout=20)
    assert [name_of(process) for process in left] == []


def name_of(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())[:80]
    return ""


def test_nothing_outlives_a_killed_run(tmp_path: Path) -> None:
    with working(tmp_path) as (run, below):
        names = " ".join(map(name_of, below))
        assert "raylet" in names and "ray::DashboardAgent" in names
        run.kill()
        run.wait()
        require_ended(below)


def test_a_killed_cluster_is_told_in_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    with working(tmp_path) as (run, below):
        next(process for process in below if process.name() == "raylet").kill()
        said, _ = run.communicate(timeout=60)
        told = said.splitlines()[-1]
        assert "Ray's own process on this machine was killed; finished work is kept" in told
        assert "run the same command again" in told and "feed it less" in told
        require_ended(below)
