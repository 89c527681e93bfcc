"""What the kernels must compute, in float64 and document by document; and where they run here.

Without a GPU the kernels run in Triton's interpreter, which must be chosen before they are
imported: import this module first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"

Tensors = tuple[torch.Tensor, ...]


def label_documents(lengths: list[int], batch: int = 1) -> torch.Tensor:
    """(batch, sum of lengths) int32 labels 0, 1, ...; rows of a batch are cut differently."""
    rows = [torch.tensor(lengths[i:] + lengths[:i]) for i in range(batch)]
    labels = [torch.repeat_interleave(torch.arange(len(row)), row) for row in rows]
    return torch.stack(labels).to(torch.int32).to(DEVICE)


def split_rows(labels: torch.Tensor) -> list[tuple[int, int, int]]:
    """(row, first, end) of every document."""
    spans = []
    for row, values in enumerate(labels.tolist()):
        cuts = [0, *(i for i in range(1, len(values)) if values[i] != values[i - 1]), len(values)]
        spans += [(row, first, end) for first, end in pairwise(cuts)]
    return spans


def convolve_documents(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
) -> torch.Tensor:
    """Each document by itself through PyTorch's convolution and SiLU."""
    width = weight.shape[1]
    y = torch.zeros_like(x)
    for row, first, end in split_rows(labels):
        part = F.pad(x[row, first:end].t(), (width - 1, 0))
        out = F.conv1d(part, weight.unsqueeze(1), bias, groups=x.shape[-1])
        y[row, first:end] = F.silu(out).t()
    return y


def norm_gated(
    x: torch.Tensor, gate: torch.Tensor, weight: torch.Tensor, eps: float, num_groups: int
) -> torch.Tensor:
    """transformers' MambaRMSNormGated, written out."""
    h = x * F.silu(gate)
    groups = h.unflatten(-1, (num_groups, -1))
    scale = torch.rsqrt(groups.pow(2).mean(-1, keepdim=True) + eps)
    return (groups * scale).flatten(-2) * weight


def norm_added(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> Tensors:
    """Residual addition, then RMSNorm of the sum."""
    total = x if residual is None else x + residual
    return total * torch.rsqrt(total.pow(2).mean(-1, keepdim=True) + eps) * weight, total


def compute_gradients(
    function: Callable[..., torch.Tensor | Tensors], inputs: Tensors, seed: int = 7
) -> tuple[Tensors, Tensors]:
    """Outputs, and gradients of all inputs for random gradients of the outputs (the same by seed)."""
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(seed)
    pulls = [torch.randn(o.shape, generator=generator).to(o) for o in outputs]
    return outputs, torch.autograd.grad(outputs, inputs, pulls)


def measure_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    difference = (actual.double() - expected).norm()
    return (difference / expected.norm().clamp_min(1e-30)).item()


def worst_error(
    function: Callable[..., torch.Tensor | Tensors],
    reference: Callable[..., torch.Tensor | Tensors],
    inputs: Tensors,
) -> float:
    """Largest relative error over outputs and gradients of all inputs, against float64."""
    exact = tuple(t.detach().double().requires_grad_() for t in inputs)
    found = compute_gradients(function, inputs)
    wanted = compute_gradients(reference, exact)
    pairs = zip((*found[0], *found[1]), (*wanted[0], *wanted[1]), strict=True)
    return max(measure_error(actual, expected) for actual, expected in pairs)
