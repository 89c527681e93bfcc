"""Trackers of ``report_to``: they are told what the run's own log holds, and nothing is lost."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from tiny_experiment import Experiment

from pipeline.errors import ConfigError
from trainer.run_log import read_lines
from trainer.sft import train_phase

WRITER = '''
import json
from pathlib import Path


class SummaryWriter:
    """Keeps what it is told as JSON lines, where TensorBoard would write events."""

    def __init__(self, log_dir):
        self._path = Path(log_dir) / "told.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def add_scalar(self, name, value, step):
        with self._path.open("a") as file:
            file.write(json.dumps([step, name, value]) + "\\n")

    def add_text(self, name, text, step=None):
        pass

    def flush(self):
        pass

    def close(self):
        pass
'''


@pytest.fixture
def tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages by the names that transformers looks for: an old TensorBoard, and its stand-in."""
    packages = tmp_path / "packages"
    for name, source in (("tensorboard", '__version__ = "1.0"\n'), ("tensorboardX", WRITER)):
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(packages)
    importlib.invalidate_caches()


@pytest.mark.usefixtures("tensorboard")
def test_a_tracker_is_told_the_steps_of_the_log_and_keeps_them(experiment: Experiment) -> None:
    recipe = experiment.recipe('training.report_to=["tensorboard"]', "training.logging_steps=2")
    result = train_phase(recipe, "1", experiment.out)
    lines = read_lines(result.checkpoint / "train_log.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 6, 8]

    folder = experiment.out / "logs" / "tensorboard" / "tiny-phase-1"
    told = [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]
    for name in ("loss", "grad_norm", "learning_rate"):
        seen = {step: value for step, key, value in told if key == f"train/{name}"}
        assert seen == {line["step"]: line[name] for line in lines}, name
    assert {"train/accuracy", "train/tokens_per_second"} <= {key for _, key, _ in told}


def test_a_tracker_that_is_not_installed_is_named(experiment: Experiment) -> None:
    recipe = experiment.recipe('training.report_to=["trackio"]')
    with pytest.raises(ConfigError, match="trackio is not installed"):
        train_phase(recipe, "1", experiment.out)


def test_the_logged_rate_is_the_one_of_the_steps_own_update(experiment: Experiment) -> None:
    result = train_phase(experiment.recipe(), "1", experiment.out)
    rates = [line["learning_rate"] for line in read_lines(result.checkpoint / "train_log.jsonl")]
    # Two steps of warm-up: the first update is made at a rate of 0, as transformers' schedule says.
    assert rates == pytest.approx([0, 1.5e-3, *[3e-3] * 6])
