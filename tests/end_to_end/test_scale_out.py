"""Row-parallel stages on a real Ray cluster: two nodes on loopback, one of them killed."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cluster_tasks import die, hold_first, note_span, refuse, square
from curriculum_rows import make_recipe as make_curriculum
from curriculum_rows import questions
from curriculum_rows import tree as tree_of_build
from scripted_synthesis import make_recipe as make_synthesis
from scripted_synthesis import tree as tree_of_synthesis

from curriculum.build import build_phase
from pipeline.errors import ConfigError, SourceError, StoreError
from pipeline.executors import Executor, open_executor
from pipeline.settings import load_recipe
from pipeline.settings.execution import ExecutionSettings
from promptcot.synthesis import synthesize_all

pytestmark = pytest.mark.slow
NODE = {
    "num_cpus": 1,
    "object_store_memory": 80 << 20,
    "node_ip_address": "127.0.0.1",
    "include_dashboard": False,
}


SOON = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 300,
    "health_check_failure_threshold": 3,
}
"""A dead machine is noticed within a second."""


class Machines:
    """A cluster whose head does no work, so that any other node may die."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.address: str = cluster.address
        self._nodes: list[Any] = []

    def fill(self) -> None:
        """Two nodes that work."""
        while len(self._nodes) < 2:
            self._nodes.append(self._cluster.add_node(**NODE))

    def kill(self, node_id: str = "") -> None:
        """A node's processes get SIGKILL: the one of that id, or any."""
        chosen = next(node for node in self._nodes if node_id in ("", node.node_id))
        self._nodes.remove(chosen)
        self._cluster.remove_node(chosen, allow_graceful=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Machines]:
    with pytest.MonkeyPatch.context() as patch:
        # The nodes have the tests' tasks installed, so to speak; ours are sent to them.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        from ray.cluster_utils import Cluster

        made = Cluster(
            initialize_head=True, head_node_args=NODE | {"num_cpus": 0, "_system_config": SOON}
        )
        machines = Machines(made)
        try:
            yield machines
        finally:
            made.shutdown()


@pytest.fixture
def machines(cluster: Machines) -> Machines:
    cluster.fill()
    return cluster


@contextmanager
def joined(machines: Machines, **settings: Any) -> Iterator[Executor]:
    values = {"executor": "ray", "ray_address": machines.address, **settings}
    execution = ExecutionSettings.model_validate(values)
    with open_executor(execution, 2, remedy="feed it less") as executor:
        yield executor


def test_a_cluster_without_processors_ends_the_run(
    cluster: Machines, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first test: nothing but the head is there yet.
    monkeypatch.setattr("pipeline.executors.LOOK_S", 0.2)
    with (
        joined(cluster, ray_patience_s=0.5) as executor,
        pytest.raises(StoreError, match="has had no processor") as error,
    ):
        executor.run(square, 3, "three")
    assert "ray start" in error.value.hint
    assert "waiting for nodes to join" in capsys.readouterr().out


def test_tasks_errors_and_deaths(machines: Machines) -> None:
    with joined(machines, max_losses=1) as executor:
        assert list(executor.map(square, range(9))) == [(n, n * n) for n in range(9)]
        with pytest.raises(SourceError, match="row 3 is broken") as error:
            executor.run(refuse, 3, "row 3")
        assert error.value.hint == "mend row 3"
        with pytest.raises(StoreError, match=r"^number 1: whoever worked on it ended 2 times"):
            list(executor.map(die, range(4), lambda number: f"number {number}"))
        assert executor.run(square, 5, "five") == 25


def test_a_larger_cluster_is_left_to_others(
    machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    execution = ExecutionSettings(executor="ray", ray_address=machines.address)
    with open_executor(execution, 1, remedy="") as executor:
        spans = list(executor.map(note_span, range(4)))
    assert all(before[1] <= after[0] for (_, before), (_, after) in pairwise(spans))
    assert "1 of 2 processors of the Ray cluster are used" in capsys.readouterr().out


def test_a_killed_node_loses_nothing(machines: Machines, tmp_path: Path) -> None:
    with joined(machines) as executor:
        results = executor.map(hold_first, [(tmp_path, number) for number in range(8)])
        killer = threading.Thread(target=kill_holder, args=(machines, tmp_path / "holder"))
        killer.start()
        assert [result for _, result in results] == [number * number for number in range(8)]
        killer.join()
    starts = (tmp_path / "starts").read_text(encoding="ascii").split()
    assert starts.count("0") == 2 and set(starts) == set("01234567")


def kill_holder(machines: Machines, note: Path) -> None:
    await_true(note.exists)
    machines.kill(note.read_text(encoding="ascii"))


def await_true(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_node_without_the_run_folder_is_refused(machines: Machines, tmp_path: Path) -> None:
    execution = ExecutionSettings(executor="ray", ray_address=machines.address)
    absent = tmp_path / "not-mounted" / "recipe.json"
    with (
        pytest.raises(StoreError, match=r"does not see .*not-mounted") as error,
        open_executor(execution, 2, remedy="", shared=absent) as executor,
    ):
        executor.run(square, 3, "three")
    assert "mount" in error.value.hint


def test_verification_gives_the_same_bytes(machines: Machines, tmp_path: Path) -> None:
    alone = make_synthesis(tmp_path / "a", "synthesis.batch_size=3")
    synthesize_all(alone, tmp_path / "a" / "out")
    setting = [f"execution.{key}" for key in ("executor=ray", f'ray_address="{machines.address}"')]
    many = make_synthesis(tmp_path / "b", "synthesis.batch_size=3", *setting)
    # What comes before verification is the same anyway.
    shutil.copytree(
        tmp_path / "a" / "out", tmp_path / "b" / "out", ignore=shutil.ignore_patterns("verified")
    )
    with killing_after(machines, tmp_path / "b" / "out" / "synthesis" / "verified", ".json"):
        versions = synthesize_all(many, tmp_path / "b" / "out")
    assert versions["verified"].manifest.rows_out > 0
    assert tree_of_synthesis(tmp_path / "b" / "out") == tree_of_synthesis(tmp_path / "a" / "out")


def test_a_build_gives_the_same_bytes(machines: Machines, tmp_path: Path) -> None:
    small = ["curriculum.batch_rows=5", "curriculum.shard_rows=9"]
    recipe = make_curriculum(tmp_path / "r", ot2=questions(40), overrides=small)
    alone = build_phase(recipe, "1", tmp_path / "alone")
    ray = load_recipe(
        str(recipe.path),
        [*small, "execution.executor=ray", f'execution.ray_address="{machines.address}"'],
    )
    cancel = lambda number, frame: None  # noqa: E731 - e.g. Prefect's
    before = signal.signal(signal.SIGTERM, cancel)
    try:
        with killing_after(machines, tmp_path / "ray" / "prepared", ".table.parquet"):
            many = build_phase(ray, "1", tmp_path / "ray")
        # Cancelling what comes after the build is the flow's, not Ray's.
        assert signal.getsignal(signal.SIGTERM) is cancel
    finally:
        signal.signal(signal.SIGTERM, before)
    assert tree_of_build(many.folder) == tree_of_build(alone.folder)
    prepared = tree_of_build(tmp_path / "ray" / "prepared")
    assert prepared == tree_of_build(tmp_path / "alone" / "prepared")


@contextmanager
def killing_after(machines: Machines, folder: Path, suffix: str) -> Iterator[None]:
    """Once the first batch is there, a node dies."""
    killed = []

    def is_begun() -> bool:
        return any(name.endswith(suffix) for _, _, names in os.walk(folder) for name in names)

    def kill() -> None:
        await_true(is_begun)
        machines.kill()
        killed.append(is_begun())

    killer = threading.Thread(target=kill)
    killer.start()
    yield
    killer.join()
    assert killed == [True]


def test_a_cluster_that_is_not_there_is_named(cluster: Machines) -> None:
    execution = ExecutionSettings(executor="ray", ray_address="127.0.0.1:9")
    with (
        pytest.raises(ConfigError, match=r"cluster 127\.0\.0\.1:9 cannot be used"),
        open_executor(execution, 2, remedy=""),
    ):
        pass
