"""Training on a GPU, as a user starts it: kernels, precision policies, resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_experiment import Experiment

from trainer.sft import train_phase

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(600),
]
SHAPE = (
    "model.hidden_size=256",
    "model.head_dim=64",
    "model.state_size=64",
    "model.chunk_size=64",
    "training.packing=exact",
    "training.micro_batch=1",
)


def losses(checkpoint: Path) -> list[float]:
    lines = (checkpoint / "train_log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("precision", ["float32", "bf16_autocast", "host_master", "stochastic"])
def test_every_policy_trains_with_the_kernels(experiment: Experiment, precision: str) -> None:
    recipe = experiment.recipe(*SHAPE, f"training.precision={precision}")
    result = train_phase(recipe, "1", experiment.out)
    values = json.loads((result.checkpoint / "training.json").read_text(encoding="utf-8"))
    assert values["backend"] == "triton"
    assert result.last_loss < result.first_loss - 0.5
    laps = (result.checkpoint / "speed_log.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(laps[-1])["memory_gib"] > 0


def test_kernels_and_pytorch_give_one_loss_curve(experiment: Experiment, tmp_path: Path) -> None:
    curves = []
    for backend in ("triton", "torch"):
        recipe = experiment.recipe(*SHAPE, f"training.backend={backend}")
        # The backend names no version, so each has a folder of its own.
        out = tmp_path / backend
        out.mkdir()
        (out / "datasets").symlink_to(experiment.out / "datasets")
        curves.append(losses(train_phase(recipe, "1", out).checkpoint))
    # The kernels' products are tf32 (6e-4 of a gradient); each update at 3e-3 builds on the last.
    assert curves[0][:5] == pytest.approx(curves[1][:5], rel=1e-3)
    assert curves[0] == pytest.approx(curves[1], rel=1e-2)


@pytest.mark.parametrize("precision", ["bf16_autocast", "host_master", "stochastic"])
def test_a_cut_off_run_resumes_exactly(
    experiment: Experiment,
    tmp_path: Path,
    interrupt_at: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    recipe = experiment.recipe(*SHAPE, f"training.precision={precision}")
    calm = tmp_path / "calm"
    calm.mkdir()
    (calm / "datasets").symlink_to(experiment.out / "datasets")
    wanted = train_phase(recipe, "1", calm).checkpoint
    interrupt_at(5)
    with pytest.raises(KeyboardInterrupt):
        train_phase(recipe, "1", experiment.out)
    monkeypatch.undo()
    got = train_phase(recipe, "1", experiment.out).checkpoint
    assert losses(got) == losses(wanted)
    name = "model.safetensors"
    assert (got / name).read_bytes() == (wanted / name).read_bytes()
