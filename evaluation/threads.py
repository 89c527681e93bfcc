"""CPU threads of decoding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def use_threads(number: int) -> Iterator[None]:
    """Compute on so many CPU threads in the current one; 0 changes nothing."""
    import torch

    before = torch.get_num_threads()
    if number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
