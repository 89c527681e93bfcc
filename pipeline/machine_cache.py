"""Tables that take seconds to work out and are the same for every run: kept in the user's cache.

``$XDG_CACHE_HOME/promptcot-mamba`` or ``~/.cache/promptcot-mamba``, as compiled kernels are. It may
be deleted at any time; what cannot be kept or read is worked out again.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.store import atomic_path, cache_folder

Arrays = Mapping[str, npt.NDArray[Any]]

DAMAGE = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile)
"""What reading a kept file may raise: it is not there, or torn."""


def kept_arrays(kind: str, key: str, make: Callable[[], Arrays]) -> Arrays:
    """Arrays that a former process kept, or else made now and kept.

    Args:
        kind: What they are; one key of a kind is kept.
        key: Everything that they depend on.
        make: Works them out.
    """
    path = kept_path(kind, key)
    try:
        with np.load(path) as stored:
            return dict(stored)
    except DAMAGE:
        arrays = make()
    keep(path, lambda to: write_arrays(to, arrays))
    return arrays


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays to a file as it is named."""
    with path.open("wb") as handle:
        named: dict[str, Any] = dict(arrays)
        np.savez(handle, **named)


def kept_path(kind: str, key: str) -> Path:
    """The file of one kind of table; the key says all that it depends on."""
    return cache_folder() / f"{kind}-{key}.npz"


def keep(path: Path, write: Callable[[Path], None], most: int = 1) -> bool:
    """Keep a table and forget older ones of its kind; whether it could be kept.

    Args:
        path: From :func:`kept_path`.
        write: Writes the file that it is given.
        most: Tables of this kind that stay.
    """
    kind = path.name.rpartition("-")[0]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            write(temporary)
        found = sorted(path.parent.glob(f"{kind}-*.npz"), key=lambda one: one.stat().st_mtime_ns)
        for old in found[:-most]:
            old.unlink(missing_ok=True)
    except OSError:
        # Nowhere to keep it (a read-only home): the next process works it out again.
        return False
    return True
