"""Which tile each of mamba-ssm's kernels runs with.

Triton times all proposed tiles in every process anew, for most of these kernels, and two tiles
round differently: a resumed run could differ in the last bit from the one it continues. Pinning the
tiles ends that, and saves compiling the others.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

Tile = dict[str, int]
"""Block sizes, ``num_warps`` and ``num_stages``."""

_MODULES = (
    "ssd_bmm",
    "ssd_chunk_scan",
    "ssd_chunk_state",
    "ssd_combined",
    "ssd_state_passing",
)


_proposed: dict[str, list[Any]] = {}
"""All tiles of each kernel, as mamba-ssm was loaded."""


def find_tuners() -> dict[str, Any]:
    """Name of a kernel → the tuner that chooses its tile; mamba-ssm must be loaded."""
    from triton.runtime.autotuner import Autotuner

    found = {}
    for name in _MODULES:
        module = importlib.import_module(f"mamba_ssm.ops.triton.{name}")
        for tuner in vars(module).values():
            if isinstance(tuner, Autotuner):
                found[tuner.base_fn.__name__] = tuner
                _proposed.setdefault(tuner.base_fn.__name__, tuner.configs)
    return found


def read_tiles() -> dict[str, Tile]:
    """The tiles that the last launches used, of kernels that were launched."""
    used = {name: vars(tuner).get("best_config") for name, tuner in find_tuners().items()}
    return {name: _describe(tile) for name, tile in used.items() if tile is not None}


def list_smallest_tiles() -> dict[str, Tile]:
    """Of each kernel the smallest tile, which fits for every dtype but is not fast."""
    find_tuners()
    return {name: _describe(min(tiles, key=_measure)) for name, tiles in _proposed.items()}


def pin_tiles(tiles: dict[str, Tile]) -> None:
    """Leave these kernels their one tile; others go on trying.

    Args:
        tiles: Name of a kernel → a tile that mamba-ssm proposes for it.

    Raises:
        KeyError: No such kernel.
        ValueError: mamba-ssm does not propose this tile.
    """
    tuners = find_tuners()
    for name, wanted in tiles.items():
        chosen = [tile for tile in _proposed[name] if _describe(tile) == wanted]
        if not chosen:
            raise ValueError(f"mamba-ssm proposes no tile {wanted} for {name}")
        tuners[name].configs = chosen[:1]


def _describe(tile: Any) -> Tile:
    return {**tile.kwargs, "num_warps": tile.num_warps, "num_stages": tile.num_stages}


def _measure(tile: Any) -> int:
    elements: int = math.prod(tile.kwargs.values())
    return elements * int(tile.num_stages)
