"""The leak probe passes what is right, and stops what leaks, however little."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from tiny_models import make_model

from pipeline import cli
from pipeline.errors import EXIT_GATE, EXIT_USER, StateLeak
from trainer import probe
from trainer.model import operations
from trainer.model.student import StudentModel
from trainer.probe import ProbeResult, check, probe_leak

SMALL = [
    *("--set", "model.hidden_size=32", "--set", "model.head_dim=16"),
    *("--set", "model.state_size=8", "--set", "model.chunk_size=16"),
]


@pytest.mark.parametrize(
    ("weights", "dtype", "largest"),
    [
        (torch.float64, None, 1e-13),
        (torch.float32, None, 2e-6),
        (torch.float32, torch.bfloat16, 1e-2),
        (torch.bfloat16, torch.bfloat16, 1e-2),
    ],
    ids=["float64", "float32", "autocast", "bf16"],
)
@pytest.mark.parametrize("activation", ["none", "all"])
def test_the_model_passes_far_from_the_limits(
    weights: torch.dtype, dtype: Any, largest: float, activation: str
) -> None:
    result = probe_leak(make_model(weights, activation=activation), dtype=dtype)
    assert result.error < largest < result.tolerance
    assert result.control > 0.2
    assert (result.backend, result.device, result.activation) == ("torch", "cpu", activation)
    assert result.dtype == str(dtype or weights).removeprefix("torch.")
    assert "without document labels 0." in str(result)


def forget_documents_in(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Make one of the two places leak where documents could meet."""
    whole = {"convolution": "causal_conv1d", "scan": "_scan_in_torch"}[part]
    right = getattr(operations, whole)

    def forget(*arguments: Any, **options: Any) -> Any:
        if part == "convolution":
            return right(*arguments[:3], None)
        return right(*arguments, **{**options, "seq_idx": None})

    monkeypatch.setattr(operations, whole, forget)


@pytest.mark.parametrize("part", ["convolution", "scan"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_leak_in_one_operation_is_found(
    part: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_documents_in(monkeypatch, part)
    with pytest.raises(StateLeak, match="packed documents influence each other") as caught:
        probe_leak(make_model(dtype))
    assert caught.value.exit_code == EXIT_GATE


def test_a_loss_that_drops_the_labels_of_documents_is_found() -> None:
    def compute(model: Any, batch: dict[str, Any]) -> Any:
        return model(input_ids=batch["input_ids"], labels=batch["labels"]).loss

    with pytest.raises(StateLeak, match="influence each other"):
        probe_leak(make_model(torch.float32), loss_fn=compute)


def test_a_loss_that_trains_nothing_of_use_cannot_tell() -> None:
    # Shuffled documents still sum to the same gradient of the embeddings' mean: nothing to compare.
    def compute(model: Any, batch: dict[str, Any]) -> Any:
        return sum(p.square().sum() for p in model.parameters()) * _weight(batch)

    with pytest.raises(StateLeak, match="cannot tell"):
        probe_leak(make_model(torch.float32), loss_fn=compute)


def _weight(batch: dict[str, Any]) -> float:
    return 1.0 if len(batch["labels"]) else 0.0


def test_the_trainers_loss_is_called_with_the_collators_rows() -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def compute(model: Any, batch: dict[str, Any]) -> Any:
        seen.append(batch)
        return model(**batch).loss

    probe_leak(make_model(torch.float32), loss_fn=compute, pad_multiple=16)
    assert all(batch["input_ids"].shape[1] % 16 == 0 for batch in seen)
    assert {batch["input_ids"].shape[0] for batch in seen} == {1, 2}
    # Only the negative control comes without the documents' numbers.
    assert ["seq_idx" in batch for batch in seen] == [True] * (len(seen) - 1) + [False]


def test_neither_the_model_nor_random_numbers_are_touched() -> None:
    model = make_model(torch.float32)
    before = {name: p.clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    probe_leak(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_a_deep_model_on_the_meta_device_costs_no_more() -> None:
    with torch.device("meta"):
        deep = StudentModel(make_model(num_hidden_layers=2).config)
        deep.config.num_hidden_layers = 64
        deep.config.vocab_size = 32_768
    result = probe_leak(deep, device="cpu", dtype=torch.float32)
    assert result.error < result.tolerance
    assert result.seconds < 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"error": float("nan")}, "influence each other"),
        ({"error": 2e-5}, "gradients differ by 2e-05"),
        ({"worst": 2e-4, "worst_name": "norm"}, "worst: norm, 0.0002"),
        ({"control": 0.09}, "cannot tell"),
        ({"control": float("nan")}, "cannot tell"),
    ],
)
def test_limits_hold_for_each_number(changes: dict[str, Any], message: str) -> None:
    fine = ProbeResult(
        error=1e-6, worst=1e-6, worst_name="a", tolerance=1e-5, control=0.3, num_documents=9,
        num_tokens=99, backend="torch", device="cpu", dtype="float32", activation="none",
        seconds=1.0,
    )  # fmt: skip
    check(fine)
    with pytest.raises(StateLeak, match=message):
        check(dataclasses.replace(fine, **changes))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.exit_code_of(probe.app, "python -m trainer.probe", arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_prints_both_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--recipe", "demo", *SMALL)
    assert code == 0
    assert "packed against one by one" in out + err
    assert "without document labels" in out + err
    code, out, _ = run(capsys, "--recipe", "demo", "--json", *SMALL)
    found = json.loads(out)
    assert (code, found["backend"], found["dtype"]) == (0, "torch", "float32")
    assert found["error"] <= found["tolerance"] == 1e-5
    assert found["control"] >= 0.1


def test_a_leak_ends_the_command_with_the_gates_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_documents_in(monkeypatch, "scan")
    code, _, err = run(capsys, "--recipe", "demo", *SMALL)
    assert code == EXIT_GATE
    assert "packed documents influence each other" in err
    assert "training.backend" in err


def test_missing_kernels_are_the_users_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU has them")
    code, _, err = run(capsys, "--recipe", "demo", "--backend", "split", *SMALL)
    assert code == EXIT_USER
    assert "split backend needs" in err


def test_help_comes_without_heavy_imports() -> None:
    script = (
        "import sys, trainer.probe; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "set()"


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(600)  # the first one compiles
@pytest.mark.parametrize("activation", ["none", "all", "every_second"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_pass_on_a_gpu(dtype: torch.dtype, activation: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    from trainer.kernels.availability import require
    from trainer.kernels.tiles import list_smallest_tiles, pin_tiles

    require("triton")
    # Each kernel would otherwise compile and try all its tiles, minutes for each dtype.
    pin_tiles(list_smallest_tiles())
    model = make_model(
        torch.float32, backend="triton", activation=activation, hidden_size=256, head_dim=64,
        n_groups=8, state_size=64, chunk_size=128, initializer_range=0.1,
    )  # fmt: skip
    result = probe_leak(model.to("cuda"), dtype=dtype)
    assert result.error <= result.tolerance
    assert result.control > 0.1
