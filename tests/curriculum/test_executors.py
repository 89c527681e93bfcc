"""The same tasks in this process, in a pool and on a real Ray cluster; workers that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from curriculum_rows import make_recipe, questions, tree
from executor_tasks import die, die_once, refuse, square

from curriculum.build import build_phase
from curriculum.executors import Executor, open_executor
from pipeline.errors import SourceError, StoreError
from pipeline.settings import load_recipe
from pipeline.settings.curriculum import CurriculumSettings

KINDS = ("serial", "pool", pytest.param("ray", marks=pytest.mark.slow))


@pytest.fixture(params=KINDS, scope="module")
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with pytest.MonkeyPatch.context() as patch:
        # Workers import the tasks' module.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        kind = "ray" if request.param == "ray" else "local"
        workers = 1 if request.param == "serial" else 2
        with open_executor(CurriculumSettings(executor=kind, num_workers=workers)) as opened:
            yield opened


def test_every_task_is_done_once(executor: Executor) -> None:
    found = dict(executor.map(square, range(25)))
    assert found == {number: number * number for number in range(25)}
    assert executor.run(square, 7) == 49
    assert list(executor.map(square, [])) == []


def test_few_tasks_are_taken_ahead(executor: Executor) -> None:
    taken = []

    def watched() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    done = 0
    for _ in executor.map(square, watched()):
        assert len(taken) <= done + executor.num_slots + 1
        done += 1
    assert done == 50


def test_an_error_of_ours_comes_back_whole(executor: Executor) -> None:
    with pytest.raises(SourceError, match="row 3 is broken") as error:
        list(executor.map(refuse, range(6)))
    assert error.value.hint == "mend row 3"
    with pytest.raises(SourceError, match="row 3 is broken"):
        executor.run(refuse, 3)


@pytest.fixture(params=KINDS[1:], scope="module")
def processes(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        kind = "ray" if request.param == "ray" else "local"
        with open_executor(CurriculumSettings(executor=kind, num_workers=2)) as opened:
            yield opened


def test_a_killed_worker_loses_nothing(processes: Executor, tmp_path: Path) -> None:
    paths = [tmp_path / f"t{number}" for number in range(1)]
    paths += [tmp_path / "a", tmp_path / "b"]
    for path in paths[1:]:
        path.with_suffix(".tried").touch()
    assert dict(processes.map(die_once, paths)) == {path: path.name for path in paths}


def test_workers_that_always_die_end_the_run() -> None:
    with (
        pytest.MonkeyPatch.context() as patch,
        open_executor(CurriculumSettings(num_workers=2)) as pool,
    ):
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        with pytest.raises(StoreError, match="ended 4 times"):
            list(pool.map(die, [1]))


ORPHANS = """
import sys, time
from curriculum.executors import open_executor
from executor_tasks import square
from pipeline.settings.curriculum import CurriculumSettings
if __name__ == "__main__":
    with open_executor(CurriculumSettings(num_workers=2)) as pool:
        list(pool.map(square, range(8)))
        print("ready", flush=True)
        time.sleep(60)
"""


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(ORPHANS, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
        children = _children(parent.pid)
        assert len(children) >= 2
        parent.kill()
        parent.wait()
        for _ in range(100):
            if not any(map(_is_alive, children)):
                return
            time.sleep(0.05)
    raise AssertionError(f"workers {children} outlived their parent")


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.slow
def test_a_build_on_ray_gives_the_same_bytes(tmp_path: Path) -> None:
    small = ["curriculum.batch_rows=7", "curriculum.shard_rows=9"]
    recipe = make_recipe(tmp_path / "r", ot2=questions(30), overrides=small)
    alone = build_phase(recipe, "1", tmp_path / "alone")
    ray = load_recipe(
        str(recipe.path), [*small, "curriculum.executor=ray", "curriculum.num_workers=2"]
    )
    cancel = lambda number, frame: None  # noqa: E731 - e.g. Prefect's
    before = signal.signal(signal.SIGTERM, cancel)
    try:
        many = build_phase(ray, "1", tmp_path / "ray")
        # Cancelling what comes after the build is the flow's, not Ray's.
        assert signal.getsignal(signal.SIGTERM) is cancel
    finally:
        signal.signal(signal.SIGTERM, before)
    assert tree(many.folder) == tree(alone.folder)
    assert tree(tmp_path / "ray" / "prepared") == tree(tmp_path / "alone" / "prepared")
