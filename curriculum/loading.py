"""Read what preparation found: flat arrays over all rows of some prepared sources.

Rows are numbered through all sources, parts and rows. Besides the features that a phase chooses by
there is where each row's text lies; together about 75 bytes a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from curriculum.features import Features, Rows, join_features
from curriculum.prepared import (
    FEATURES,
    PreparedSource,
    decode_features,
    rows_path,
)
from curriculum.row_files import Places


@dataclass(frozen=True, kw_only=True)
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

    def places(self, rows: Rows) -> Places:
        """Where rows lie."""
        parts = np.searchsorted(self.starts, rows, side="right") - 1
        used, file = np.unique(parts, return_inverse=True)
        paths = self.row_files
        return Places(
            paths=tuple(paths[part] for part in used.tolist()),
            file=file.astype(np.uint32),
            offset=self.offset[rows],
            size=self.size[rows],
        )

    @cached_property
    def row_files(self) -> list[Path]:
        """The file of rows of every part."""
        return [rows_path(source.folder, index) for _, source, index in self.parts()]


def load_corpus(sources: Sequence[PreparedSource]) -> Corpus:
    """Read the features of all rows of prepared sources."""
    features, offsets, sizes, starts = [], [], [], [0]
    for number, source in enumerate(sources):
        for index in range(source.num_parts):
            table = source.read_table(index, ("offset", "size", *FEATURES))
            features.append(decode_features(table, number))
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
