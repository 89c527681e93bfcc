"""Random numbers that are a function of a sample's seed and a position, and of nothing else.

SplitMix64 (Steele, Lea and Flood 2014): the number at a position is a mix of ``seed + (position +
1) * gamma``, so no generator has a state that a neighbour, a restart or a batch could move.
"""

from __future__ import annotations

from typing import Any

_GAMMA = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_BITS = 24
"""Of a uniform number: as many as float32 keeps, so that every device has the same ones."""


def draw_uniform(seeds: Any, positions: Any) -> Any:
    """Numbers in (0, 1), float64, one for each pair.

    Args:
        seeds: (rows,) int64 tensor, any 64 bits.
        positions: (rows,) int64 tensor, not negative.
    """
    bits = _mix(seeds + (positions + 1) * _signed(_GAMMA))
    return (_shift(bits, 64 - _BITS).double() + 0.5) * 2.0**-_BITS


def _mix(value: Any) -> Any:
    value = (value ^ _shift(value, 30)) * _signed(_FIRST)
    value = (value ^ _shift(value, 27)) * _signed(_SECOND)
    return value ^ _shift(value, 31)


def _shift(value: Any, by: int) -> Any:
    """Logical shift to the right; int64 has an arithmetic one only."""
    return (value >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
