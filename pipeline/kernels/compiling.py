"""How kernels are compiled: once for a machine, kept beside the source or in the user's cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile at the first call; later processes read the machine code from the cache.

    A kernel calls only kernels of its own module: the cache looks at no other file's changes.
    """
    try:
        return cast(Function, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:
        # No folder to keep machine code in (a read-only installation without a home).
        return cast(Function, numba.njit(nogil=True)(function))
