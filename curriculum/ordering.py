"""Lots and orders: reproducible randomness from a row's id alone.

A row's lot depends on the seed, the purpose and the row's id, never on its neighbours or on how the
work was parted. So a larger share holds every row of a smaller one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curriculum.features import Features, Rows
from pipeline.hashing import derive_seed

if TYPE_CHECKING:
    from pipeline.settings.phases import Order

Lots = npt.NDArray[np.uint64]


def draw_lots(
    features: Features, rows: Rows, *, seed: int, purpose: str, copies: Rows | None = None
) -> Lots:
    """A uniform 64-bit number per row; copies of one row get different ones."""
    lots = _scramble(features.row_id[rows, 0] + np.uint64(derive_seed(seed, purpose)))
    lots = _scramble(lots ^ features.row_id[rows, 1])
    return lots if copies is None else _scramble(lots + copies.astype(np.uint64))


def arrange(
    features: Features, rows: Rows, *, copies: Rows, order: Order, lots: Lots
) -> npt.NDArray[np.int64]:
    """Places (indices into ``rows``) in training order.

    ``as-is`` gives all originals in the order of the sources, then all second copies, and so on.
    """
    # Rows break ties of lots, which only rows of one id can have.
    keys: tuple[npt.NDArray[Any], ...] = (rows, copies if order == "as-is" else lots)
    if order == "difficulty":
        keys = (*keys, features.difficulty_rank[rows])
    if order == "length":
        keys = (*keys, features.num_tokens[rows])
    places: npt.NDArray[np.int64] = np.lexsort(keys)
    return places


def _scramble(values: Lots) -> Lots:
    """The finaliser of splitmix64: a bijection that leaves no pattern."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
