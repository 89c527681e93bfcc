"""A step as one CUDA graph: hundreds of kernels are launched by one call.

At small batches a step is bound by its launches: about 15 a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_WARM_UPS = 3
"""Runs before the capture: they compile kernels and make the libraries' workspaces."""


def capture_step(
    step: Callable[[], None], device: torch.device, warm_ups: int = _WARM_UPS
) -> Callable[[], None]:
    """A function that does the same as ``step`` by replaying a CUDA graph of it.

    The step is run a few times first, so what it changes must be set anew afterwards.

    Args:
        step: Reads and writes the same device tensors every time, and waits for nothing.
        device: The GPU.
        warm_ups: Runs before the capture.
    """
    import torch

    before = torch.cuda.current_stream(device)
    stream = _side_stream(device)
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        for _ in range(warm_ups):
            step()
    before.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            step()
    finally:
        # PyTorch stays on the capture's stream where the capture itself fails.
        torch.cuda.set_stream(before)
    replay: Callable[[], None] = graph.replay
    return replay


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream of all captures: cuBLAS keeps a workspace for each (on Hopper 32 MiB)."""
    import torch

    return torch.cuda.Stream(device)
