"""The same tasks in this process, and in a pool of processes; workers that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path

import pytest
from executor_tasks import die_at_two, die_once, refuse, square, wait_for

from pipeline.errors import ConfigError, SourceError, StoreError
from pipeline.executors import Executor, open_executor
from pipeline.settings import load_recipe
from pipeline.settings.execution import ExecutionSettings

REMEDY = "feed it less"
FOUR = ("nobody", "one", "two", "three")


@contextmanager
def opened(num_workers: int, **settings: int) -> Iterator[Executor]:
    """Workers import the tasks' module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        execution = ExecutionSettings.model_validate(settings)
        with open_executor(execution, num_workers, remedy=REMEDY) as executor:
            yield executor


@pytest.fixture(params=[1, 2], ids=["serial", "pool"], scope="module")
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with opened(request.param) as executor:
        yield executor


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with opened(2) as executor:
        yield executor


def test_every_task_is_done_once(executor: Executor) -> None:
    found = list(executor.map(square, range(25)))
    assert found == [(number, number * number) for number in range(25)]
    assert executor.run(square, 7, "seven") == 49
    assert list(executor.map(square, [])) == []


def test_few_tasks_are_taken_ahead(executor: Executor) -> None:
    taken = []

    def watched() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    done = 0
    for _ in executor.map(square, watched()):
        assert len(taken) <= done + 2 * executor.num_slots + 1
        done += 1
    assert done == 50


def test_an_error_of_ours_comes_back_whole(executor: Executor) -> None:
    with pytest.raises(SourceError, match="row 3 is broken") as error:
        list(executor.map(refuse, range(6)))
    assert error.value.hint == "mend row 3"
    with pytest.raises(SourceError, match="row 3 is broken"):
        executor.run(refuse, 3, "row 3")


def test_results_come_in_the_order_of_the_tasks(pool: Executor, tmp_path: Path) -> None:
    # The first waits for the third, so it is done after it.
    paths = [tmp_path / name for name in ("late", "other", "early")]
    tasks = [(paths[0], paths[2]), (paths[1], None), (paths[2], None)]
    assert [task for task, _ in pool.map(wait_for, tasks)] == tasks


def test_a_killed_worker_loses_nothing(pool: Executor, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path in paths[1:]:
        path.with_suffix(".tried").touch()
    assert list(pool.map(die_once, paths)) == [(path, path.name) for path in paths]
    (again := tmp_path / "again").touch()
    assert pool.run(die_once, again, "again") == "again"


def test_a_task_that_always_kills_its_worker_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with opened(2) as pool:
        with pytest.raises(StoreError, match=r"^two: whoever worked on it ended 4 times") as error:
            list(pool.map(die_at_two, range(4), FOUR.__getitem__))
        assert REMEDY in error.value.hint
        # Those beside it were lost at most once, and are done again one by one.
        said = capsys.readouterr().out
        assert said.count("worker on two") == 3
        assert all(said.count(f"worker on {name}") <= 1 for name in FOUR if name != "two")
        with pytest.raises(StoreError, match=r"^two: whoever worked on it ended 4 times"):
            pool.run(die_at_two, 2, "two")


def test_losses_are_bounded_by_the_recipe() -> None:
    with opened(2, max_losses=0) as pool, pytest.raises(StoreError, match=r"ended once without"):
        list(pool.map(die_at_two, [2]))


def test_nothing_begins_after_a_cancellation() -> None:
    with opened(2) as pool:
        pool.cancel()
        with pytest.raises(CancelledError):
            pool.run(square, 3, "three")


def test_ray_that_is_not_installed_is_told_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    settings = ExecutionSettings(executor="ray")
    with (
        pytest.raises(ConfigError, match="is not installed") as error,
        open_executor(settings, 2, remedy=REMEDY),
    ):
        pass
    assert "promptcot-mamba[ray]" in error.value.hint


@pytest.mark.parametrize("address", ["auto", "head:6379", "10.0.0.1:6379", "[::1]:6379"])
def test_addresses_of_clusters(address: str) -> None:
    assert ExecutionSettings(ray_address=address).ray_address == address


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "http://head:8265", "a b:1"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="Ray Client"):
        load_recipe("demo", [f'execution.ray_address="{address}"'])


ORPHANS = """
import sys, time
from pipeline.executors import open_executor
from executor_tasks import square
from pipeline.settings.execution import ExecutionSettings
if __name__ == "__main__":
    with open_executor(ExecutionSettings(), 2, remedy="") as pool:
        list(pool.map(square, range(8)))
        print("ready", flush=True)
        time.sleep(60)
"""


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(ORPHANS, encoding="utf-8")
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
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
