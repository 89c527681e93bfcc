"""What a phase knows of its rows while it chooses: flat arrays, about 70 bytes a row, no texts.

Rows are numbered over all sources of the phase, in the phase's order of sources, parts and rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curriculum.prepared import PreparedSource

Bools = npt.NDArray[np.bool_]
UInt8s = npt.NDArray[np.uint8]
UInt16s = npt.NDArray[np.uint16]
UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]

_COLUMNS = (
    "row_id",
    "offset",
    "size",
    "question",
    "trace",
    "num_prompt_tokens",
    "num_completion_tokens",
    "num_chars",
    "is_verified",
    "domain",
    "licence",
    "difficulty_rank",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """One entry per row that its source's preparation accepted."""

    sources: tuple[str, ...]
    """Names in the phase's order; ``source`` holds places in it."""
    domains: tuple[str, ...]
    licences: tuple[str, ...]
    source: UInt8s
    """The smaller, the higher the source's priority."""
    part: UInt32s
    """Number of the prepared part over all sources."""
    offset: UInt64s
    size: UInt32s
    """Where the row's text lies in its part."""
    id_high: UInt64s
    id_low: UInt64s
    """The two halves of the row's id."""
    question: UInt64s
    """Hash of the levelled question."""
    trace: UInt64s
    """Hash of reasoning and answer."""
    num_prompt_tokens: UInt32s
    num_completion_tokens: UInt32s
    num_chars: UInt32s
    is_verified: Bools
    domain: UInt8s
    """Place in ``domains``."""
    licence: UInt16s
    """Place in ``licences``."""
    difficulty_rank: Float32s
    """0 (easiest) to 100."""

    def __len__(self) -> int:
        return len(self.source)

    @property
    def num_tokens(self) -> UInt32s:
        """Prompt plus completion."""
        return self.num_prompt_tokens + self.num_completion_tokens

    def row_id(self, row: int) -> str:
        """A row's id as it is published: 32 hex digits."""
        return f"{int(self.id_high[row]):016x}{int(self.id_low[row]):016x}"

    def row_ids(self, rows: Int64s) -> list[str]:
        """The ids of several rows."""
        halves = np.stack([self.id_high[rows], self.id_low[rows]], axis=1).astype(">u8")
        digits = halves.tobytes().hex()
        return [digits[start : start + 32] for start in range(0, len(digits), 32)]


class _Vocabulary:
    """Words in the order in which they are met; the same for the same sources."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def encode(self, column: pa.ChunkedArray) -> Int64s:
        """Places of a column's words."""
        encoded = column.combine_chunks()
        if not pa.types.is_dictionary(encoded.type):
            encoded = encoded.dictionary_encode()
        words = encoded.dictionary.to_pylist()
        places = [self._places.setdefault(word, len(self._places)) for word in words]
        return np.array(places, dtype=np.int64)[encoded.indices.to_numpy(zero_copy_only=False)]

    def words(self) -> tuple[str, ...]:
        """All words, by place."""
        return tuple(self._places)


def load_features(sources: Sequence[PreparedSource]) -> Features:
    """Read the features of all rows of prepared sources."""
    domains, licences = _Vocabulary(), _Vocabulary()
    pieces: list[dict[str, npt.NDArray[np.generic]]] = []
    part = 0
    for number, source in enumerate(sources):
        for index in range(source.num_parts):
            table = source.read_table(index, _COLUMNS)
            pieces.append(_decode(table, domains, licences))
            pieces[-1]["source"] = np.full(len(table), number, dtype=np.uint8)
            pieces[-1]["part"] = np.full(len(table), part, dtype=np.uint32)
            part += 1
    joined = {name: np.concatenate([piece.pop(name) for piece in pieces]) for name in pieces[0]}
    return Features(
        sources=tuple(source.name for source in sources),
        domains=domains.words(),
        licences=licences.words(),
        **joined,  # type: ignore[arg-type]
    )


def _decode(
    table: pa.Table, domains: _Vocabulary, licences: _Vocabulary
) -> dict[str, npt.NDArray[np.generic]]:
    """One part's columns as arrays of the types of :class:`Features`."""
    ids = table["row_id"].combine_chunks()
    start = 16 * ids.offset
    raw = ids.buffers()[1].to_pybytes()[start : start + 16 * len(ids)] if len(ids) else b""
    halves = np.frombuffer(raw, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    columns: dict[str, npt.NDArray[np.generic]] = {
        "id_high": halves[:, 0].copy(),
        "id_low": halves[:, 1].copy(),
        "domain": domains.encode(table["domain"]).astype(np.uint8),
        "licence": licences.encode(table["licence"]).astype(np.uint16),
    }
    for name in _COLUMNS:
        if name not in {"row_id", "domain", "licence"}:
            columns[name] = table[name].to_numpy()
    return columns
