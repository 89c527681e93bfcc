"""Each concept's most similar ones, and a bound for all others.

For a concept ``c`` the list holds every ``j`` whose similarity is above ``bound[c]``; every other
one is at or below it. Lists are made when a concept is first chosen, with one exact matrix product.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promptcot.portable import SCALE, Int32s, Int64s

NUM_NEAR = 64
"""Longest list. Longer ones bound the rest better but cost more to merge (measured)."""
MAX_ROWS = 768
"""Concepts of one matrix product: 300 MB of products for a bank of 100,000."""
_COLUMNS = 8192
_TABLE_CONCEPTS = 4096
"""Up to so many concepts all products are kept: 64 MB that make every plain draw of a small bank a
look-up. Larger banks keep none."""

Vectors = npt.NDArray[np.int16]


class NearConcepts:
    """Similarities of a bank's concepts, in integer units."""

    def __init__(self, vectors: Vectors, num_near: int = NUM_NEAR) -> None:
        if int(np.abs(vectors).max(initial=0)) > SCALE:
            raise ValueError(f"vectors are longer than {SCALE}")
        num, size = len(vectors), min(num_near, len(vectors))
        self._vectors = vectors
        self.concepts: Int32s = np.full((num, size), -1, dtype=np.int32)
        """Row ``c``: the near ones, padded with -1."""
        self.excess: Int32s = np.zeros((num, size), dtype=np.int32)
        """By how much each one's similarity is above the bound."""
        self.bound: Int32s = np.zeros(num, dtype=np.int32)
        self._is_ready = np.zeros(num, dtype=np.bool_)
        self._table: npt.NDArray[np.float32] | None = None

    @property
    def vectors(self) -> Vectors:
        """The embeddings that it was made from."""
        return self._vectors

    def require(self, concepts: Int32s) -> None:
        """Make the lists of these concepts, where they are missing."""
        missing = np.unique(concepts[~self._is_ready[concepts]])
        if not len(missing):
            return
        if 2 * np.count_nonzero(self._is_ready) > len(self._is_ready):
            # Soon all will be wanted: large products are cheaper by the row than small ones.
            missing = np.flatnonzero(~self._is_ready).astype(np.int32)
        for start in range(0, len(missing), MAX_ROWS):
            self._make(missing[start : start + MAX_ROWS])

    def sum_vectors(self, chosen: Int32s) -> Int32s:
        """For each row of concepts, the sum of their vectors."""
        total = self._vectors[chosen[:, 0]].astype(np.int32)
        for column in chosen.T[1:]:
            total += self._vectors[column]
        return total

    def similarities(self, sums: Int32s, concepts: Int32s) -> Int64s:
        """Row by row, a sum of vectors times a concept's vector; exact."""
        vectors = self._vectors[concepts].astype(np.int32)
        products: Int64s = np.einsum("ij,ij->i", sums, vectors).astype(np.int64)
        return products

    def _make(self, rows: Int32s) -> None:
        products = self.multiply(rows)
        products[np.arange(len(rows)), rows] = -2 * SCALE * SCALE
        size = self.concepts.shape[1]
        for row, values in zip(rows, products, strict=True):
            found, bound = _select(values, size)
            found = found[found != row]
            self.concepts[row, : len(found)] = found
            self.excess[row, : len(found)] = values[found].astype(np.int32) - bound
            self.bound[row] = bound
        self._is_ready[rows] = True

    def multiply(self, rows: Int32s) -> npt.NDArray[np.float32]:
        """Similarities of some concepts to all, themselves included; exact; the caller's own."""
        if len(self._vectors) <= _TABLE_CONCEPTS:
            if self._table is None:
                self._table = self._product(np.arange(len(self._vectors), dtype=np.int32))
            table: npt.NDArray[np.float32] = self._table[rows]
            return table
        return self._product(rows)

    def _product(self, rows: Int32s) -> npt.NDArray[np.float32]:
        left = self._vectors[rows].astype(np.float32)
        products = np.empty((len(rows), len(self._vectors)), dtype=np.float32)
        for start in range(0, len(self._vectors), _COLUMNS):
            right = self._vectors[start : start + _COLUMNS].astype(np.float32)
            np.matmul(left, right.T, out=products[:, start : start + _COLUMNS])
        return products


def _select(values: npt.NDArray[np.float32], size: int) -> tuple[npt.NDArray[np.intp], int]:
    """Positions of all values above a bound, at most ``size`` of them, and that bound."""
    if len(values) <= size:
        return np.arange(len(values)), -2 * SCALE * SCALE
    width = max(1, len(values) // (8 * size))
    candidates = np.arange(len(values))
    if width > 1:
        # The size-th largest of the groups' maxima has at least `size` values at or above it.
        groups = values[: len(values) // width * width].reshape(-1, width).max(axis=1)
        floor = np.partition(groups, -size)[-size]
        candidates = np.flatnonzero(values >= floor)
    chosen = values[candidates]
    bound = np.partition(chosen, -size)[-size]
    return candidates[chosen > bound], int(bound)
