"""A run that is cut off goes on where it was and ends in the same weights."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import (
    Experiment,
    assert_equal_results,
    make_dataset,
    make_experiment,
    make_row,
)

from pipeline.cli import exit_code_of
from pipeline.errors import StoreError
from trainer.sft import app, train_phase
from trainer.step_checkpoints import find_resumable

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def undisturbed(shared_experiment: Experiment) -> Path:
    return train_phase(shared_experiment.recipe(), "1", shared_experiment.out).checkpoint


def steps_folder(experiment: Experiment) -> Path:
    (staging,) = (experiment.out / "checkpoints").glob(".staging-phase-1-*")
    return staging / "steps"


def test_ctrl_c_prints_the_command_that_continues(
    experiment: Experiment,
    undisturbed: Path,
    interrupt_at: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    interrupt_at(5)
    options = ["--recipe", str(experiment.folder / "tiny.toml"), "--out", str(experiment.out)]
    code = exit_code_of(app, "python -m trainer.sft", ["--phase", "1", *options])
    assert code == 130
    assert "continue with: python -m trainer.sft --phase 1" in capsys.readouterr().err
    assert not (experiment.out / "checkpoints" / "phase-1").exists()
    monkeypatch.undo()

    result = train_phase(experiment.recipe(), "1", experiment.out)
    assert "resuming phase 1 from checkpoint-4" in capsys.readouterr().out
    assert_equal_results(result.checkpoint, undisturbed)


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A run that was stopped after its checkpoints 2 and 4, for tests to copy."""
    from trainer.callbacks import TrainingLog

    experiment = make_experiment(tmp_path_factory.mktemp("cut-off"))

    def stop(self: TrainingLog, args: Any, state: Any, *rest: Any, **kw: Any) -> None:
        if state.global_step == 5:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrainingLog, "on_step_begin", stop)
        train_phase(experiment.recipe(), "1", experiment.out)
    return experiment


def damage(checkpoint: Path, name: str) -> None:
    """Cut a file in half, as a kill while it was being written does."""
    path = checkpoint / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "train_log.jsonl",
     "trainer_state.json", "checkpoint.json"],
)  # fmt: skip
def test_a_damaged_checkpoint_is_named_and_passed_over(
    cut_off: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    steps = tmp_path / "steps"
    shutil.copytree(steps_folder(cut_off), steps)
    found = find_resumable(steps)
    assert found == steps / "checkpoint-4"
    damage(found, name)
    assert find_resumable(steps) == steps / "checkpoint-2"
    shown = capsys.readouterr().out
    assert "checkpoint-4 is damaged" in shown
    assert "falling back to the one before" in shown
    damage(steps / "checkpoint-2", name)
    assert find_resumable(steps) is None


def test_one_changed_byte_is_noticed(
    cut_off: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = tmp_path / "steps"
    shutil.copytree(steps_folder(cut_off), steps)
    weights = steps / "checkpoint-4" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    assert find_resumable(steps) == steps / "checkpoint-2"
    assert "the content of model.safetensors has changed" in capsys.readouterr().out


def test_checkpoints_are_pruned_to_the_newest(experiment: Experiment, monkeypatch: Any) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.publish.write_model_folder", stop)
    recipe = experiment.recipe("training.save_steps=1", "training.keep_checkpoints=2")
    with pytest.raises(KeyboardInterrupt):
        train_phase(recipe, "1", experiment.out)
    names = sorted(path.name for path in steps_folder(experiment).iterdir())
    assert names == ["checkpoint-7", "checkpoint-8"]


def test_a_full_disk_at_a_checkpoint_keeps_the_one_before(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trainer import run_state

    original = run_state.save_state

    def fill(model: Any, optimizer: Any, folder: Path) -> None:
        original(model, optimizer, folder)
        if folder.name == ".writing-4":
            raise RuntimeError("[enforce fail at inline_container.cc:672] unexpected pos 576 vs 5")

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="cannot write") as caught:
        patch.setattr(run_state, "save_state", fill)
        train_phase(experiment.recipe(), "1", experiment.out)
    assert "free some disk space" in caught.value.hint
    assert [p.name for p in steps_folder(experiment).iterdir()] == ["checkpoint-2"]
    train_phase(experiment.recipe(), "1", experiment.out)
    assert "resuming phase 1 from checkpoint-2" in capsys.readouterr().out


@pytest.mark.parametrize("precision", ["host_master", "stochastic"])
@pytest.mark.slow
def test_every_precision_resumes_exactly(
    experiment: Experiment,
    tmp_path: Path,
    interrupt_at: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    short = ("training.phases.1.epochs=1", "training.save_steps=1")
    recipe = experiment.recipe(f"training.precision={precision}", *short)
    (tmp_path / "calm").mkdir()
    calm = make_experiment(tmp_path / "calm")
    undisturbed = train_phase(recipe, "1", calm.out).checkpoint
    interrupt_at(2)
    with pytest.raises(KeyboardInterrupt):
        train_phase(recipe, "1", experiment.out)
    monkeypatch.undo()
    assert_equal_results(train_phase(recipe, "1", experiment.out).checkpoint, undisturbed)


@pytest.mark.slow
def test_resuming_from_the_one_before_gives_the_same_weights(
    cut_off: Experiment, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(cut_off.out, out)
    (staging,) = (out / "checkpoints").glob(".staging-phase-1-*")
    damage(staging / "steps" / "checkpoint-4", "optimizer.pt")
    result = train_phase(cut_off.recipe(), "1", out)
    assert "resuming phase 1 from checkpoint-2" in capsys.readouterr().out
    assert_equal_results(result.checkpoint, undisturbed)


@pytest.mark.slow
def test_a_kill_just_before_the_rename_is_only_renamed(
    experiment: Experiment, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer import checkpoints

    def stop(*arguments: object) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "publish", stop)
        train_phase(experiment.recipe(), "1", experiment.out)
    monkeypatch.setattr("trainer.run._train", stop)
    result = train_phase(experiment.recipe(), "1", experiment.out)
    assert_equal_results(result.checkpoint, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kill_9_at_any_moment_ends_in_the_same_weights(
    shared_experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [make_row(n, 1 + n % 2) for n in range(20)]
    overrides = ["training.phases.1.epochs=4", "training.save_steps=3"]
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for out in (calm, killed):
        make_dataset(out, rows)
    recipe = shared_experiment.recipe(*overrides)
    settings = [part for override in overrides for part in ("--set", override)]
    base = [sys.executable, "-m", "trainer.sft", "--phase", "1", "--out", str(killed)]
    command = [*base, "--recipe", str(shared_experiment.folder / "tiny.toml"), *settings]

    train_phase(recipe, "1", calm)
    kill_when(command, killed, lambda staging: logged(staging, 1))
    kill_when(command, killed, lambda staging: any(staging.glob("steps/.writing-*")))
    kill_when(command, killed, lambda staging: logged(staging, 13))
    capsys.readouterr()
    train_phase(recipe, "1", killed)
    assert "resuming phase 1 from checkpoint-12" in capsys.readouterr().out
    assert_equal_results(killed / "checkpoints" / "phase-1", calm / "checkpoints" / "phase-1")


def logged(staging: Path, step: int) -> bool:
    log = staging / "train_log.jsonl"
    return log.is_file() and f'"step": {step}}}' in log.read_text(encoding="utf-8")


def kill_when(command: list[str], out: Path, is_time: Callable[[Path], bool]) -> None:
    """Start a run and kill -9 it as soon as its staging folder looks so."""
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if any(map(is_time, (out / "checkpoints").glob(".staging-*"))):
            break
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
