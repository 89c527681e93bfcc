"""The loss of a tile of logits against PyTorch's cross-entropy in float64."""

from __future__ import annotations

import pytest
import torch
from kernel_references import DEVICE, measure_error

pytest.importorskip("triton", reason="Triton has no build for this platform")
from trainer.kernels.token_loss import score_tile

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:triton"),
]
IGNORED = -100


@pytest.mark.parametrize("vocabulary", [40, 512, 1000])
@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 1e-6), (torch.bfloat16, 5e-3), (torch.float16, 1e-3)]
)
def test_the_tile_s_loss_is_cross_entropy_and_logits_become_its_gradient(
    vocabulary: int, dtype: torch.dtype, limit: float
) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = (4 * torch.randn(9, vocabulary, generator=generator)).to(DEVICE, dtype)
    targets = torch.randint(vocabulary, (9,), generator=generator).to(DEVICE)
    targets[2] = targets[7] = IGNORED
    targets[4] = logits[4].argmax()
    exact = logits.double().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(exact, targets, reduction="sum")
    (slope,) = torch.autograd.grad(wanted, exact)
    likeliest = (logits.argmax(1) == targets).sum()

    loss, correct = score_tile(logits, targets, IGNORED)
    assert measure_error(loss, wanted.detach()) < 1e-6
    assert correct == likeliest
    assert correct.dtype == torch.int64
    assert measure_error(logits, slope) < limit
    assert not logits[[2, 7]].any()


def test_logits_far_apart_do_not_overflow() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], device=DEVICE)
    loss, _ = score_tile(logits, torch.tensor([0, 1], device=DEVICE), IGNORED)
    assert loss.item() == pytest.approx(torch.tensor(3.0).log().item())
    assert logits.isfinite().all()


def test_a_vocabulary_beyond_registers_is_refused() -> None:
    with pytest.raises(ValueError, match="65536"):
        score_tile(
            torch.zeros(1, 65_537, device=DEVICE),
            torch.zeros(1, dtype=torch.int64, device=DEVICE),
            IGNORED,
        )
