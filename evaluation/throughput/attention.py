"""Attention of one new token over a cache, by several routes; the fastest one is used.

The opponent shall be a strong one. One token has no order within itself, so the query heads that
share a key head are taken as so many queries of it, which every kernel reads the keys once for.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(batch, key heads, queries, head_dim) and twice (batch, key heads, tokens, head_dim) → like the
first."""


def attend_by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Two batched matrix products with a softmax in float32 between them."""
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    return torch.matmul(torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype), v)


def _by_backend(backend: Any) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from torch.nn.attention import sdpa_kernel

        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v)

    return attend


def list_routes(device: torch.device) -> dict[str, Attend]:
    """Name → route, of those that a device may have."""
    if device.type != "cuda":
        return {"sdpa": scaled_dot_product_attention, "products": attend_by_products}
    from torch.nn.attention import SDPBackend

    return {
        "flash": _by_backend(SDPBackend.FLASH_ATTENTION),
        "cudnn": _by_backend(SDPBackend.CUDNN_ATTENTION),
        "efficient": _by_backend(SDPBackend.EFFICIENT_ATTENTION),
        "products": attend_by_products,
    }


def choose_route(q: Tensor, k: Tensor, v: Tensor, repeats: int = 5) -> tuple[str, Attend]:
    """The fastest route for these tensors, and its name.

    A route that PyTorch refuses for them, or that needs more memory than the budget leaves, is out.

    Raises:
        RuntimeError: Every route failed; the last one's error.
    """
    best: tuple[float, str, Attend] | None = None
    failure: RuntimeError | None = None
    for name, attend in list_routes(q.device).items():
        try:
            seconds = _time(attend, (q, k, v), repeats)
        except RuntimeError as exc:  # out of memory is one, too
            failure = exc
            continue
        if best is None or seconds < best[0]:
            best = seconds, name, attend
    if best is None:
        raise failure or RuntimeError("no route")
    return best[1], best[2]


def _time(attend: Attend, inputs: tuple[Tensor, Tensor, Tensor], repeats: int) -> float:
    """Seconds of one call, after one that compiles and chooses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's reasons why it refuses a route
        attend(*inputs)
    synchronise(inputs[0].device)
    began = time.perf_counter()
    for _ in range(repeats):
        attend(*inputs)
    synchronise(inputs[0].device)
    return (time.perf_counter() - began) / repeats


def synchronise(device: torch.device) -> None:
    """Wait for what was handed to a GPU; a CPU is always done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
