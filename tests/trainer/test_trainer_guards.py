"""NaN ends a run before the weights are touched; jumps are logged, and end it when told to."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from tiny_experiment import Experiment

from pipeline.errors import ConfigError, GateRefused
from pipeline.settings.training import GuardSettings, ModelSettings
from trainer.guards import SpikeGuard, require_finite
from trainer.memory import Shape, estimate, list_remedies
from trainer.sft import train_phase


def feed(guard: SpikeGuard, losses: list[float], start: int = 1) -> list[tuple[int, str]]:
    events = []
    for step, loss in enumerate(losses, start):
        events += [(event.step, event.kind) for event in guard.look(step, loss, 1.0)]
    return events


def test_a_jump_is_an_event_and_slow_change_is_none() -> None:
    guard = SpikeGuard(GuardSettings(window=8, min_steps=4))
    falling = [10.0 * 0.97**n for n in range(40)]
    assert feed(guard, falling) == []
    assert feed(guard, [falling[-1] * 1.7, falling[-1]], start=41) == [(41, "loss")]


def test_the_first_steps_are_left_alone() -> None:
    guard = SpikeGuard(GuardSettings(window=8, min_steps=4))
    assert feed(guard, [1.0, 9.0, 1.0]) == []


def test_gradient_jumps_count_too() -> None:
    guard = SpikeGuard(GuardSettings(window=8, min_steps=4))
    feed(guard, [1.0] * 8)
    (event,) = guard.look(9, 1.0, 50.0)
    assert "gradient norm 50 is 50.0 times the median" in str(event)


def test_so_many_jumps_within_a_window_stop_the_run() -> None:
    guard = SpikeGuard(GuardSettings(window=10, min_steps=2, stop_after=2))
    feed(guard, [1.0] * 4 + [5.0])
    guard.require_calm(5)
    feed(guard, [1.0] * 12, start=6)
    feed(guard, [5.0], start=18)
    guard.require_calm(18)
    feed(guard, [5.0], start=19)
    with pytest.raises(GateRefused, match="2 jumps of the loss or gradient within 10 steps"):
        guard.require_calm(19)


def test_a_guard_made_from_the_log_is_the_one_that_saw_the_steps() -> None:
    settings = GuardSettings(window=6, min_steps=2, stop_after=3)
    losses = [1.0, 1.1, 0.9, 4.0, 1.0, 5.0, 1.0]
    seen, again = (
        SpikeGuard(settings),
        SpikeGuard(
            settings,
            [{"step": n, "loss": x, "grad_norm": 1.0} for n, x in enumerate(losses, 1)],
        ),
    )
    feed(seen, losses)
    for guard in (seen, again):
        feed(guard, [6.0], start=8)
        with pytest.raises(GateRefused, match="3 jumps"):
            guard.require_calm(8)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_names_step_and_rows(value: float) -> None:
    with pytest.raises(GateRefused, match=r"gradient norm is .* at step 7") as caught:
        require_finite(7, 1.0, value, [f"row-{n}" for n in range(10)])
    assert "row-0, row-1" in str(caught.value)
    assert "and 2 more" in str(caught.value)


def break_loss(monkeypatch: pytest.MonkeyPatch, step: int, error: Any) -> None:
    """Make the trainer's loss NaN, or raise, at a step (counted from 0)."""
    from trainer.student_trainer import StudentTrainer

    original = StudentTrainer.compute_loss

    def broken(self: Any, model: Any, inputs: Any, *rest: Any, **kwargs: Any) -> Any:
        loss = original(self, model, inputs, *rest, **kwargs)
        if self.lr_scheduler is None or self.state.global_step != step:
            return loss
        if isinstance(error, Exception):
            raise error
        return loss * error

    monkeypatch.setattr(StudentTrainer, "compute_loss", broken)


def test_a_nan_loss_stops_before_the_update_and_the_run_goes_on_from_its_checkpoint(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch, pytest.raises(GateRefused, match="the loss is nan") as e:
        break_loss(patch, 3, math.nan)
        train_phase(experiment.recipe(), "1", experiment.out)
    ids = [row["id"] for row in experiment.dataset.rows(["id"])]
    assert "at step 4" in str(e.value)
    # Steps of four documents: the fourth of 14 has the last two.
    assert all(name in str(e.value) for name in ids[12:])
    assert not any(name in str(e.value) for name in ids[:12])
    assert not (experiment.out / "checkpoints" / "phase-1").exists()
    train_phase(experiment.recipe(), "1", experiment.out)
    assert "resuming phase 1 from checkpoint-2" in capsys.readouterr().out


def test_jumps_are_logged_and_no_step_is_skipped(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_loss(monkeypatch, 5, 3.0)
    overrides = ("training.guards.window=4", "training.guards.min_steps=2")
    result = train_phase(experiment.recipe(*overrides), "1", experiment.out)
    lines = (result.checkpoint / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["step"] for line in lines} == {6}
    assert result.num_steps == 8
    assert "step 6: loss" in capsys.readouterr().out
    assert "jump" in (result.checkpoint / "report.html").read_text(encoding="utf-8")


def test_jumps_can_stop_a_run_with_exit_code_3(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_loss(monkeypatch, 5, 3.0)
    overrides = ("window=4", "min_steps=2", "stop_after=1")
    recipe = experiment.recipe(*(f"training.guards.{text}" for text in overrides))
    with pytest.raises(GateRefused, match="jumps of the loss or gradient") as caught:
        train_phase(recipe, "1", experiment.out)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 99 bytes"),
        MemoryError(),
    ],
)
def test_too_little_memory_names_the_setting_and_by_how_much(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    break_loss(monkeypatch, 3, error)
    with pytest.raises(ConfigError, match="out of memory in a forward pass of 2 × 200") as caught:
        train_phase(experiment.recipe(), "1", experiment.out)
    assert "training.micro_batch = 1: " in caught.value.hint
    assert " → " in caught.value.hint


def test_other_runtime_errors_stay_what_they_are(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_loss(monkeypatch, 1, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        train_phase(experiment.recipe(), "1", experiment.out)


CODESTRAL = {"num_parameters": 7_285_403_648, "micro_batch": 1, "row_tokens": 16_384}
SMALL = ModelSettings(hidden_size=2048, num_hidden_layers=48)


@pytest.mark.parametrize(
    ("shape", "measured_gib"),
    [
        # Measured on an H100 with gradients, without optimiser (docs/design.md).
        (
            Shape(
                ModelSettings(),
                precision="host_master",
                activation="all",
                backend="triton",
                **CODESTRAL,
            ),
            46.3,
        ),
        (Shape(SMALL, 1_550_000_000, 1, 16_384, "host_master", "all", "triton"), 13.8),
        (Shape(SMALL, 1_550_000_000, 1, 16_384, "host_master", "none", "triton"), 50.0),
        # With the optimiser, on one card and on each of two.
        (Shape(SMALL, 1_551_576_064, 1, 16_384, "bf16_autocast", "all", "triton"), 32.8),
        (Shape(SMALL, 1_551_576_064, 1, 16_384, "bf16_autocast", "all", "triton", 2), 25.5),
    ],
)
def test_the_estimate_is_near_what_was_measured(shape: Shape, measured_gib: float) -> None:
    assert 0.95 * measured_gib <= estimate(shape).device <= 1.25 * measured_gib


def test_float32_masters_of_7b_do_not_fit_one_card_and_the_remedies_do() -> None:
    shape = Shape(
        ModelSettings(), precision="bf16_autocast", activation="all", backend="triton", **CODESTRAL
    )
    assert estimate(shape).device > 110
    remedies = list_remedies(shape, 80.0)
    assert any("host_master" in remedy for remedy in remedies)
    assert any("stochastic" in remedy for remedy in remedies)
