"""Sampler ``balanced``: every concept is used, frequent ones do not crowd out the rest.

Raw counts, as ``original`` adds them, let the most frequent concepts win nearly every draw: one
shared seed multiplies the odds by e**5. Three things differ here:

* **Association** is positive pointwise mutual information (counts plus one half, so that a single
  shared seed of two rare concepts does not beat everything) or ``log(1 + shared seeds)``, scaled so
  that an average co-occurring pair scores 1. The temperature then means what it means in
  ``original``: such a pair multiplies the odds by ``exp(1 / T)``.
* **Pressure**: a concept that was used half as often as its target share scores ``coverage`` more,
  twice as often ``coverage`` less, and so on by the logarithm, between -8 and 8. The target share
  is proportional to the square root of the concept's frequency.
* **First concept**: while there are unused concepts it is one of them, in a seeded order; then it
  is drawn in proportion to what concepts lack of their targets. So N combinations use every
  concept of the bank as soon as N is at least the number of concepts, and N of them at any time
  before that. With ``coverage = 0`` both stay away: the first is drawn by target share.

Usage counts advance from block to block of draws (their size depends on the bank alone), so a
smaller run's combinations are the first ones of a larger run here, too.
"""

from __future__ import annotations

import numpy as np

from pipeline.settings.concepts import CombinationSettings
from promptcot.bank import Bank
from promptcot.links import Links
from promptcot.near_concepts import NearConcepts
from promptcot.portable import (
    UNIT,
    Floats,
    Int32s,
    Int64s,
    Keys,
    below,
    stream_key,
    uniform,
)
from promptcot.sampling import BLOCK, FIRST, Drawing, Draws

_MOST_PRESSURE = 8.0
_ORDER = 2
"""Counter of the random numbers that order unused concepts."""
_ROUNDED = 1_000_000
"""Logarithms are rounded to this part before they count: the last bits of a library's ``log`` may
differ between machines."""


class BalancedSampler:
    """Draws with scaled association and pressure towards each concept's target share."""

    def __init__(
        self,
        bank: Bank,
        settings: CombinationSettings,
        *,
        near: NearConcepts,
        root_seed: int,
    ) -> None:
        stream = stream_key(root_seed, "combinations", "balanced", bank.domain)
        links = associate(bank, settings.association)
        self._drawing = Drawing(bank, settings, links, near=near, stream=stream)
        self._settings = settings
        roots = np.sqrt(bank.frequency.astype(np.float64))
        self._target: Floats = roots / roots.sum()
        self._usage = np.zeros(len(bank.concepts), dtype=np.int64)
        order = uniform(self._drawing.keys(np.arange(len(roots))), _ORDER)
        self._order = np.argsort(order, kind="stable")
        self._block = min(BLOCK, max(32, len(roots) // 8))

    @property
    def bank(self) -> Bank:
        """What is drawn from."""
        return self._drawing.bank

    @property
    def usage(self) -> Int64s:
        """How often each concept was used so far."""
        return self._usage.copy()

    def draw_block(self, start: int, wanted: int) -> Draws:
        """Draws from number ``start`` on, by the usage so far; always the bank's block size."""
        keys = self._drawing.keys(np.arange(start, start + self._block, dtype=np.int64))
        pressure = self._drawing.pressure(self._scores())
        return self._drawing.complete(self._draw_first(keys), keys, pressure)

    def accept(self, drawn: Draws) -> None:
        """Count the use of these draws' concepts."""
        self._usage += np.bincount(drawn.concepts.ravel(), minlength=len(self._usage))

    def _scores(self) -> Int64s | None:
        """Each concept's pressure, shifted so that the highest is 0."""
        if not self._settings.coverage:
            return None
        due = self._target * self._usage.sum()
        ratio = np.clip(np.log2((due + 1) / (self._usage + 1)), -_MOST_PRESSURE, _MOST_PRESSURE)
        scores = np.rint(self._settings.coverage * ratio * _ROUNDED).astype(np.int64)
        # Enough concepts hold the highest score that one of them is always free to be drawn.
        highest = np.partition(scores, -self._settings.size)[-self._settings.size]
        shifted: Int64s = np.minimum(scores - highest, 0) * (UNIT // _ROUNDED)
        return shifted

    def _draw_first(self, keys: Keys) -> Int32s:
        weights = self._target
        unused = np.empty(0, dtype=np.intp)
        if self._settings.coverage:
            lacking = np.maximum(self._target * self._usage.sum() - self._usage, 0)
            weights = lacking if lacking.any() else self._target
            unused = self._order[self._usage[self._order] == 0][: len(keys)]
        sums = np.cumsum(np.rint(weights / weights.sum() * 2.0**40).astype(np.int64))
        picked = below(uniform(keys, FIRST), np.full(len(keys), sums[-1]))
        first = np.searchsorted(sums, picked, side="right").astype(np.int32)
        first[: len(unused)] = unused
        return first


def associate(bank: Bank, kind: str) -> Links:
    """Association of the bank's co-occurring concepts, the mean of all pairs being 1."""
    counts = np.asarray(bank.counts, dtype=np.float64)
    values = np.log1p(counts)
    if kind == "pmi":
        rows = np.repeat(np.arange(len(bank.concepts)), np.diff(bank.indptr))
        frequency = bank.frequency.astype(np.float64)
        expected = frequency[rows] * frequency[bank.indices] / len(bank.seeds)
        values = np.maximum(np.log((counts + 0.5) / (expected + 0.5)), 0)
    mean = values.mean() if len(values) and values.any() else 1.0
    strengths = np.rint(values / mean * _ROUNDED).astype(np.int32)
    return Links.make(bank, strengths, UNIT // _ROUNDED)
