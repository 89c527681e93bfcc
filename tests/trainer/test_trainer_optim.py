"""Every offered precision makes the update that was asked for, and goes on exactly as it stopped."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_experiment import load_tiny

from pipeline.errors import ConfigError
from pipeline.settings.training import TrainingSettings
from trainer.optim import build_optimizer
from trainer.optim.blocks import FIRST_MOMENT, SECOND_MOMENT, decode, encode
from trainer.optim.stochastic import round_at_random

LOW_RATE = 5e-6
POLICIES = ("float32", "bf16_autocast", "host_master", "stochastic")


class Weights(torch.nn.Module):
    """A matrix and a vector of the size of real weights."""

    def __init__(self, dtype: torch.dtype, size: int = 384) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        matrix = 0.02 * torch.randn(size, size, generator=generator)
        vector = 0.02 * torch.randn(size, generator=generator)
        # All policies start from the same numbers, which bf16 can hold.
        self.matrix = torch.nn.Parameter(matrix.bfloat16().to(dtype))
        self.vector = torch.nn.Parameter(vector.bfloat16().to(dtype))


def make(policy: Any, **settings: Any) -> tuple[Weights, Any]:
    dtype = torch.bfloat16 if policy in ("host_master", "stochastic") else torch.float32
    training = TrainingSettings(precision=policy, learning_rate=LOW_RATE, **settings)
    model = Weights(dtype)
    return model, build_optimizer(training, model)


def run(model: Weights, optimizer: Any, steps: range) -> None:
    """Steps with gradients that have a direction and noise, equal for every policy."""
    for step in steps:
        generator = torch.Generator().manual_seed(1000 + step)
        for parameter in model.parameters():
            direction = torch.linspace(-1, 1, parameter.numel()).view(parameter.shape)
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.grad = (1e-3 * (direction + noise)).to(parameter.dtype)
        optimizer.step()


def projection(policy: Any, steps: int = 100) -> float:
    """How far the weights went along the update that exact AdamW makes; 1 is all of it."""
    exact, optimizer = make("float32")
    run(exact, optimizer, range(steps))
    model, optimizer = make(policy)
    run(model, optimizer, range(steps))
    start = Weights(torch.float32).matrix.detach()
    wanted = exact.matrix.detach() - start
    got = model.matrix.detach().float() - start
    return float((got * wanted).sum() / (wanted * wanted).sum())


@pytest.mark.parametrize("policy", POLICIES)
def test_the_update_at_the_papers_rate_is_made(policy: str) -> None:
    assert 0.95 <= projection(policy) <= 1.05


def test_plain_bf16_loses_it_and_is_refused_with_the_reason(tmp_path: Path) -> None:
    exact, optimizer = make("float32")
    run(exact, optimizer, range(100))
    plain = Weights(torch.bfloat16)
    run(plain, torch.optim.AdamW(plain.parameters(), lr=LOW_RATE), range(100))
    start = Weights(torch.float32).matrix.detach()
    wanted = exact.matrix.detach() - start
    got = plain.matrix.detach().float() - start
    assert float((got * wanted).sum() / (wanted * wanted).sum()) < 0.2
    with pytest.raises(ConfigError, match="lose 97 % of the update"):
        load_tiny(tmp_path, "training.precision=bf16")


def test_host_masters_are_those_of_adamw_on_float32() -> None:
    model, optimizer = make("host_master", weight_decay=0.1)
    exact, reference = make("float32", weight_decay=0.1)
    for step in range(5):
        run(model, optimizer, range(step, step + 1))
        for ours, theirs in zip(model.parameters(), exact.parameters(), strict=True):
            assert ours.grad is not None
            theirs.grad = ours.grad.float()
        reference.step()
    for ours, theirs in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(optimizer.master_of(ours), theirs.detach(), rtol=0, atol=4e-9)
        assert torch.equal(ours, optimizer.master_of(ours).bfloat16())


def test_host_masters_start_from_the_float32_weights_that_are_given() -> None:
    model = Weights(torch.bfloat16)
    given = torch.full((384, 384), 0.0200001)
    training = TrainingSettings(precision="host_master")
    optimizer = build_optimizer(training, model, {"matrix": given})
    assert torch.equal(optimizer.master_of(model.matrix), given)
    assert torch.equal(model.matrix, given.bfloat16())


@pytest.mark.parametrize("policy", POLICIES)
def test_a_loaded_state_goes_on_bit_for_bit(policy: str) -> None:
    calm, optimizer = make(policy)
    run(calm, optimizer, range(4))
    weights, state = copy.deepcopy(calm.state_dict()), copy.deepcopy(optimizer.state_dict())
    run(calm, optimizer, range(4, 8))

    resumed, again = make(policy)
    run(resumed, again, range(1))
    resumed.load_state_dict(weights)
    again.load_state_dict(state)
    run(resumed, again, range(4, 8))
    for ours, theirs in zip(resumed.parameters(), calm.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_random_rounding_keeps_the_mean_and_picks_neighbours() -> None:
    values = torch.full((200_000,), 0.0201)
    bits = torch.randint(0, 65536, values.shape, generator=torch.Generator().manual_seed(1))
    rounded = round_at_random(values, bits.int(), torch.bfloat16).float()
    low, high = rounded.unique().tolist()
    assert low < 0.0201 < high
    assert high - low < 1.3e-4
    assert abs(float(rounded.double().mean()) - 0.0201) < 1e-6


@pytest.mark.parametrize("book", [FIRST_MOMENT, SECOND_MOMENT])
def test_eight_bit_moments_keep_their_mean(book: Any) -> None:
    values = torch.tensor([1.0, 0.31, 3e-3, 2e-5, 0.0]).repeat(40_000)
    if book.signed:
        values[1::2] *= -1
    dice = torch.rand(values.shape, generator=torch.Generator().manual_seed(2))
    read = decode(*encode(values, dice, book), book)
    for value in values.unique():
        mean = float(read[values == value].double().mean())
        assert mean == pytest.approx(float(value), rel=5e-3)
    ratio = (read / values)[values != 0]
    assert ratio.min() > 0.85
    assert ratio.max() < 1.15


def test_a_second_moment_never_becomes_zero() -> None:
    values = torch.full((256,), 1e-30)
    values[0] = 1.0
    read = decode(*encode(values, torch.full((256,), 0.99), SECOND_MOMENT), SECOND_MOMENT)
    assert float(read.min()) > 0


ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@ON_GPU
def test_on_a_gpu_host_masters_are_those_of_adamw_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # Several pieces a parameter and more of them than buffers.
    monkeypatch.setattr("trainer.optim.host_master.PIECE", 10_000)
    training = TrainingSettings(precision="host_master", learning_rate=LOW_RATE)
    model = Weights(torch.bfloat16).cuda()
    optimizer = build_optimizer(training, model)
    exact = Weights(torch.float32)
    reference = torch.optim.AdamW(
        exact.parameters(), lr=LOW_RATE, betas=(0.9, 0.95), weight_decay=0.01
    )
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        for ours, theirs in zip(model.parameters(), exact.parameters(), strict=True):
            ours.grad = torch.randn(theirs.shape, generator=generator).bfloat16().cuda()
            theirs.grad = ours.grad.float().cpu()
        optimizer.step()
        reference.step()
    torch.cuda.synchronize()
    for ours in model.parameters():
        assert torch.equal(ours.cpu(), optimizer.master_of(ours).bfloat16())
        # Page-locked blocks are rounded up to a power of two: half as much again for 7B.
        assert not optimizer.master_of(ours).is_pinned()
    master = optimizer.master_of(model.matrix)
    torch.testing.assert_close(master, exact.matrix.detach(), rtol=0, atol=4e-9)


@pytest.mark.gpu
@ON_GPU
def test_on_a_gpu_rounding_at_random_makes_the_update_and_repeats() -> None:
    results = []
    for _ in range(2):
        training = TrainingSettings(precision="stochastic", learning_rate=LOW_RATE)
        model = Weights(torch.bfloat16).cuda()
        optimizer = build_optimizer(training, model)
        for step in range(100):
            generator = torch.Generator().manual_seed(1000 + step)
            for parameter in model.parameters():
                direction = torch.linspace(-1, 1, parameter.numel()).view(parameter.shape)
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.grad = (1e-3 * (direction + noise)).bfloat16().cuda()
            optimizer.step()
        results.append(model.matrix.detach().float().cpu())
    assert torch.equal(*results)
    exact, reference = make("float32")
    run(exact, reference, range(100))
    start = Weights(torch.float32).matrix.detach()
    wanted, got = exact.matrix.detach() - start, results[0] - start
    assert 0.95 <= float((got * wanted).sum() / (wanted * wanted).sum()) <= 1.05
