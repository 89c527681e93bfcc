"""How kernels are compiled: once for a machine, kept beside the source or in the user's cache."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def _load_without_scipy() -> None:
    """Load what numba compiles array functions with, but not SciPy's matrix products.

    numba imports SciPy for them where it finds it: a fifth of a second and 16 MB in every process,
    for functions that no kernel calls.
    """
    # Importing numba has loaded the package itself, which is small.
    if "scipy.linalg" in sys.modules:
        return
    sys.modules["scipy.linalg"] = None  # type: ignore[assignment]
    try:
        import_module("numba.np.arraymath")
    finally:
        del sys.modules["scipy.linalg"]


_load_without_scipy()


def borrowing(function: Function) -> Function:
    """:func:`compiled`, for what makes no array and returns none.

    Nobody then counts who holds the arrays it is given. Counting takes two atomic steps for every
    array of every call, which was a seventh of the kernels' time.
    """
    return _compile(function, counts_holders=False)


def compiled(function: Function) -> Function:
    """Compile at the first call; later processes read the machine code from the cache.

    A kernel calls only kernels of its own module: the cache looks at no other file's changes
    (:mod:`pipeline.kernels.memory` holds the few steps that all share).
    """
    return _compile(function, counts_holders=True)


def _compile(function: Function, *, counts_holders: bool) -> Function:
    # numba's own name for its run time, which allocates and counts.
    options: dict[str, Any] = {"nogil": True, "_nrt": counts_holders}
    try:
        return cast(Function, numba.njit(cache=True, **options)(function))
    except RuntimeError:
        # No folder to keep machine code in (a read-only installation without a home).
        return cast(Function, numba.njit(**options)(function))
