"""Draw concept combinations: PromptCoT 1.0, section 3, with the original script's defects fixed.

The first concept is drawn by its frequency in the bank. Each next one is drawn from
``softmax(score / temperature)`` over the unused concepts, where a concept's score is the sum, over
the concepts chosen so far, of the number of shared seeds plus the cosine similarity. The original
lost which similarity belongs to which concept, overflowed, and had no seed.

Draw number ``t`` of a domain depends on the recipe's seed, the domain and ``t`` alone. The domain's
combinations are its draws in order without those whose set of concepts came before, so a run's
first N are a smaller run's N. How one draw is made without a sum over the whole bank is in
:mod:`promptcot.envelope`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.records import Domain
from pipeline.settings.concepts import CombinationSettings
from promptcot.bank import Bank
from promptcot.envelope import NextConcept, Pressure
from promptcot.links import Links, count_links
from promptcot.near_concepts import NearConcepts
from promptcot.portable import (
    UNIT,
    Exponential,
    Floats,
    Int32s,
    Int64s,
    Keys,
    below,
    draw_keys,
    hash_rows,
    stream_key,
    uniform,
)

MAX_KNOWN = 5000
"""Draws in a row that give known sets before the bank counts as exhausted."""
BLOCK = 2048
"""Most draws made at once; nothing that `original` draws depends on it."""
_SMALLEST_BLOCK = 512
FIRST, _LEVEL = 0, 1
"""Counters of a draw's random numbers; each further concept has its own range above them."""


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Some draws of one domain, in order."""

    concepts: Int32s
    """A row per draw: numbers of its concepts in the order drawn."""
    level_chances: Floats
    """A uniform number per draw, for its level."""

    def take(self, which: npt.NDArray[np.intp] | slice) -> Draws:
        """Some of them."""
        return Draws(self.concepts[which], self.level_chances[which])


class Sampler(Protocol):
    """Makes a domain's draws, one block after the other."""

    @property
    def bank(self) -> Bank:
        """What is drawn from."""
        ...

    def draw_block(self, start: int, wanted: int) -> Draws:
        """A block of draws that starts with number ``start``, best about ``wanted`` of them."""
        ...

    def accept(self, drawn: Draws) -> None:
        """Take note of the draws that became combinations, before the next block."""
        ...


class Drawing:
    """What every sampler draws with: a bank's stream of random numbers and the further concepts.

    Raises:
        ConfigError: The bank has fewer concepts than one combination.
    """

    def __init__(
        self,
        bank: Bank,
        settings: CombinationSettings,
        links: Links,
        *,
        near: NearConcepts,
        stream: int,
    ) -> None:
        _require_concepts(bank, settings)
        self.bank = bank
        self.links = links
        self._size = settings.size
        self._stream = stream
        self._exponential = Exponential(settings.temperature)
        self._next = NextConcept(links, near, self._exponential)

    def keys(self, numbers: Int64s) -> Keys:
        """The keys of the draws with these numbers."""
        return draw_keys(self._stream, numbers)

    def pressure(self, scores: Int64s | None) -> Pressure:
        """Scores of the bank's concepts as what :meth:`complete` takes."""
        return Pressure(len(self.bank.concepts), scores, self._exponential)

    def complete(self, first: Int32s, keys: Keys, pressure: Pressure) -> Draws:
        """Whole draws from their first concepts."""
        concepts = first[:, None]
        while concepts.shape[1] < self._size:
            following = self._next.draw(concepts, keys, pressure)
            concepts = np.concatenate([concepts, following[:, None]], axis=1)
        return Draws(concepts, uniform(keys, _LEVEL))


class CombinationSampler:
    """Sampler ``original``."""

    def __init__(
        self,
        bank: Bank,
        settings: CombinationSettings,
        *,
        near: NearConcepts,
        root_seed: int,
    ) -> None:
        stream = stream_key(root_seed, "combinations", bank.domain)
        self._drawing = Drawing(bank, settings, count_links(bank), near=near, stream=stream)
        self._temperature = settings.temperature
        self._near = near
        self._first = np.cumsum(bank.frequency)
        self._pressure = self._drawing.pressure(None)

    @property
    def bank(self) -> Bank:
        """What is drawn from."""
        return self._drawing.bank

    def draw_block(self, start: int, wanted: int) -> Draws:
        """The draws from number ``start`` on."""
        size = min(max(wanted, _SMALLEST_BLOCK), BLOCK)
        return self.draw(np.arange(start, start + size, dtype=np.int64))

    def accept(self, drawn: Draws) -> None:
        """Nothing: draws do not depend on each other."""

    def draw(self, numbers: Int64s) -> Draws:
        """The draws with these numbers."""
        keys = self._drawing.keys(numbers)
        totals = np.full(len(keys), self._first[-1])
        picked = below(uniform(keys, FIRST), totals)
        first = np.searchsorted(self._first, picked, side="right").astype(np.int32)
        return self._drawing.complete(first, keys, self._pressure)

    def first_probabilities(self) -> Floats:
        """Chance of each concept to be drawn first: its share of all mentions."""
        shares: Floats = self.bank.frequency / self.bank.frequency.sum()
        return shares

    def next_probabilities(self, chosen: Sequence[int]) -> Floats:
        """Chance of each concept to be drawn next, computed the plain way; for tests and docs."""
        vectors = self._near.vectors.astype(np.float64)
        scores = vectors @ vectors[list(chosen)].sum(axis=0) / UNIT
        return plain_probabilities(scores, self._drawing.links, chosen, self._temperature)


def plain_probabilities(
    scores: Floats, links: Links, chosen: Sequence[int], temperature: float
) -> Floats:
    """``softmax((scores + links to the chosen) / temperature)`` over the concepts not chosen."""
    scores = scores.copy()
    for concept in chosen:
        columns, strengths = links.row(concept)
        scores[columns] += strengths.astype(np.float64) * links.unit / UNIT
    scores[list(chosen)] = -np.inf
    weights = np.exp((scores - scores.max()) / temperature)
    chances: Floats = weights / weights.sum()
    return chances


def _require_concepts(bank: Bank, settings: CombinationSettings) -> None:
    if len(bank.concepts) < settings.size:
        raise ConfigError(
            f"the {bank.domain} bank has {len(bank.concepts)} concepts, fewer than "
            f"synthesis.combinations.size = {settings.size}",
            hint="add seeds or lower the size",
        )


class KnownSets:
    """Sets of concepts that came before, as 64-bit hashes in one sorted array: 8 bytes each.

    Two of a million different sets share a hash with a chance of 3e-8; the later one is skipped.
    """

    def __init__(self) -> None:
        self._hashes: Keys = np.empty(0, dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._hashes)

    def add_new(self, rows: Int32s) -> npt.NDArray[np.intp]:
        """Add the rows' sets; the positions of those that were not known, in order."""
        hashes = hash_rows(np.sort(rows, axis=1))
        unique, position = np.unique(hashes, return_index=True)
        at = np.searchsorted(self._hashes, unique)
        is_known = np.zeros(len(unique), dtype=np.bool_)
        inside = at < len(self._hashes)
        is_known[inside] = self._hashes[at[inside]] == unique[inside]
        self._hashes = np.insert(self._hashes, at[~is_known], unique[~is_known])
        return np.sort(position[~is_known])


class DistinctDraws:
    """A domain's combinations: its draws in order, each set of concepts once."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._known = KnownSets()
        self._num_drawn = 0
        self._num_known = 0
        self._waiting: list[Draws] = []

    @property
    def num_drawn(self) -> int:
        """Draws made so far, known sets included."""
        return self._num_drawn

    def take(self, count: int) -> Draws:
        """The next combinations.

        Raises:
            ConfigError: The bank cannot give that many distinct ones.
        """
        missing = count - sum(len(draws.concepts) for draws in self._waiting)
        while missing > 0:
            self._waiting.append(self._draw(missing))
            missing -= len(self._waiting[-1].concepts)
        joined = Draws(
            np.concatenate([draws.concepts for draws in self._waiting]),
            np.concatenate([draws.level_chances for draws in self._waiting]),
        )
        self._waiting = [joined.take(slice(count, None))]
        return joined.take(slice(count))

    def _draw(self, wanted: int) -> Draws:
        drawn = self._sampler.draw_block(self._num_drawn, wanted)
        new = self._known.add_new(drawn.concepts)
        self._num_drawn += len(drawn.concepts)
        self._num_known += len(drawn.concepts)
        if len(new):
            self._num_known = len(drawn.concepts) - 1 - int(new[-1])
        if self._num_known >= MAX_KNOWN and not len(new):
            domain = self._sampler.bank.domain
            raise ConfigError(
                f"the {domain} bank is exhausted: {len(self._known)} distinct combinations found, "
                f"then {self._num_known} draws in a row gave known ones (num_combinations wants "
                "more)",
                hint="lower synthesis.combinations.num_combinations, raise its temperature, use "
                "sampler = 'balanced', or give the bank more seeds",
            )
        kept = drawn.take(new)
        self._sampler.accept(kept)
        return kept


def domain_of(index: int, math_share: float) -> Domain:
    """Domain of the combination at a position: interleaved, so that any prefix keeps the share."""
    share = Fraction(str(math_share))
    is_math = (index + 1) * share.numerator // share.denominator > (
        index * share.numerator // share.denominator
    )
    return "math" if is_math else "code"
