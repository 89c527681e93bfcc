"""A step as one CUDA graph: hundreds of kernels are launched by one call.

At small batches a step is bound by its launches: about 15 a layer.
"""

from __future__ import annotations

from collections.abc import Callable

_WARM_UPS = 3
"""Runs before the capture: they compile kernels and make the libraries' workspaces."""


def capture_step(step: Callable[[], None]) -> Callable[[], None]:
    """A function that does the same as ``step`` by replaying a CUDA graph of it.

    The step is run a few times first, so what it changes must be set anew afterwards.

    Args:
        step: Reads and writes the same device tensors every time, and waits for nothing.
    """
    import torch

    before = torch.cuda.current_stream()
    stream = torch.cuda.Stream()
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            step()
    before.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    replay: Callable[[], None] = graph.replay
    return replay
