"""The scan's tiles are chosen once for a run, kept in its folder, and pinned when it goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_experiment import Experiment

from trainer import tile_choice
from trainer.job import Job, open_job
from trainer.kernels import tiles
from trainer.processes import Processes

ONE = Processes(rank=0, world_size=1)
SMALL = {"BLOCK_SIZE": 32, "num_warps": 4, "num_stages": 2}
LARGE = {"BLOCK_SIZE": 64, "num_warps": 8, "num_stages": 3}


def make_tuner() -> Any:
    proposed = [
        SimpleNamespace(
            kwargs={"BLOCK_SIZE": tile["BLOCK_SIZE"]},
            num_warps=tile["num_warps"],
            num_stages=tile["num_stages"],
        )
        for tile in (SMALL, LARGE)
    ]
    return SimpleNamespace(configs=proposed, best_config=None)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A stand-in for a GPU with one kernel: its timing prefers ``fastest`` and is counted."""
    pytest.importorskip("triton")
    found = SimpleNamespace(
        tuner=make_tuner(), fastest=SMALL, timed=0, device="GPU A", cache=tmp_path / "cache"
    )
    monkeypatch.setattr(tiles, "find_tuners", lambda: {"scan": found.tuner})
    monkeypatch.setattr(tiles, "_proposed", {"scan": found.tuner.configs})

    def choose(*run: Any) -> dict[str, Any]:
        found.timed += 1
        return {"scan": found.fastest}

    monkeypatch.setattr(tile_choice, "choose_tiles", choose)
    monkeypatch.setattr(tile_choice, "is_interpreted", lambda: False)
    monkeypatch.setattr(tile_choice, "device_name", lambda: found.device)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(found.cache))
    yield found


def settle(job: Job, machine: Any) -> list[int]:
    """What a new process does; its kernel's block sizes afterwards."""
    machine.tuner.configs = tiles._proposed["scan"]
    tile_choice.settle_tiles(job, ONE)
    return [tile.kwargs["BLOCK_SIZE"] for tile in machine.tuner.configs]


@pytest.fixture
def job(experiment: Experiment) -> Job:
    return open_job(experiment.recipe(), "1", experiment.out, None)


def test_a_run_that_goes_on_has_the_tiles_it_began_with(job: Job, machine: Any) -> None:
    assert settle(job, machine) == [32]
    # The next timing would say otherwise, and nothing but the run's own folder is left.
    machine.fastest = LARGE
    shutil.rmtree(machine.cache)
    assert settle(job, machine) == [32]
    assert machine.timed == 1
    assert json.loads((job.staging / "tiles.json").read_text())["tiles"] == {"scan": SMALL}


def test_equal_runs_on_one_machine_have_equal_tiles(job: Job, machine: Any) -> None:
    settle(job, machine)
    machine.fastest = LARGE
    shutil.rmtree(job.staging)
    assert settle(job, machine) == [32]
    assert machine.timed == 1


def test_another_gpu_chooses_anew_and_says_so(
    job: Job, machine: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settle(job, machine)
    machine.device, machine.fastest = "GPU B", LARGE
    assert settle(job, machine) == [64]
    assert "began on GPU A and goes on with GPU B" in " ".join(capsys.readouterr().out.split())
    assert settle(job, machine) == [64]


def test_other_processes_take_the_main_ones_tiles(
    job: Job, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Processes, "share", lambda self, value: value or {"scan": LARGE})
    tile_choice.settle_tiles(job, Processes(rank=1, world_size=2))
    assert machine.timed == 0
    assert [tile.kwargs["BLOCK_SIZE"] for tile in machine.tuner.configs] == [64]


def test_the_interpreter_has_no_tiles(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_choice, "is_interpreted", lambda: True)
    tile_choice.settle_tiles(job, ONE)
    assert not job.staging.exists()
