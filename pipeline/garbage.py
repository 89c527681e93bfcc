"""Python's search for garbage in circles, put off while many objects live that hold none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """No search for garbage in circles within the block.

    A slice of rows is thousands of objects in no circle, and looking through them again and again
    took a fortieth of a build (measured). Threads may be in such blocks at once; the search goes
    on when the first of them leaves.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
