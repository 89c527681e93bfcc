"""Questions in nearly the same words: what the search reads, and which pairs it may find.

Two questions that differ in a number are two questions, however alike their words are ("5 balls in
3 boxes", "5 balls in 2 boxes"), and so are two whose traces box different answers ("find x", "find
y"), unless the recipe says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from curriculum.dedupe import NearSearch
from curriculum.features import Rows
from curriculum.loading import Corpus
from curriculum.prepared import read_fixed
from curriculum.question_hashes import QuestionHashes, mark_bands
from pipeline.near_duplicates import GramSets, NearRows, find_near_rows
from pipeline.settings.curriculum import CurriculumSettings
from pipeline.word_hashes import offsets_of

UInt32s = npt.NDArray[np.uint32]


class Questions(Protocol):
    """Where the search reads hashes of questions, by row number."""

    def read_bands(self, first: int, last: int) -> UInt32s:
        """Some columns of all rows' keys."""

    def read_grams(self, rows: Rows) -> GramSets:
        """The n-grams of some rows, ascending, labelled by their answers."""

    def read_numbers(self) -> npt.NDArray[np.uint64]:
        """A hash of each row's numbers."""


def make_search(questions: Questions, settings: CurriculumSettings) -> NearSearch | None:
    """The search that the recipe asks for."""
    if not settings.near_duplicates:
        return None
    numbers = questions.read_numbers() if settings.near_duplicates_share_numbers else None

    def read_bands(first: int, last: int) -> UInt32s:
        bands = questions.read_bands(first, last)
        return bands if numbers is None else mark_bands(bands, numbers)

    def read_grams(rows: Rows) -> GramSets:
        grams = questions.read_grams(rows)
        return grams if settings.near_duplicates_share_answers else replace(grams, labels=None)

    def search(rows: Rows) -> NearRows:
        return find_near_rows(
            rows,
            read_bands,
            read_grams,
            threshold=settings.near_duplicate_jaccard,
            memory=settings.dedupe_memory_mb << 20,
        )

    return search


@dataclass(frozen=True, slots=True)
class StoredQuestions:
    """Hashes in the tables of prepared sources; only what is asked for is in memory."""

    corpus: Corpus

    def read_bands(self, first: int, last: int) -> UInt32s:
        """See :class:`Questions`."""
        bands = np.empty((len(self.corpus.features), last - first), dtype=np.uint32)
        for number, source, index in self.corpus.parts():
            keys = read_fixed(source.read_table(index, ["bands"])["bands"]).view(np.uint32)
            start, end = self.corpus.starts[number : number + 2]
            bands[start:end] = keys[:, first:last]
        return bands

    def read_grams(self, rows: Rows) -> GramSets:
        """See :class:`Questions`."""
        pieces, sizes = [np.zeros(0, np.uint32)], [np.zeros(0, np.int64)]
        answers = [np.zeros(0, np.uint32)]
        for number, source, index in self.corpus.parts():
            start, end = self.corpus.starts[number : number + 2]
            low, high = np.searchsorted(rows, [start, end])
            if low == high:
                continue
            table = source.read_table(index, ["grams", "answer"])
            chosen = table["grams"].combine_chunks().take(rows[low:high] - start)
            answers.append(table["answer"].to_numpy()[rows[low:high] - start])
            pieces.append(chosen.values.to_numpy())
            sizes.append(np.diff(chosen.offsets.to_numpy()).astype(np.int64))
        offsets = offsets_of(np.concatenate(sizes))
        return GramSets(np.concatenate(pieces), offsets, np.concatenate(answers))

    def read_numbers(self) -> npt.NDArray[np.uint64]:
        """See :class:`Questions`."""
        columns = [
            source.read_table(index, ["numbers"])["numbers"].to_numpy()
            for _, source, index in self.corpus.parts()
        ]
        return np.concatenate(columns)


@dataclass(frozen=True, slots=True)
class HashedQuestions:
    """Hashes of a few questions in memory."""

    hashes: QuestionHashes

    def read_bands(self, first: int, last: int) -> UInt32s:
        """See :class:`Questions`."""
        return self.hashes.sketches.bands[:, first:last]

    def read_grams(self, rows: Rows) -> GramSets:
        """See :class:`Questions`."""
        grams = self.hashes.sketches.grams
        pieces = [grams.values[grams.offsets[row] : grams.offsets[row + 1]] for row in rows]
        sizes = np.array([len(piece) for piece in pieces], dtype=np.int64)
        return GramSets(np.concatenate(pieces), offsets_of(sizes))

    def read_numbers(self) -> npt.NDArray[np.uint64]:
        """See :class:`Questions`."""
        return self.hashes.numbers
