"""Which keys occur where: a few bytes per key, for millions of requests."""

from __future__ import annotations

from array import array

import numpy as np


def short_key(key: str) -> int:
    """The first 64 bits of a hash in hex; two of a million differ with all but 1 in 10⁷ chance."""
    return int(key[:16], 16)


class KeyTable:
    """A multimap from short keys to numbers, 16 bytes an entry, in order of addition."""

    def __init__(self, merge_at: int = 65_536) -> None:
        self._merge_at = merge_at
        self._keys = np.empty(0, dtype=np.uint64)
        self._values = np.empty(0, dtype=np.uint64)
        self._new_keys = array("Q")
        self._new_values = array("Q")
        self._recent: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._keys) + len(self._new_keys)

    def add(self, key: int, value: int) -> None:
        """Add one entry."""
        self._new_keys.append(key)
        self._new_values.append(value)
        self._recent.setdefault(key, []).append(value)
        if len(self._new_keys) >= max(self._merge_at, len(self._keys) // 16):
            self._merge()

    def get(self, key: int) -> list[int]:
        """The values of a key, oldest first."""
        wanted = np.uint64(key)
        start = int(np.searchsorted(self._keys, wanted, side="left"))
        end = int(np.searchsorted(self._keys, wanted, side="right"))
        return [int(value) for value in self._values[start:end]] + self._recent.get(key, [])

    def _merge(self) -> None:
        keys = np.concatenate([self._keys, np.frombuffer(self._new_keys, dtype=np.uint64)])
        values = np.concatenate([self._values, np.frombuffer(self._new_values, dtype=np.uint64)])
        order = np.argsort(keys, kind="stable")
        self._keys, self._values = keys[order], values[order]
        self._new_keys, self._new_values = array("Q"), array("Q")
        self._recent.clear()
