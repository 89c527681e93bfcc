"""Each kernel alone against the same operation of PyTorch in float64: outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from trainer.model.operations import Operations, load_operations

LENGTHS = [700, 1, 2, 255, 257, 3, 512, 317]
"""2,047 tokens and one of padding."""
HEADS, WIDTH, GROUPS, STATE, CHUNK, EPS = 16, 64, 8, 128, 256, 1e-5
LIMITS = {
    ("scan", torch.float32): 5e-3,
    ("scan", torch.bfloat16): 1.5e-2,
    ("other", torch.float32): 2e-5,
    ("other", torch.bfloat16): 1e-2,
}


def measure_kernels(device: str) -> Iterator[tuple[str, float, float]]:
    """(kernel, dtype and tensor; relative error; limit): the worst output or gradient of each."""
    if device == "cpu":
        return
    for dtype in (torch.float32, torch.bfloat16):
        kernels, exact = load_operations("triton"), load_operations("torch")
        for name, inputs in draw_inputs(dtype).items():
            found = _differentiate(_call(name, kernels), inputs)
            wanted = _differentiate(_call(name, exact), [value.double() for value in inputs])
            errors = [_error(a, b) for a, b in zip(found, wanted, strict=True)]
            limit = LIMITS["scan" if name == "scan" else "other", dtype]
            yield f"{name}, {str(dtype).removeprefix('torch.')}", max(errors), limit


def draw_inputs(dtype: torch.dtype) -> dict[str, list[Tensor]]:
    """Inputs of each kernel; those that the model passes as slices are slices."""
    generator = torch.Generator(device="cuda").manual_seed(0)
    length, inner = 2048, HEADS * WIDTH
    channels = inner + 2 * GROUPS * STATE

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device="cuda").to(dtype)

    projected = normal(1, length, inner + channels + HEADS)
    gate, mixed, dt = projected.split([inner, channels, HEADS], dim=-1)
    return {
        "convolution": [mixed, normal(channels, 4), normal(channels)],
        "gated norm": [normal(1, length, inner), gate, normal(inner)],
        "add norm": [normal(1, length, inner), normal(1, length, inner).float(), normal(inner)],
        "scan": [
            normal(1, length, HEADS, WIDTH),
            dt,
            -normal(HEADS).float().exp(),
            normal(1, length, GROUPS, STATE),
            normal(1, length, GROUPS, STATE),
            normal(HEADS),
            normal(HEADS) - 3,
        ],
    }


def _call(name: str, backend: Operations) -> Callable[..., Any]:
    numbers = torch.repeat_interleave(torch.arange(9), torch.tensor([*LENGTHS, 1]))
    documents = numbers.to("cuda", torch.int32)[None]
    calls: dict[str, Callable[..., Any]] = {
        "convolution": lambda *t: backend.causal_conv1d(*t, documents),
        "gated norm": lambda *t: backend.gated_norm(*t, EPS, GROUPS),
        "add norm": lambda *t: backend.add_norm(
            *t, EPS, residual_dtype=torch.promote_types(t[0].dtype, torch.float32)
        ),
        "scan": lambda *t: backend.chunk_scan(*t, chunk_size=CHUNK, seq_idx=documents),
    }
    return calls[name]


def _differentiate(call: Callable[..., Any], inputs: list[Tensor]) -> list[Tensor]:
    """Outputs and the gradients of all inputs, for fixed slopes."""
    leaves = [value.detach().requires_grad_() for value in inputs]
    outputs = call(*leaves)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    generator = torch.Generator(device="cuda").manual_seed(1)
    slopes = [
        torch.randn(value.shape, generator=generator, device="cuda").to(value.dtype)
        for value in outputs
    ]
    gradients = torch.autograd.grad(outputs, leaves, slopes)
    return [*(value.detach() for value in outputs), *gradients]


def _error(found: Tensor, wanted: Tensor) -> float:
    difference = (found.double() - wanted.double()).norm()
    return float(difference / wanted.double().norm())
