"""Numbers that come out the same on every machine: random ones, exponentials, fixed-point weights.

Draws must not depend on a processor's vector width, its C library or the number of threads. So
scores are integers, ``exp`` of a score is a product of correctly rounded table entries, weights are
integers whose sums are exact in any order, and random numbers come from a counter: number ``k`` of
draw ``i`` can be had without those before it, for thousands of draws at once.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal, localcontext

import numpy as np
import numpy.typing as npt

SCALE = 4000
"""Length of a stored embedding. Products of two stay below 2**24, so that a float32 matrix product
of their integers is exact in whatever order it adds."""
UNIT = SCALE * SCALE
"""A score of 1 (one shared seed, or a cosine of 1) in integer units."""
WEIGHT_BITS = 40
"""A weight is a multiple of 2**-40 of the largest one: nothing below that is ever drawn."""

_TABLE_BITS = 11
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


class Exponential:
    """``exp(-difference / temperature)`` of score differences in integer units."""

    def __init__(self, temperature: float) -> None:
        with localcontext() as context:
            context.prec = 30
            step = 1 / (UNIT * Decimal(str(temperature)))
            cut = WEIGHT_BITS * Decimal(2).ln()
            self.reach = int(cut / step) + 1
            """Differences from here on weigh nothing."""
            self._tables = []
            for shift in range(0, self.reach.bit_length(), _TABLE_BITS):
                size = min(self.reach >> shift, (1 << _TABLE_BITS) - 1) + 1
                values = [float((-step * (index << shift)).exp()) for index in range(size)]
                self._tables.append(np.array(values))

    def __call__(self, differences: Int64s) -> Floats:
        """Values in [0, 1] of differences ≥ 0."""
        clipped = np.minimum(differences, self.reach)
        mask = (1 << _TABLE_BITS) - 1
        result: Floats = self._tables[0][clipped & mask]
        for level, table in enumerate(self._tables[1:], start=1):
            result *= table[(clipped >> (level * _TABLE_BITS)) & mask]
        result[clipped == self.reach] = 0.0
        return result

    def weights(self, differences: Int64s) -> Int64s:
        """The same as integers, in units of ``2**-WEIGHT_BITS``."""
        return (self(differences) * float(1 << WEIGHT_BITS)).astype(np.int64)


def stream_key(root_seed: int, *parts: str) -> int:
    """A 64-bit key that names one sequence of draws."""
    text = "\x1f".join([str(root_seed), *parts])
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


def draw_keys(stream: int, numbers: Int64s) -> Keys:
    """A key per draw; draw ``i`` of a stream has the same one in every run."""
    return _mix(_mix(numbers.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(stream)))


def uniform(keys: Keys, counters: int | Int64s) -> Floats:
    """Number ``counter`` of each draw, in [0, 1) with 53 bits: SplitMix64, entered anywhere."""
    steps = (
        np.uint64((counters + 1) * _GOLDEN & _MASK)
        if isinstance(counters, int)
        else (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
    )
    bits: Floats = (_mix(keys + steps) >> np.uint64(11)).astype(np.float64)
    return bits * 2.0**-53


def hash_rows(rows: Int32s) -> Keys:
    """A 64-bit hash of each row of numbers, for telling rows apart."""
    keys = np.full(len(rows), rows.shape[1], dtype=np.uint64)
    for column in rows.T:
        keys = _mix(keys * np.uint64(_GOLDEN) + column.astype(np.uint64) + np.uint64(1))
    return keys


def below(chances: Floats, totals: Int64s) -> Int64s:
    """Uniform integers in [0, total), one for each uniform number."""
    drawn = (chances * totals).astype(np.int64)
    return np.minimum(drawn, totals - 1)


def _mix(keys: Keys) -> Keys:
    """SplitMix64's finaliser."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
