"""Questions that another phase holds, in the same words or nearly.

Within a phase near-duplicates are found by :mod:`curriculum.dedupe`; here the rows of the other
phase come first and stay, so that a row is found when it is like one that phase really holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curriculum.dedupe import NearSearch
from curriculum.features import Features, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """Rows whose question another phase holds, ascending, and the row that holds it there."""

    rows: Rows
    kept: Rows
    jaccard: npt.NDArray[np.float32]
    """Of the two questions' word n-grams; 1 for the same question."""

    @staticmethod
    def none() -> Repeats:
        """No rows."""
        rows = np.zeros(0, np.int64)
        return Repeats(rows=rows, kept=rows, jaccard=np.zeros(0, np.float32))

    def take(self, rows: Rows) -> Repeats:
        """The entries of some of the rows, given ascending."""
        places = np.searchsorted(self.rows, rows)
        return Repeats(rows=rows, kept=self.kept[places], jaccard=self.jaccard[places])


def find_repeats(
    features: Features, rows: Rows, others: Sequence[Rows], find_near: NearSearch | None
) -> Repeats:
    """Which rows ask what one of the other phases asks.

    Args:
        features: Of all rows.
        rows: Ascending row numbers, those that may be found.
        others: For each other phase, its rows, ascending.
        find_near: Searches among different questions; ``None`` finds the same questions only.
    """
    kept = np.full(len(rows), -1, np.int64)
    jaccard = np.ones(len(rows), np.float32)
    asked = features.question[rows]
    held = [_one_per_question(features, taken) for taken in others if len(taken)]
    for theirs in held:
        questions = features.question[theirs]
        places = np.minimum(np.searchsorted(questions, asked), len(theirs) - 1)
        is_same = (questions[places] == asked) & (kept < 0)
        kept[is_same] = theirs[places[is_same]]
    if find_near is not None:
        for theirs in held:
            left = np.flatnonzero(kept < 0)
            found, likeness = _find_near(features, rows[left], np.sort(theirs), find_near)
            kept[left], jaccard[left] = found, likeness
    places = np.flatnonzero(kept >= 0)
    return Repeats(rows=rows[places], kept=kept[places], jaccard=jaccard[places])


def _one_per_question(features: Features, rows: Rows) -> Rows:
    """The first row of each question, ordered by the question's hash."""
    _, first = np.unique(features.question[rows], return_index=True)
    chosen: Rows = rows[first]
    return chosen


def _find_near(
    features: Features, rows: Rows, theirs: Rows, find_near: NearSearch
) -> tuple[Rows, npt.NDArray[np.float32]]:
    """Per row, the other phase's row that it nearly repeats, or -1; and their likeness."""
    questions, first, inverse = np.unique(
        features.question[rows], return_index=True, return_inverse=True
    )
    kept, likeness = np.full(len(questions), -1, np.int64), np.ones(len(questions), np.float32)
    # Theirs first: what is like one of them is removed for it, not for another row of ours.
    pairs = find_near(np.concatenate([theirs, np.sort(rows[first])]))
    is_theirs = np.zeros(len(features), np.bool_)
    is_theirs[theirs] = True
    across = ~is_theirs[pairs.removed] & is_theirs[pairs.kept]
    places = np.searchsorted(questions, features.question[pairs.removed[across]])
    kept[places], likeness[places] = pairs.kept[across], pairs.jaccard[across]
    return kept[inverse], likeness[inverse]
