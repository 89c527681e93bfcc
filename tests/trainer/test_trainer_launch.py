"""Training that is told to stop saves a checkpoint; training under a launcher is one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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

from pipeline.errors import ConfigError, GateRefused, Interrupted, PipelineError, StoreError
from pipeline.supervised import is_unwritten
from trainer.launch import build_command
from trainer.sft import train_phase
from trainer.stopping import ending_file, write_ending

RARELY = "training.save_steps=1000"
TWO = ("training.launch.launcher=torchrun", "training.launch.num_processes=2")


def steps(out: Path) -> list[str]:
    found = (out / "checkpoints").glob(".staging-phase-1-*/steps/checkpoint-*")
    return sorted(path.name for path in found)


def terminate_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """SIGTERM while the step after this one is made."""
    from trainer.callbacks import TrainingLog

    def stop(self: TrainingLog, args: Any, state: Any, *rest: Any, **kw: Any) -> None:
        if state.global_step == step:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(TrainingLog, "on_step_begin", stop)


def test_sigterm_finishes_the_step_saves_it_and_the_next_run_ends_in_the_same_bytes(
    experiment: Experiment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "calm").mkdir()
    calm = make_experiment(tmp_path / "calm")
    undisturbed = train_phase(calm.recipe(RARELY), "1", calm.out).checkpoint
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        terminate_at(patch, 4)
        train_phase(experiment.recipe(RARELY), "1", experiment.out)
    assert steps(experiment.out) == ["checkpoint-5"]
    assert "stopped by SIGTERM after step 5/8; checkpoint-5 is saved" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    result = train_phase(experiment.recipe(RARELY), "1", experiment.out)
    assert "resuming phase 1 from checkpoint-5" in capsys.readouterr().out
    assert_equal_results(result.checkpoint, undisturbed)


def test_sigterm_in_the_last_step_changes_nothing(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminate_at(monkeypatch, 7)
    result = train_phase(experiment.recipe(RARELY), "1", experiment.out)
    assert result.num_steps == 8


def test_whoever_handled_the_signal_before_is_asked_after_the_checkpoint(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cancelled(BaseException):
        """As Prefect raises it in a flow."""

    def cancel(*arguments: object) -> None:
        assert steps(experiment.out) == ["checkpoint-3"]
        raise Cancelled

    before = signal.signal(signal.SIGTERM, cancel)
    terminate_at(monkeypatch, 2)
    try:
        with pytest.raises(Cancelled):
            train_phase(experiment.recipe(RARELY), "1", experiment.out)
        assert signal.getsignal(signal.SIGTERM) is cancel
    finally:
        signal.signal(signal.SIGTERM, before)


def start(experiment: Experiment, out: Path, *overrides: str) -> subprocess.Popen[str]:
    """The trainer's command as a user types it."""
    command = [sys.executable, "-m", "trainer.sft", "--phase", "1", "--out", str(out)]
    command += ["--recipe", str(experiment.folder / "tiny.toml")]
    for override in overrides:
        command += ["--set", override]
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_step(process: subprocess.Popen[str], out: Path, step: int) -> None:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        for log in (out / "checkpoints").glob(".staging-phase-1-*/train_log.jsonl"):
            if f'"step": {step}}}' in log.read_text(encoding="utf-8"):
                return
        time.sleep(0.005)
    raise AssertionError(process.communicate()[0])


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_launched_processes_stop_after_one_step_and_end_in_the_same_bytes(
    experiment: Experiment, tmp_path: Path
) -> None:
    rows = [make_row(n, 1 + n % 2) for n in range(20)]
    options = (RARELY, "training.packing=exact", "training.micro_batch=1", *TWO)
    options += ("training.phases.1.epochs=6",)
    calm, cut = tmp_path / "calm", tmp_path / "cut"
    for out in (calm, cut):
        make_dataset(out, rows)
    undisturbed = start(experiment, calm, *options)
    output, _ = undisturbed.communicate(timeout=250)
    assert undisturbed.returncode == 0, output

    process = start(experiment, cut, *options)
    wait_for_step(process, cut, 2)
    process.terminate()
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 130, output
    assert "  stopped by SIGTERM after step " in output
    assert "continue with: python -m trainer.sft --phase 1" in output
    assert is_unwritten(cut / "logs" / "training-phase-1.log")
    (checkpoint,) = steps(cut)

    again = start(experiment, cut, *options)
    output, _ = again.communicate(timeout=250)
    assert again.returncode == 0, output
    assert f"  resuming phase 1 from {checkpoint}" in output
    assert_equal_results(cut / "checkpoints" / "phase-1", calm / "checkpoints" / "phase-1")


@pytest.mark.parametrize(
    ("script", "error", "message", "remedy"),
    [
        ("echo 'error: row 7 is odd'; echo 'remedy: make it even'; exit 1",
         StoreError, "training failed: row 7 is odd; its log is ", "make it even"),
        ("echo 'loss is nan'; exit 3", GateRefused, "'loss is nan'", "look there"),
        ("echo half a line; kill -9 $$", StoreError,
         "ended with signal 9, its last line is 'half a line'", "look there"),
        ("echo 'stopped by SIGTERM after step 4/9; checkpoint-4 is saved'; exit 130",
         Interrupted, "training was stopped by SIGTERM after step 4/9", "run the same command"),
        ("exit 0", StoreError, "left no checkpoint of phase 1", "same installation"),
    ],
)  # fmt: skip
def test_a_failure_is_one_sentence_with_the_log(
    experiment: Experiment, script: str, error: type[PipelineError], message: str, remedy: str
) -> None:
    args = ", ".join(f'"{part}"' for part in ("sh", "-c", script))
    recipe = experiment.recipe("training.launch.launcher=command", f"training.launch.args=[{args}]")
    with pytest.raises(error, match=message) as caught:
        train_phase(recipe, "1", experiment.out)
    assert str(experiment.out / "logs" / "training-phase-1.log") in str(caught.value)
    assert remedy in caught.value.hint


def test_the_trainers_own_record_of_its_failure_wins(experiment: Experiment) -> None:
    """Launchers end with 1 whatever their processes ended with."""
    path = ending_file(experiment.out, "1")
    code = f"""
from pathlib import Path
from trainer.stopping import write_ending
write_ending(Path({str(path)!r}), 3, "a leak", "another backend")
write_ending(Path({str(path)!r}), 130, "", "")
raise SystemExit(1)
"""
    recipe = experiment.recipe(
        "training.launch.launcher=command",
        f"training.launch.args=['{sys.executable}', '-c', '''{code}''']",
    )
    with pytest.raises(GateRefused, match="training failed: a leak; its log") as caught:
        train_phase(recipe, "1", experiment.out)
    assert caught.value.hint == "another backend"
    write_ending(path, 2, "newer", "")
    assert "newer" in path.read_text(encoding="utf-8")


def test_a_launcher_that_does_not_exist_is_named(experiment: Experiment) -> None:
    recipe = experiment.recipe(
        "training.launch.launcher=command", 'training.launch.args=["no-such-launcher"]'
    )
    with pytest.raises(ConfigError, match="no-such-launcher does not start"):
        train_phase(recipe, "1", experiment.out)


def test_commands_of_the_launchers(experiment: Experiment) -> None:
    recipe = experiment.recipe(*TWO, "training.seed=7")
    command = build_command(recipe, "1", Path("run"), Path("data"))
    assert command[1:6] == ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    assert command[6:10] == ["-m", "trainer.sft", "--phase", "1"]
    assert "training.seed=7" in command and command[-2:] == ["--dataset", "data"]
    meet = 'training.launch.args=["--rdzv-endpoint=host:29500"]'
    assert "--standalone" not in build_command(
        experiment.recipe(*TWO, meet), "1", Path("run"), None
    )
    many = experiment.recipe(*TWO, "training.launch.launcher=accelerate")
    command = build_command(many, "2", Path("run"), None)
    assert command[2:6] == ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("num_processes=2",), "inline"),
        (("launcher=accelerate",), "2 or more"),
        (("launcher=command",), "whole command"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    experiment: Experiment, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment.recipe(*(f"training.launch.{override}" for override in overrides))
