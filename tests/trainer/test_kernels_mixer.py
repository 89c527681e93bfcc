"""The mixer's fused operation and the triton backend against their parts and the torch backend.

Without a GPU the scan inside is PyTorch's; convolution, norms and all gradients' bookkeeping are
the kernels'.
"""

from __future__ import annotations

import pytest
import torch
from kernel_references import DEVICE, convolve_documents, label_documents, norm_gated, worst_error

pytest.importorskip("triton", reason="Triton has no build for this platform")
from pipeline.errors import ConfigError
from trainer.kernels import availability, convolution
from trainer.kernels.mixer import MixerShape, MixerWeights, ScanOptions, mix
from trainer.model.scan import ScanInputs, scan

try:
    availability.require("triton")
except ConfigError as missing:
    pytest.skip(str(missing), allow_module_level=True)
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:triton"),
]

SHAPE = MixerShape(
    num_heads=4, head_dim=16, num_groups=2, state_size=16, eps=1e-5, scan=ScanOptions(16)
)
# On a GPU the scan multiplies in tf32.
LIMIT = 1e-5 if DEVICE == "cpu" else 5e-3


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter walks a whole segment, however short the row."""
    monkeypatch.setattr(convolution, "SEGMENT", 8)


def make_inputs(length: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(length)
    channels, inner = SHAPE.parts[1], SHAPE.parts[0]
    heads = SHAPE.num_heads
    shapes = [(1, length, sum(SHAPE.parts)), (channels, 4), (channels,)]
    shapes += [(heads,), (heads,), (heads,), (inner,)]
    values = [torch.randn(shape, generator=generator) for shape in shapes]
    values[4] = -values[4].abs() - 0.2
    return tuple(v.to(DEVICE).requires_grad_() for v in values)


def mix_in_parts(labels: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
    """The same from convolution, scan and norm in PyTorch."""
    weights = MixerWeights(*tensors[1:])
    gate, mixed, dt = tensors[0].split(SHAPE.parts, dim=-1)
    convolved = convolve_documents(mixed, weights.conv_weight, weights.conv_bias, labels)
    inputs = SHAPE.name_scan_inputs(convolved, dt, weights)
    y, _ = scan(ScanInputs(*inputs), chunk_size=SHAPE.scan.chunk_size, seq_idx=labels)
    return norm_gated(y.flatten(2), gate, weights.norm_weight, SHAPE.eps, SHAPE.num_groups)


@pytest.mark.parametrize("keep", [False, True])
def test_the_fused_operation_is_its_parts_one_after_the_other(keep: bool) -> None:
    labels = label_documents([1, 7, 9, 2, 3])
    error = worst_error(
        lambda *t: mix(t[0], MixerWeights(*t[1:]), SHAPE, labels, keep=keep),
        lambda *t: mix_in_parts(labels, *t),
        make_inputs(22),
    )
    assert error < LIMIT


def test_the_fused_operation_refuses_a_projection_of_another_width() -> None:
    projected, *weights = make_inputs(4)
    with pytest.raises(ValueError, match="contiguous with 196 columns"):
        mix(projected[..., :-1], MixerWeights(*weights), SHAPE)


@pytest.mark.parametrize("activation", ["none", "all"])
def test_the_triton_backend_computes_the_torch_backend_s_gradients(activation: str) -> None:
    from transformers import Mamba2Config

    from trainer.model.student import StudentModel

    config = Mamba2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_heads=4,
        head_dim=8,
        state_size=16,
        n_groups=2,
        chunk_size=16,
        vocab_size=40,
    )
    torch.manual_seed(0)
    reference = StudentModel(config).to(DEVICE).train()
    model = StudentModel(config, backend="triton", activation=activation).to(DEVICE).train()
    model.load_state_dict(reference.state_dict())
    ids = torch.randint(40, (1, 15), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    labels = label_documents([4, 1, 10])
    losses = [m(ids, seq_idx=labels, labels=ids).loss for m in (reference, model)]
    for loss in losses:
        loss.backward()
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-5 if LIMIT < 1e-4 else 1e-3)
    for (name, wanted), found in zip(reference.named_parameters(), model.parameters(), strict=True):
        difference = (found.grad - wanted.grad).norm() / wanted.grad.norm()
        assert difference < 10 * LIMIT, name


def test_require_names_what_is_missing_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    availability.require("torch")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="sees none") as raised:
            availability.require("triton")
        assert 'backend = "torch"' in raised.value.hint
    monkeypatch.setattr(availability, "version", lambda name: "2.2.4")
    availability.load_mamba.cache_clear()
    with pytest.raises(ConfigError, match=r"mamba-ssm 2\.2\.4 is installed") as raised:
        availability.load_mamba()
    assert "mamba-ssm==2.3.2" in raised.value.hint
    availability.load_mamba.cache_clear()
