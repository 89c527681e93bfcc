"""Association between concepts as sparse rows that can be read from the strongest entry on.

The rows of very frequent concepts have tens of thousands of entries of which few can matter for a
draw; those are read first, and single entries are looked up by concept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from promptcot.bank import Bank
from promptcot.portable import UNIT, Int32s, Int64s


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """A symmetric sparse matrix of association strengths above zero; 16 bytes an entry."""

    indptr: Int64s
    columns: Int32s
    """Ascending within a row."""
    strengths: Int32s
    unit: int
    """One strength in integer score units (see :mod:`promptcot.portable`)."""
    strongest_columns: Int32s = field(repr=False)
    """The same entries, the strongest of a row first, equal ones by concept."""
    strongest: Int32s = field(repr=False)

    @classmethod
    def make(cls, bank: Bank, strengths: Int32s, unit: int) -> Links:
        """Links along the bank's co-occurrences; ``strengths`` is aligned with them."""
        indptr = np.asarray(bank.indptr, dtype=np.int64)
        rows = np.repeat(np.arange(len(indptr) - 1, dtype=np.int32), np.diff(indptr))
        order = np.lexsort((-strengths, rows))
        return cls(
            indptr=indptr,
            columns=bank.indices,
            strengths=strengths,
            unit=unit,
            strongest_columns=bank.indices[order],
            strongest=strengths[order],
        )

    def row(self, concept: int) -> tuple[Int32s, Int32s]:
        """All entries of one row: columns and strengths."""
        entries = slice(self.indptr[concept], self.indptr[concept + 1])
        return self.columns[entries], self.strengths[entries]

    def count_above(self, rows: Int32s, floors: Int64s) -> Int64s:
        """How many entries of each row have at least this score."""
        low, high = self.indptr[rows].copy(), self.indptr[rows + 1].copy()
        while (is_open := low < high).any():
            middle = np.where(is_open, (low + high) >> 1, 0)
            is_above = self.strongest[middle].astype(np.int64) * self.unit >= floors
            low = np.where(is_open & is_above, middle + 1, low)
            high = np.where(is_open & ~is_above, middle, high)
        counts: Int64s = low - self.indptr[rows]
        return counts

    def scores_of(self, rows: Int32s, columns: Int64s) -> Int64s:
        """Scores of single pairs; zero where there is no link."""
        low, end = self.indptr[rows].copy(), self.indptr[rows + 1]
        high = end.copy()
        while (is_open := low < high).any():
            middle = np.where(is_open, (low + high) >> 1, 0)
            is_before = self.columns[middle] < columns
            low = np.where(is_open & is_before, middle + 1, low)
            high = np.where(is_open & ~is_before, middle, high)
        at = np.minimum(low, max(0, len(self.columns) - 1))
        if not len(self.columns):
            return np.zeros(len(rows), dtype=np.int64)
        is_there = (low < end) & (self.columns[at] == columns)
        found: Int64s = np.where(is_there, self.strengths[at].astype(np.int64) * self.unit, 0)
        return found


def count_links(bank: Bank) -> Links:
    """The original's association: the number of shared seeds, one seed scoring 1."""
    return Links.make(bank, np.asarray(bank.counts, dtype=np.int32), UNIT)


def ranges(starts: Int64s, lengths: Int64s) -> Int64s:
    """Positions ``start, start + 1, …`` of several ranges, one after the other."""
    before = np.cumsum(lengths) - lengths
    positions: Int64s = np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
    return positions
