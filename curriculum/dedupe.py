"""Duplicates over all rows of a phase: the same question, or nearly, and which rows survive.

Of the rows of one question (in any spelling, in nearly any words) those with the same trace are
one, and the best few traces stay. The best come first by source priority (the phase's order), then
verified before unverified, then the shorter, then the smaller id: the same rows survive whatever
order they come in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_128

from curriculum.features import Features, Mask, Rows
from curriculum.texts import Utf8
from pipeline.near_duplicates import NearRows

STAGE = "dedupe"
REASONS = ("duplicate_trace", "duplicate_question", "near_duplicate_question")
"""Why a row was removed; ``Duplicates.reasons`` holds positions here."""
TRACE, QUESTION, NEAR = range(len(REASONS))


def trace_key(thinking: Utf8, answer: Utf8) -> int:
    """64 bits of a trace's content as UTF-8: the same trace twice is one trace."""
    digest = xxh3_128(thinking)
    digest.update(b"\x1f")
    digest.update(answer)
    return digest.intdigest() >> 64


NearSearch = Callable[[Rows], NearRows]
"""From rows of different questions, the best first, to those that repeat an earlier one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Removed rows, ascending, and what stands for each."""

    removed: Rows
    kept: Rows
    """Rows that stay."""
    reasons: npt.NDArray[np.uint8]
    jaccard: npt.NDArray[np.float32]
    """Of the word n-grams of the row's question and the best of those that are nearly the same; 1
    for the same question."""


def find_duplicates(
    features: Features,
    candidates: Rows,
    traces_per_question: int,
    *,
    find_near: NearSearch | None = None,
) -> Duplicates:
    """Which of the candidates to remove.

    Args:
        features: Of all rows.
        candidates: Ascending row numbers.
        traces_per_question: Traces of one question that stay.
        find_near: Searches among different questions; ``None`` takes each for its own.
    """
    ordered = candidates[_survivor_order(features, candidates)]
    cluster, jaccard = _cluster(features, ordered, find_near)
    order, is_repeat, first = _repeated_traces(features, ordered, cluster)
    rank = np.empty(len(ordered), dtype=np.int64)
    rank[order] = _count_within(cluster[order], ~is_repeat)
    is_trace = np.empty(len(ordered), dtype=bool)
    is_trace[order] = is_repeat
    is_surplus = ~is_trace & (rank >= traces_per_question)
    # What repeats a surplus trace is surplus too, and stands for nothing that stays.
    is_surplus |= is_trace & is_surplus[first]
    is_trace &= ~is_surplus
    kept = np.where(is_trace, first, cluster)
    is_near = features.question[ordered] != features.question[ordered[kept]]
    reasons = np.where(is_trace, TRACE, np.where(is_near, NEAR, QUESTION)).astype(np.uint8)
    likeness = np.where(is_near, np.minimum(jaccard, jaccard[kept]), np.float32(1))
    places = np.flatnonzero(is_trace | is_surplus)
    places = places[np.argsort(ordered[places])]
    return Duplicates(
        removed=ordered[places],
        kept=ordered[kept[places]],
        reasons=reasons[places],
        jaccard=likeness[places],
    )


def _survivor_order(features: Features, rows: Rows) -> npt.NDArray[np.int64]:
    """Places of the rows, the best first. The row number only parts rows equal in everything."""
    order: npt.NDArray[np.int64] = np.lexsort(
        (
            rows,
            features.question[rows],
            features.trace[rows],
            features.row_id[rows, 1],
            features.row_id[rows, 0],
            features.num_tokens[rows],
            ~features.is_verified[rows],
            features.source[rows],
        )
    )
    return order


def _cluster(
    features: Features, ordered: Rows, find_near: NearSearch | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """For each place, the place of the best row of its question, and how like the questions are."""
    _, first, inverse = np.unique(
        features.question[ordered], return_index=True, return_inverse=True
    )
    cluster = first[inverse].astype(np.int64)
    jaccard = np.ones(len(ordered), dtype=np.float32)
    if find_near is None or not len(ordered):
        return cluster, jaccard
    best = np.sort(first)
    pairs = find_near(ordered[best])
    place_of = np.zeros(len(features), dtype=np.int64)
    place_of[ordered[best]] = best
    target = np.arange(len(ordered), dtype=np.int64)
    target[place_of[pairs.removed]] = place_of[pairs.kept]
    likeness = np.ones(len(ordered), dtype=np.float32)
    likeness[place_of[pairs.removed]] = pairs.jaccard
    return target[cluster], likeness[cluster]


def _repeated_traces(
    features: Features, ordered: Rows, cluster: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], Mask, npt.NDArray[np.int64]]:
    """Places by question, best first; which repeat a trace; and, per place, that trace's first."""
    places = np.arange(len(ordered), dtype=np.int64)
    traces = features.trace[ordered]
    by_trace = np.lexsort((places, traces, cluster))
    starts = np.ones(len(ordered), dtype=bool)
    if len(ordered) > 1:
        a, b = by_trace[:-1], by_trace[1:]
        starts[1:] = (cluster[a] != cluster[b]) | (traces[a] != traces[b])
    first = np.empty(len(ordered), dtype=np.int64)
    first[by_trace] = by_trace[np.maximum.accumulate(np.where(starts, places, 0))]
    order = np.lexsort((places, cluster))
    return order, (first != places)[order], first


def _count_within(groups: npt.NDArray[np.int64], counts: Mask) -> npt.NDArray[np.int64]:
    """How many counted entries precede each entry within its run of equal groups."""
    before: npt.NDArray[np.int64] = np.cumsum(counts) - counts
    starts = np.ones(len(groups), dtype=bool)
    starts[1:] = groups[1:] != groups[:-1]
    base = np.maximum.accumulate(np.where(starts, before, 0))
    result: npt.NDArray[np.int64] = before - base
    return result
