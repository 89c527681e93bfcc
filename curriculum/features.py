"""What a phase knows of each prepared row while it chooses: flat arrays, no texts.

The arrays hold 49 bytes a row. A row's number is its place in the concatenation of the phase's
prepared sources (source by source, part by part, row by row), so that the same sources give the
same numbers whoever prepared them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

DOMAINS = ("math", "code", "other")
"""Codes of ``Features.domain``: the position here."""
ID_BYTES = 16

Rows = npt.NDArray[np.int64]
"""Row numbers."""
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """One row of every array per prepared row."""

    source: npt.NDArray[np.uint8]
    """Place of the row's source in the list of the phase's sources."""
    row_id: npt.NDArray[np.uint64]
    """Shape (n, 2): the id's 16 bytes as two big-endian numbers, see :func:`pack_ids`."""
    question: npt.NDArray[np.uint64]
    """Hash of the levelled question."""
    trace: npt.NDArray[np.uint64]
    """Hash of thinking and answer."""
    num_prompt_tokens: npt.NDArray[np.uint32]
    num_completion_tokens: npt.NDArray[np.uint32]
    is_verified: Mask
    domain: npt.NDArray[np.uint8]
    """Position in :data:`DOMAINS`."""
    licence: npt.NDArray[np.uint16]
    """Position in ``licences``."""
    difficulty_rank: npt.NDArray[np.float32]
    """0 (easiest) to 100."""
    licences: tuple[str, ...]
    """Names of the licence codes."""

    def __len__(self) -> int:
        return len(self.source)

    @property
    def num_tokens(self) -> npt.NDArray[np.int64]:
        """Prompt plus completion, of every row; a new array."""
        total: npt.NDArray[np.int64] = self.num_prompt_tokens.astype(np.int64)
        total += self.num_completion_tokens
        return total

    def hex_id(self, row: int) -> str:
        """A row's id as it is written in versions: 32 hex digits."""
        high, low = self.row_id[row]
        return f"{int(high):016x}{int(low):016x}"

    def hex_ids(self, rows: Rows) -> list[str]:
        """The ids of several rows."""
        digits = self.row_id[rows].astype(">u8").tobytes().hex()
        return [digits[start : start + 32] for start in range(0, len(digits), 32)]

    def take(self, rows: Rows | Mask) -> Features:
        """The features of some rows, in the given order."""
        return Features(licences=self.licences, **{n: a[rows] for n, a in self._arrays().items()})

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "licences"}


def join_features(parts: list[Features]) -> Features:
    """Concatenate, giving licences one list of names: sorted, so that no order of work shows."""
    licences = tuple(sorted({name for part in parts for name in part.licences}))
    codes = {name: code for code, name in enumerate(licences)}
    recoded = []
    for part in parts:
        lookup = np.array([codes[name] for name in part.licences], np.uint16)
        recoded.append(lookup[part.licence] if len(part) else part.licence)
    names = [f.name for f in fields(Features) if f.name not in {"licence", "licences"}]
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Features(licence=np.concatenate(recoded), licences=licences, **joined)


def pack_ids(data: bytes | memoryview) -> npt.NDArray[np.uint64]:
    """Ids of 16 bytes each, one after another, as (n, 2) numbers that sort as the ids do."""
    pairs = np.frombuffer(data, dtype=">u8").reshape(-1, 2)
    return pairs.astype(np.uint64)
