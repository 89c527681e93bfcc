"""Read what preparation found: flat arrays over all rows of some prepared sources.

Rows are numbered through all sources, parts and rows. Besides the features that a phase chooses by
there is where each row's text lies; together about 75 bytes a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curriculum.dedupe import NearPairs
from curriculum.features import DOMAINS, Features, Rows, join_features, pack_ids
from curriculum.prepared import Place, PreparedSource, rows_path
from curriculum.question_hashes import BANDS
from pipeline import near_duplicates

_NUMBERS = (
    "question",
    "trace",
    "num_prompt_tokens",
    "num_completion_tokens",
    "is_verified",
    "difficulty_rank",
)
_COLUMNS = ("row_id", "domain", "licence", "offset", "size", *_NUMBERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """All accepted rows of some prepared sources."""

    sources: tuple[PreparedSource, ...]
    features: Features
    starts: npt.NDArray[np.int64]
    """Number of each part's first row, over all sources, and the number of rows."""
    offset: npt.NDArray[np.uint64]
    size: npt.NDArray[np.uint32]

    def parts(self) -> Iterator[tuple[int, PreparedSource, int]]:
        """Number over all sources, source, and number within the source, of every part."""
        number = 0
        for source in self.sources:
            for index in range(source.num_parts):
                yield number, source, index
                number += 1

    def places(self, rows: Rows) -> list[Place]:
        """Where rows lie, part by part, so that a part's file is opened once."""
        part = np.searchsorted(self.starts, rows, side="right") - 1
        order = np.argsort(part, kind="stable")
        paths = {number: rows_path(s.folder, index) for number, s, index in self.parts()}
        places = []
        for group in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
            if len(group):
                chosen = rows[group]
                path = paths[int(part[group[0]])]
                places.append(Place(path, self.offset[chosen], self.size[chosen], group))
        return places


def load_corpus(sources: Sequence[PreparedSource]) -> Corpus:
    """Read the features of all rows of prepared sources."""
    features, offsets, sizes, starts = [], [], [], [0]
    for number, source in enumerate(sources):
        for index in range(source.num_parts):
            table = source.read_table(index, _COLUMNS)
            features.append(_decode(table, number))
            offsets.append(table["offset"].to_numpy())
            sizes.append(table["size"].to_numpy())
            starts.append(starts[-1] + len(table))
    return Corpus(
        sources=tuple(sources),
        features=join_features(features),
        starts=np.array(starts, dtype=np.int64),
        offset=np.concatenate(offsets),
        size=np.concatenate(sizes),
    )


def _decode(table: pa.Table, source: int) -> Features:
    """One part's columns as arrays."""
    licences = table["licence"].combine_chunks().dictionary_encode()
    domains = table["domain"].combine_chunks().dictionary_encode()
    codes = [DOMAINS.index(name) for name in domains.dictionary.to_pylist()]
    numbers: dict[str, Any] = {name: table[name].to_numpy() for name in _NUMBERS}
    return Features(
        source=np.full(len(table), source, dtype=np.uint8),
        row_id=pack_ids(read_fixed(table["row_id"]).tobytes()),
        domain=np.array(codes, dtype=np.uint8)[domains.indices.to_numpy()],
        licence=licences.indices.to_numpy().astype(np.uint16),
        licences=tuple(licences.dictionary.to_pylist()),
        **numbers,
    )


def read_fixed(column: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    """A column of byte strings of one length, a row each."""
    values = column.combine_chunks()
    width = values.type.byte_width
    data = np.frombuffer(values.buffers()[1] or b"", dtype=np.uint8)
    whole: npt.NDArray[np.uint8] = data[: (values.offset + len(values)) * width]
    return whole.reshape(-1, width)[values.offset :]


def find_near_questions(corpus: Corpus, rows: Rows, *, threshold: float) -> NearPairs:
    """Search different questions, the best first, for nearly the same words."""
    bands = np.empty((len(rows), BANDS), dtype=np.uint32)
    place_of = np.full(len(corpus.features), -1, dtype=np.int64)
    place_of[rows] = np.arange(len(rows))
    for number, source, index in corpus.parts():
        mine = place_of[corpus.starts[number] : corpus.starts[number + 1]]
        keys = read_fixed(source.read_table(index, ["bands"])["bands"]).view(np.uint32)
        bands[mine[mine >= 0]] = keys[mine >= 0]
    is_empty = np.zeros(len(rows), dtype=bool)
    pairs = near_duplicates._candidate_pairs(np.ascontiguousarray(bands.T), is_empty)
    involved = np.zeros(len(rows), dtype=bool)
    involved[pairs // len(rows)] = True
    involved[pairs % len(rows)] = True
    grams = _read_grams(corpus, rows, np.flatnonzero(involved))
    found = near_duplicates._choose(pairs, len(rows), grams, threshold)
    return NearPairs(
        removed=rows[np.array([one.removed for one in found], dtype=np.int64)],
        kept=rows[np.array([one.kept for one in found], dtype=np.int64)],
        jaccard=np.array([one.jaccard for one in found], dtype=np.float32),
    )


def _read_grams(corpus: Corpus, rows: Rows, places: Rows) -> dict[int, npt.NDArray[np.uint32]]:
    wanted = np.full(len(corpus.features), -1, dtype=np.int64)
    wanted[rows[places]] = places
    grams = {}
    for number, source, index in corpus.parts():
        mine = wanted[corpus.starts[number] : corpus.starts[number + 1]]
        chosen = np.flatnonzero(mine >= 0)
        if not len(chosen):
            continue
        column = source.read_table(index, ["grams"])["grams"].combine_chunks()
        values, ends = column.values.to_numpy(), column.offsets.to_numpy()
        for row in chosen:
            grams[int(mine[row])] = values[ends[row] : ends[row + 1]].copy()
    return grams
