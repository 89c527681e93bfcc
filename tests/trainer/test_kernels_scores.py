"""Gradients of the scan's scores and decays within chunks, against autograd in float64."""

from __future__ import annotations

import pytest
import torch
from kernel_references import DEVICE, label_documents, measure_error

pytest.importorskip("triton", reason="Triton has no build for this platform")
from trainer.kernels import score_gradients
from trainer.kernels.score_gradients import differentiate_scores

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:triton"),
]
HEADS, GROUPS, CHUNK = 4, 2, 32
# On a GPU float32 products are tf32.
LIMIT = 2e-6 if DEVICE == "cpu" else 2e-3


def cut(value: torch.Tensor) -> torch.Tensor:
    """(1, length, ...) → (1, chunks, CHUNK, ...), zeros behind the end."""
    missing = -value.shape[1] % CHUNK
    padding = value.new_zeros(1, missing, *value.shape[2:])
    return torch.cat([value, padding], dim=1).unflatten(1, (-1, CHUNK))


@pytest.mark.parametrize("width", [16, 24])
@pytest.mark.parametrize("lengths", [[50], [5, 14, 1, 30], [32, 1, 31]])
def test_gradients_of_scores_and_decays_are_autograd_s(
    monkeypatch: pytest.MonkeyPatch, width: int, lengths: list[int]
) -> None:
    monkeypatch.setattr(score_gradients, "_BLOCK", 16)
    labels = label_documents(lengths)
    length = labels.shape[1]
    generator = torch.Generator().manual_seed(length + width)
    wide = torch.randn(1, length, HEADS * width + 8, generator=generator).to(DEVICE)
    x = wide[..., 8:].unflatten(-1, (HEADS, width))
    dy = torch.randn(1, length, HEADS, width, generator=generator).to(DEVICE)
    chunks = -(-length // CHUNK)
    same = (cut(labels + 1)[..., :, None] == cut(labels + 1)[..., None, :])[:, :, None]
    scores = torch.randn(1, chunks, GROUPS, CHUNK, CHUNK, generator=generator).to(DEVICE) * same
    dt = cut(torch.rand(1, length, HEADS, generator=generator).to(DEVICE)).permute(0, 3, 1, 2)
    decay = (-dt).cumsum(-1).contiguous()
    dt = dt.contiguous()

    exact_scores = scores.double().requires_grad_()
    exact_decay = decay.double().requires_grad_()
    difference = exact_decay[..., :, None] - exact_decay[..., None, :]
    causal = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=DEVICE).tril()
    weights = difference.masked_fill(~causal, -torch.inf).exp() * dt.double()[..., None, :]
    shared = (exact_scores * same).repeat_interleave(HEADS // GROUPS, dim=2).transpose(1, 2)
    values = cut(x.double()).permute(0, 3, 1, 2, 4)
    y = (weights * shared) @ values
    pull = cut(dy.double()).permute(0, 3, 1, 2, 4)
    wanted = torch.autograd.grad(y, (exact_scores, exact_decay), pull)

    found = differentiate_scores(x, dy, scores, (dt, decay), labels)
    assert measure_error(found[0], wanted[0]) < LIMIT
    # What counts are sums from the end, where rows and columns cancel.
    summed = [v.flip(-1).cumsum(-1) for v in (found[1], wanted[1])]
    assert measure_error(*summed) < LIMIT
