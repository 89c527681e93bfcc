"""Two processes with sharded weights train as one does; on CPUs with gloo."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import Experiment, make_experiment

from trainer.processes import Processes, note_unused_gpus
from trainer.sft import train_phase

OVERRIDES = ("training.packing=exact", "training.micro_batch=1", "training.save_steps=3")
SPARING = ("training.gather_every_pass=true", "training.reduce_every_pass=true")
"""What several processes do where memory is short."""


def launch(experiment: Experiment, *overrides: str) -> subprocess.Popen[str]:
    """Start two processes with ``torchrun``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(port), "-m", "trainer.sft", "--phase", "1"]
    command += ["--recipe", str(experiment.folder / "tiny.toml"), "--out", str(experiment.out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [*command, *settings],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill(process: subprocess.Popen[str]) -> None:
    """The launcher and both of its processes, which have sessions of their own."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for child in [*listed.read_text(encoding="utf-8").split(), str(process.pid)]:
        os.kill(int(child), signal.SIGKILL)
    process.communicate()


def read_log(checkpoint: Path) -> list[dict[str, Any]]:
    text = (checkpoint / "train_log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_give_the_loss_curve_and_weights_of_one(
    experiment: Experiment, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    alone = make_experiment(tmp_path / "one")
    one = train_phase(alone.recipe(*OVERRIDES), "1", alone.out).checkpoint
    process = launch(experiment, *OVERRIDES)
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, output
    two = experiment.out / "checkpoints" / "phase-1"
    ours, theirs = read_log(two), read_log(one)
    for name in ("loss", "grad_norm"):
        values = [line[name] for line in theirs]
        assert [line[name] for line in ours] == pytest.approx(values, rel=1e-5)
    for name in ("step", "num_tokens", "num_documents", "num_labels", "learning_rate"):
        assert [line[name] for line in ours] == [line[name] for line in theirs]

    from safetensors.torch import load_file

    ours, theirs = (load_file(folder / "model.safetensors") for folder in (two, one))
    assert set(ours) == set(theirs)
    for name, weight in theirs.items():
        assert float((ours[name] - weight).abs().max()) < 1e-4, name


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_sharded_run_resumes_and_may_then_spare_memory(
    experiment: Experiment, tmp_path: Path
) -> None:
    process = launch(experiment, *OVERRIDES)
    deadline = time.monotonic() + 100
    checkpoints = experiment.out / "checkpoints"
    while time.monotonic() < deadline and process.poll() is None:
        if any(checkpoints.glob(".staging-*/steps/checkpoint-3")):
            break
        time.sleep(0.01)
    assert process.poll() is None
    kill(process)
    again = launch(experiment, *OVERRIDES, *SPARING)
    output, _ = again.communicate(timeout=250)
    assert again.returncode == 0, output
    assert "resuming phase 1 from checkpoint-" in output
    (tmp_path / "one").mkdir()
    alone = make_experiment(tmp_path / "one")
    one = train_phase(alone.recipe(*OVERRIDES), "1", alone.out).checkpoint
    losses = [line["loss"] for line in read_log(checkpoints / "phase-1")]
    assert losses == pytest.approx([line["loss"] for line in read_log(one)], rel=1e-5)


def test_several_visible_gpus_and_one_process_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    note = note_unused_gpus(Processes(0, 1))
    assert note is not None
    assert "torchrun --nproc-per-node 4 -m trainer.sft" in note
    assert note_unused_gpus(Processes(0, 4)) is None
