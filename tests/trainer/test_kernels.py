"""The kernels against float64 PyTorch: on the GPU where there is one, else in the interpreter."""

from __future__ import annotations

import pytest
import torch
from kernel_references import (
    DEVICE,
    compute_gradients,
    convolve_documents,
    label_documents,
    norm_added,
    norm_gated,
    worst_error,
)

pytest.importorskip("triton", reason="Triton has no build for this platform")
from trainer.kernels import convolution, norms
from trainer.kernels.convolution import causal_conv1d
from trainer.kernels.norms import add_norm, gated_norm, normalise

# The interpreter computes with numpy, whose exp warns where a GPU rounds to infinity or zero.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:triton"),
]

EPS = 1e-5
FLOAT32 = 1e-5
BFLOAT16 = 1.2e-2


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles so small that short rows cross many of their edges."""
    monkeypatch.setattr(convolution, "TIME_TILE", 8)
    monkeypatch.setattr(convolution, "CHANNEL_TILE", 16)
    monkeypatch.setattr(convolution, "SEGMENT", 8)
    monkeypatch.setattr(convolution, "CHANNEL_VECTOR", 16)
    monkeypatch.setattr(norms, "_TILE", 32)
    monkeypatch.setattr(norms, "_PROGRAMS", 6)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator).to(DEVICE, dtype).requires_grad_()


def slice_of_projection(batch: int, length: int, channels: int, before: int) -> torch.Tensor:
    """Channels in the middle of a wider tensor, as the block's projection gives them."""
    wide = random(batch, length, before + channels + 3).detach()
    return wide[..., before : before + channels].requires_grad_()


def check_convolution(
    x: torch.Tensor, width: int, labels: torch.Tensor | None, *, has_bias: bool = True
) -> float:
    weight = random(x.shape[-1], width, seed=1)
    bias = random(x.shape[-1], seed=2) if has_bias else None
    whole = torch.zeros(x.shape[:2], dtype=torch.int32)

    def kernel(*tensors: torch.Tensor) -> torch.Tensor:
        return causal_conv1d(tensors[0], tensors[1], tensors[2] if has_bias else None, labels)

    def reference(*tensors: torch.Tensor) -> torch.Tensor:
        documents = whole if labels is None else labels
        return convolve_documents(*tensors[:2], tensors[2] if has_bias else None, documents)

    inputs = (x, weight, bias) if bias is not None else (x, weight)
    return worst_error(kernel, reference, inputs)


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("lengths", [[1, 2, 3, 4, 5, 6], [8, 8, 1, 3], [1] * 9])
def test_convolution_of_packed_documents_is_that_of_each_alone(
    small_tiles: None, width: int, lengths: list[int]
) -> None:
    labels = label_documents(lengths, batch=2)
    x = slice_of_projection(2, sum(lengths), 13, before=5)
    assert check_convolution(x, width, labels) < FLOAT32


@pytest.mark.parametrize("length", [1, 3, 8, 9])
def test_convolution_without_labels_treats_a_row_as_one_document(
    small_tiles: None, length: int
) -> None:
    assert check_convolution(random(1, length, 17), 4, None, has_bias=False) < FLOAT32


def test_documents_do_not_reach_each_other_even_by_infinities(small_tiles: None) -> None:
    x = random(1, 12, 16).detach()
    x[:, :6] = torch.inf
    x.requires_grad_()
    y = causal_conv1d(x, random(16, 4, seed=1), None, label_documents([6, 6]))
    (dx,) = torch.autograd.grad(y[:, 6:].sum(), x)
    assert y[:, 6:].isfinite().all()
    assert dx[:, 6:].isfinite().all()


def test_a_label_used_again_later_is_another_document(small_tiles: None) -> None:
    labels = torch.tensor([[0, 0, 1, 0, 0, 2, 0]], dtype=torch.int32, device=DEVICE)
    assert check_convolution(random(1, 7, 8), 4, labels) < FLOAT32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_convolution_in_half_precision_keeps_its_dtype(
    small_tiles: None, dtype: torch.dtype
) -> None:
    labels = label_documents([5, 1, 14])
    inputs = (
        random(1, 20, 24, dtype=dtype),
        random(24, 4, seed=1),
        random(24, seed=2, dtype=dtype),
    )
    assert causal_conv1d(*inputs, labels).dtype == dtype
    error = worst_error(
        lambda *t: causal_conv1d(*t, labels), lambda *t: convolve_documents(*t, labels), inputs
    )
    assert error < BFLOAT16


def test_the_same_convolution_twice_gives_the_same_bits(small_tiles: None) -> None:
    inputs = (random(1, 18, 8), random(8, 4, seed=1), random(8, seed=2))
    first, second = (compute_gradients(causal_conv1d, inputs)[1] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_row_without_tokens_has_no_output_and_no_gradient() -> None:
    inputs = (random(1, 0, 8), random(8, 4), random(8))
    labels = torch.zeros(1, 0, dtype=torch.int32, device=DEVICE)
    outputs, gradients = compute_gradients(lambda *t: causal_conv1d(*t, labels), inputs)
    assert outputs[0].shape == (1, 0, 8)
    assert all(not g.any() for g in gradients)


@pytest.mark.parametrize(
    ("x", "width", "labels", "message"),
    [
        (torch.zeros(1, 8, 4).transpose(1, 2), 4, None, "contiguous channels"),
        (torch.zeros(1, 4, 8), 5, None, "2 to 4"),
        (torch.zeros(1, 4, 8), 4, torch.zeros(1, 4, dtype=torch.int64), "int32"),
        (torch.zeros(1, 4, 8), 4, torch.zeros(1, 3, dtype=torch.int32), "seq_idx must be int32"),
    ],
)
def test_convolution_refuses_what_it_would_read_wrongly(
    x: torch.Tensor, width: int, labels: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        causal_conv1d(x, torch.zeros(8, width), None, labels)


@pytest.mark.parametrize(("channels", "num_groups"), [(32, 1), (48, 4), (45, 3), (128, 8)])
def test_gated_norm_normalises_each_group(
    small_tiles: None, channels: int, num_groups: int
) -> None:
    gate = slice_of_projection(2, 13, channels, before=4)
    inputs = (random(2, 13, channels), gate, random(channels, seed=3))
    error = worst_error(
        lambda *t: gated_norm(*t, EPS, num_groups),
        lambda *t: norm_gated(*t, EPS, num_groups),
        inputs,
    )
    assert error < FLOAT32


def test_gated_norm_in_half_precision_keeps_its_dtype(small_tiles: None) -> None:
    half = [random(1, 9, 32, seed=s, dtype=torch.bfloat16) for s in (1, 2)]
    inputs = (*half, random(32, seed=3))
    assert gated_norm(*inputs, EPS, 2).dtype == torch.bfloat16
    error = worst_error(
        lambda *t: gated_norm(*t, EPS, 2), lambda *t: norm_gated(*t, EPS, 2), inputs
    )
    assert error < BFLOAT16


@pytest.mark.parametrize("channels", [16, 40, 100])
@pytest.mark.parametrize("has_residual", [True, False])
def test_add_norm_is_an_addition_and_a_norm(
    small_tiles: None, channels: int, has_residual: bool
) -> None:
    inputs = (random(2, 11, channels), random(channels, seed=1))
    if has_residual:
        inputs += (random(2, 11, channels, seed=2),)

    def kernel(x: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor | None = None):
        return add_norm(x, residual, weight, EPS, residual_dtype=torch.float32)

    def reference(x: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor | None = None):
        return norm_added(x, residual, weight, EPS)

    assert worst_error(kernel, reference, inputs) < FLOAT32


@pytest.mark.parametrize("residual_dtype", [torch.float32, torch.bfloat16])
def test_add_norm_keeps_the_stream_in_its_own_dtype(
    small_tiles: None, residual_dtype: torch.dtype
) -> None:
    x = random(1, 9, 48, dtype=torch.bfloat16)
    inputs = (x, random(1, 9, 48, seed=1, dtype=residual_dtype), random(48, seed=2))
    normed, total = add_norm(*inputs, EPS, residual_dtype=residual_dtype)
    assert (normed.dtype, total.dtype) == (torch.bfloat16, residual_dtype)
    error = worst_error(
        lambda *t: add_norm(*t, EPS, residual_dtype=residual_dtype),
        lambda *t: norm_added(*t, EPS),
        inputs,
    )
    assert error < BFLOAT16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_made_again_from_its_sum_has_the_same_bits(
    small_tiles: None, dtype: torch.dtype
) -> None:
    x, residual, weight = (
        random(1, 7, 40, dtype=dtype),
        random(1, 7, 40, seed=1),
        random(40, seed=2),
    )
    normed, total = add_norm(x, residual, weight, EPS, residual_dtype=torch.float32)
    assert torch.equal(normalise(total, weight, EPS, dtype=dtype), normed)


def test_add_norm_passes_gradients_of_either_output_alone(small_tiles: None) -> None:
    inputs = tuple(random(1, 5, 16, seed=s) for s in (1, 2))
    weight = random(16, seed=3)
    normed, total = add_norm(*inputs, weight, EPS, residual_dtype=torch.float32)
    only_total = torch.autograd.grad(total.sum(), inputs, retain_graph=True)
    assert all(torch.equal(g, torch.ones_like(g)) for g in only_total)
    wanted = norm_added(*inputs, weight, EPS)[0]
    found = torch.autograd.grad(normed.square().sum(), inputs)
    expected = torch.autograd.grad(wanted.square().sum(), inputs)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))


def test_norms_refuse_shapes_that_do_not_fit() -> None:
    x = torch.zeros(1, 2, 6)
    with pytest.raises(ValueError, match="4 groups"):
        gated_norm(x, x, torch.ones(6), EPS, 4)
    with pytest.raises(ValueError, match="do not fit"):
        add_norm(x, None, torch.ones(5), EPS, residual_dtype=torch.float32)
