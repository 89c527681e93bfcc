"""The tiny experiment of the trainer's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_experiment import Experiment, make_experiment


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return make_experiment(tmp_path)


@pytest.fixture(scope="module")
def shared_experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """One for all tests of a module that only read or only add to it."""
    return make_experiment(tmp_path_factory.mktemp("experiment"))


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
