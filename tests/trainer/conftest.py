"""The tiny experiment of the trainer's tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fixtures import load_tiny, make_dataset, make_row

from pipeline.manifest import Version
from pipeline.settings import Recipe


@dataclass(frozen=True)
class Experiment:
    """A run folder with both datasets, and its recipe."""

    folder: Path
    out: Path
    dataset: Version

    def recipe(self, *overrides: str) -> Recipe:
        return load_tiny(self.folder, *overrides)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return make_experiment(tmp_path)


@pytest.fixture(scope="module")
def shared_experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """One for all tests of a module that only read or only add to it."""
    return make_experiment(tmp_path_factory.mktemp("experiment"))


def make_experiment(folder: Path) -> Experiment:
    out = folder / "run"
    dataset = make_dataset(out, [make_row(n, 1 + n % 2) for n in range(14)])
    make_dataset(out, [make_row(n + 50) for n in range(6)], "2")
    load_tiny(folder)
    return Experiment(folder=folder, out=out, dataset=dataset)


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make training stop as by Ctrl-C after a step."""

    def arrange(step: int) -> None:
        from trainer.callbacks import TrainingLog

        def stop(
            self: TrainingLog, args: object, state: object, *rest: object, **kw: object
        ) -> None:
            if state.global_step == step:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

        monkeypatch.setattr(TrainingLog, "on_step_begin", stop)

    return arrange
