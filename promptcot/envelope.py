"""The draw of one more concept for thousands of combinations at once: exact, and never over all n.

Concept ``j`` has the weight ``exp(score_j / T)`` with ``score_j = links_j + similarity_j +
pressure_j``, where links and similarities are sums over the concepts chosen so far. Summing that
over 100,000 concepts for each of four million draws is what makes the plain algorithm slow. Here
``j`` is proposed from an upper bound of its weight and accepted with probability ``weight / bound``
(rejection sampling), which gives exactly the wanted distribution, and the bound needs few numbers:

* The similarity of ``j`` to a chosen ``c`` is known if ``j`` is among the near concepts of ``c``,
  and otherwise at most ``bound_c`` (:mod:`promptcot.near_concepts`). So, up to the common factor
  ``exp(Σ bound_c / T)``, ``j`` weighs at most ``exp((links_j + excess_j + pressure_j) / T)``, where
  ``excess_j`` sums ``similarity - bound_c`` over those ``c`` that have ``j`` in their list.
* That exponent is only the pressure for all concepts without a link or nearness to a chosen one.
  Their mass is one number; one of them is drawn by the pressure alone.
* The others are listed, merged and weighed. If some listed concept scores so high that what is
  ``REACH`` lower cannot matter (below 2**-40 of its weight), entries of long rows that cannot come
  that close, even with all other rows' help, are not read.

* Where a chosen concept has very many similar ones, its bound is high and proposals of unlisted
  concepts are nearly always refused. After ``n / 64`` refusals such a draw is made the plain way,
  with all similarities; what was refused before does not change its distribution.

Weights are integers (:mod:`promptcot.portable`), so no score overflows and no order of summation,
thread or machine changes a draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from promptcot.links import Links, ranges
from promptcot.near_concepts import MAX_ROWS, NearConcepts
from promptcot.portable import (
    WEIGHT_BITS,
    Exponential,
    Int32s,
    Int64s,
    Keys,
    below,
    uniform,
)

_MAX_ENTRIES = 1 << 21
"""Listed entries held at once: keeps sums of weights within 2**61, and memory at about 200 MB."""
_MAX_TRIALS = 8
"""Most proposals made together; the first accepted one counts, however they are grouped."""

_MIN_REFUSALS = 64
_REFUSALS_PER_CONCEPT = 1 / 64
"""Refusals after which the plain way is cheaper (measured)."""

Bools = npt.NDArray[np.bool_]


class Pressure:
    """A score of each concept's own, shared by all draws of a block; zero for ``original``."""

    def __init__(self, num: int, scores: Int64s | None, exponential: Exponential) -> None:
        self.scores = scores
        """At most 0; so many concepts have 0 that one of them is always free."""
        self._num = num
        self._sums = None
        if scores is not None:
            self._sums = np.cumsum(exponential.weights(-scores))
        self.total = num << WEIGHT_BITS if self._sums is None else int(self._sums[-1])

    def draw(self, chances: npt.NDArray[np.float64]) -> Int64s:
        """Concepts by pressure alone."""
        totals = np.full(len(chances), self._num if self._sums is None else self.total)
        picked = below(chances, totals)
        if self._sums is None:
            return picked
        return np.searchsorted(self._sums, picked, side="right").astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Listed:
    """Bounds of the listed concepts of all draws, merged."""

    keys: Int64s
    """Draw times number of concepts plus concept, ascending."""
    excess: Int64s
    sums: Int64s
    """Running sum of the weights over all entries of all draws."""
    before: Int64s
    """For each draw: ``sums`` before its first entry."""
    listed: Int64s
    """For each draw: weight of its entries."""
    rest: Int64s
    """For each draw: weight of the proposal for concepts that are not listed."""


class NextConcept:
    """Draws one more concept for each row of chosen ones."""

    def __init__(self, links: Links, near: NearConcepts, exponential: Exponential) -> None:
        self._links = links
        self._near = near
        self._exponential = exponential
        self._num = len(near.bound)

    def draw(self, chosen: Int32s, keys: Keys, pressure: Pressure) -> Int32s:
        """One concept per row, none of that row's own."""
        self._near.require(chosen.ravel())
        floors = self._find_floors(chosen, pressure)
        lengths = self._count_entries(chosen, floors)
        # Draws are independent, so cutting them into groups changes nothing but memory.
        num_near = self._near.concepts.shape[1] * chosen.shape[1]
        group = np.cumsum(lengths.sum(axis=1) + num_near) // _MAX_ENTRIES
        result = np.empty(len(chosen), dtype=np.int32)
        for rows in np.split(np.arange(len(chosen)), np.flatnonzero(np.diff(group)) + 1):
            listed = self._list(chosen[rows], floors[rows], lengths[rows], pressure)
            result[rows] = self._propose(chosen[rows], keys[rows], listed, pressure)
        return result

    def _find_floors(self, chosen: Int32s, pressure: Pressure) -> Int64s:
        """For each draw: the link score that a concept must have with some chosen one to matter.

        Zero or less where concepts without any link can matter.
        """
        best = self._best_link(chosen, pressure)
        others = self._near.excess[chosen].max(axis=2).astype(np.int64).sum(axis=1)
        floors: Int64s = (best - self._exponential.reach - others) // chosen.shape[1]
        return floors

    def _best_link(self, chosen: Int32s, pressure: Pressure) -> Int64s:
        """A score that some free concept has at least, by one link alone."""
        links, size = self._links, chosen.shape[1]
        starts, ends = links.indptr[chosen], links.indptr[chosen + 1]
        best = np.zeros(len(chosen), dtype=np.int64)
        if not len(links.columns):
            return best
        for offset in range(size):
            at = np.minimum(starts + offset, len(links.columns) - 1)
            columns = links.strongest_columns[at]
            scores = links.strongest[at].astype(np.int64) * links.unit
            if pressure.scores is not None:
                scores = scores + pressure.scores[columns]
            is_free = (columns[:, :, None] != chosen[:, None, :]).all(axis=2)
            usable = (starts + offset < ends) & is_free
            best = np.maximum(best, np.where(usable, scores, 0).max(axis=1))
        return best

    def _count_entries(self, chosen: Int32s, floors: Int64s) -> Int64s:
        lengths = self._links.indptr[chosen + 1] - self._links.indptr[chosen]
        cut = np.flatnonzero(floors > self._links.unit)
        if len(cut):
            rows = chosen[cut]
            above = self._links.count_above(rows.ravel(), np.repeat(floors[cut], rows.shape[1]))
            lengths[cut] = above.reshape(rows.shape)
        return lengths

    def _list(self, chosen: Int32s, floors: Int64s, lengths: Int64s, pressure: Pressure) -> _Listed:
        """List, merge and weigh the concepts whose bound is above the common one."""
        is_cut = floors > self._links.unit
        keys, links, excess = self._merge(chosen, lengths, is_cut)
        draws, concepts = np.divmod(keys, self._num)
        self._complete_links(chosen, is_cut, draws, concepts, links)
        scores = links + excess
        if pressure.scores is not None:
            scores += pressure.scores[concepts]
        is_free = (chosen[draws] != concepts[:, None]).all(axis=1)
        starts = np.searchsorted(draws, np.arange(len(chosen)))
        highest = np.zeros(len(chosen), dtype=np.int64)
        np.maximum.at(highest, draws[is_free], scores[is_free])
        weights = self._exponential.weights(highest[draws] - np.where(is_free, scores, 0))
        weights[~is_free] = 0
        sums = np.concatenate([[0], np.cumsum(weights)])
        ends = np.append(starts[1:], len(keys))
        rest = (self._exponential(highest) * float(pressure.total)).astype(np.int64)
        rest[is_cut] = 0
        return _Listed(
            keys=keys,
            excess=excess,
            sums=sums[1:],
            before=sums[starts],
            listed=sums[ends] - sums[starts],
            rest=rest,
        )

    def _merge(
        self, chosen: Int32s, lengths: Int64s, is_cut: Bools
    ) -> tuple[Int64s, Int64s, Int64s]:
        """Sum what several chosen concepts say about one: keys, link scores, excess similarity."""
        draws = np.arange(len(chosen), dtype=np.int64)
        entries = ranges(self._links.indptr[chosen].ravel(), lengths.ravel())
        link_draws = np.repeat(draws, lengths.sum(axis=1))
        link_keys = link_draws * self._num + self._links.strongest_columns[entries]
        near = self._near.concepts[chosen]
        is_near = near >= 0
        near_draws = np.broadcast_to(draws[:, None, None], near.shape)[is_near]
        near_keys = near_draws * self._num + near[is_near]
        keys = np.concatenate([link_keys, near_keys])
        # The position rides along in the low bits, so that one plain sort orders both.
        bits = max(1, len(keys)).bit_length()
        order = np.sort((keys << bits) | np.arange(len(keys)))
        position, keys = order & ((1 << bits) - 1), order >> bits
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        if not len(starts):
            return keys, keys.copy(), keys.copy()
        values = self._links.strongest[entries].astype(np.int64) * self._links.unit
        nothing = np.zeros(len(near_keys), dtype=np.int64)
        links = np.add.reduceat(np.concatenate([values, nothing])[position], starts)
        excess = np.concatenate([np.zeros_like(values), self._near.excess[chosen][is_near]])
        excess = np.add.reduceat(excess[position], starts)
        keys = keys[starts]
        # Where the rest cannot matter, neither can what is merely near.
        keep = (links > 0) | ~is_cut[keys // self._num]
        return keys[keep], links[keep], excess[keep]

    def _complete_links(
        self, chosen: Int32s, is_cut: Bools, draws: Int64s, concepts: Int64s, links: Int64s
    ) -> None:
        """Where rows were not read to their end, look all links of the listed concepts up."""
        at = np.flatnonzero(is_cut[draws])
        if not len(at):
            return
        rows = chosen[draws[at]]
        columns = np.repeat(concepts[at], rows.shape[1])
        links[at] = self._links.scores_of(rows.ravel(), columns).reshape(rows.shape).sum(axis=1)

    def _propose(self, chosen: Int32s, keys: Keys, listed: _Listed, pressure: Pressure) -> Int32s:
        """Propose from the bound and accept by the true similarity until all rows have one."""
        result = np.full(len(chosen), -1, dtype=np.int32)
        sums = self._near.sum_vectors(chosen)
        bounds = self._near.bound[chosen].astype(np.int64).sum(axis=1)
        active, trial, num_trials = np.arange(len(chosen)), 0, 1
        limit = max(_MIN_REFUSALS, int(self._num * _REFUSALS_PER_CONCEPT))
        while len(active) and trial < limit:
            rows = np.repeat(active, num_trials)
            counters = (np.int64(chosen.shape[1]) << 40) + 3 * (
                trial + np.tile(np.arange(num_trials), len(active))
            )
            concepts, excess = self._propose_once(rows, keys, counters, listed, pressure)
            is_free = (chosen[rows] != concepts[:, None]).all(axis=1) & (excess >= 0)
            gap = np.zeros(len(rows), dtype=np.int64)
            some = np.flatnonzero(is_free)
            similar = self._near.similarities(sums[rows[some]], concepts[some].astype(np.int32))
            gap[some] = bounds[rows[some]] + excess[some] - similar
            chance = uniform(keys[rows], counters + 2)
            accepted = (is_free & (chance < self._exponential(gap))).reshape(-1, num_trials)
            done = accepted.any(axis=1)
            picked = concepts.reshape(-1, num_trials)[done, accepted.argmax(axis=1)[done]]
            result[active[done]] = picked
            active = active[~done]
            trial += num_trials
            num_trials = min(2 * num_trials, _MAX_TRIALS)
        if len(active):
            result[active] = self._draw_plainly(chosen[active], keys[active], pressure)
        return result

    def _draw_plainly(self, chosen: Int32s, keys: Keys, pressure: Pressure) -> Int32s:
        """Draws with the scores of all concepts."""
        result = np.empty(len(chosen), dtype=np.int32)
        chances = uniform(keys, (chosen.shape[1] << 40) + (1 << 39))
        size = max(1, MAX_ROWS // chosen.shape[1])
        for start in range(0, len(chosen), size):
            concepts = np.unique(chosen[start : start + size])
            products = self._near.multiply(concepts)
            for row in range(start, min(start + size, len(chosen))):
                at = np.searchsorted(concepts, chosen[row])
                scores = products[at].astype(np.int64).sum(axis=0)
                sums = self._weigh_all(chosen[row], scores, pressure)
                picked = below(chances[row : row + 1], sums[-1:])
                result[row] = np.searchsorted(sums, picked[0], side="right")
        return result

    def _weigh_all(self, chosen: Int32s, scores: Int64s, pressure: Pressure) -> Int64s:
        """Running sum of all concepts' weights, from their similarities."""
        for concept in chosen:
            columns, strengths = self._links.row(int(concept))
            scores[columns] += strengths.astype(np.int64) * self._links.unit
        if pressure.scores is not None:
            scores += pressure.scores
        scores[chosen] = np.iinfo(np.int64).min // 2
        sums: Int64s = np.cumsum(self._exponential.weights(scores.max() - scores))
        return sums

    def _propose_once(
        self, rows: Int64s, keys: Keys, counters: Int64s, listed: _Listed, pressure: Pressure
    ) -> tuple[Int64s, Int64s]:
        """Concepts with their excess similarity; -1 where one is proposed that is listed."""
        picked = below(uniform(keys[rows], counters), listed.listed[rows] + listed.rest[rows])
        is_listed = picked < listed.listed[rows]
        concepts = pressure.draw(uniform(keys[rows], counters + 1))
        excess = np.zeros(len(rows), dtype=np.int64)
        if len(listed.keys):
            # A concept of the rest must not be one that the list already stands for.
            wanted = rows * self._num + concepts
            at = np.minimum(np.searchsorted(listed.keys, wanted), len(listed.keys) - 1)
            excess[listed.keys[at] == wanted] = -1
        own = np.flatnonzero(is_listed)
        at = np.searchsorted(listed.sums, listed.before[rows[own]] + picked[own], side="right")
        concepts[own] = listed.keys[at] % self._num
        excess[own] = listed.excess[at]
        return concepts, excess
