"""Draw concept combinations: PromptCoT 1.0, section 3, with the original script's defects fixed.

The first concept is drawn by its frequency in the bank. Each next one is drawn from
``softmax(score / temperature)`` over the unused concepts, where a concept's score is the sum, over
the concepts chosen so far, of the number of shared seeds plus the cosine similarity. The original
lost which similarity belongs to which concept, overflowed, and had no seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.hashing import content_hash, derive_random
from pipeline.records import ConceptCombination, Domain
from pipeline.settings.synthesis import CombinationSettings
from promptcot.bank import Bank
from promptcot.embedding import Vectors, embed_concepts

MAX_REDRAWS = 500
"""Draws for one combination before the bank counts as exhausted."""

Probabilities = npt.NDArray[np.float64]


class CombinationSampler:
    """Draws combinations from one domain's bank."""

    def __init__(self, bank: Bank, settings: CombinationSettings) -> None:
        if len(bank.concepts) < settings.size:
            raise ConfigError(
                f"the {bank.domain} bank has {len(bank.concepts)} concepts, fewer than "
                f"synthesis.combinations.size = {settings.size}",
                hint="add seeds or lower the size",
            )
        self._bank = bank
        self._size = settings.size
        self._temperature = settings.temperature
        self._vectors: Vectors = embed_concepts(bank.concepts)

    def first_probabilities(self) -> Probabilities:
        """Chance of each concept to be drawn first: its share of all mentions."""
        counts = np.asarray(self._bank.frequency, dtype=np.float64)
        shares: Probabilities = counts / counts.sum()
        return shares

    def next_probabilities(self, chosen: Sequence[int]) -> Probabilities:
        """Chance of each concept to be drawn next; zero for those already chosen."""
        scores = self._vectors @ self._vectors[list(chosen)].sum(axis=0)
        for concept in chosen:
            others, counts = self._bank.neighbours(concept)
            scores[others] += counts
        scores[list(chosen)] = -np.inf
        # Subtracting the maximum leaves the softmax unchanged and cannot overflow.
        weights = np.exp((scores - scores.max()) / self._temperature)
        chances: Probabilities = weights / weights.sum()
        return chances

    def draw(self, rng: random.Random) -> list[str]:
        """One combination of distinct concepts, in the order drawn."""
        chosen = [_pick(self.first_probabilities(), rng)]
        while len(chosen) < self._size:
            chosen.append(_pick(self.next_probabilities(chosen), rng))
        return [self._bank.concepts[index] for index in chosen]


def _pick(probabilities: Probabilities, rng: random.Random) -> int:
    """Index drawn by inverse transform; one uniform number a draw, whatever NumPy's version."""
    cumulative = np.cumsum(probabilities)
    index = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    return min(index, len(probabilities) - 1)


def draw_combinations(
    banks: Sequence[Bank], settings: CombinationSettings, *, root_seed: int
) -> list[ConceptCombination]:
    """All combinations of a run: distinct as sets, with the exact share of each domain.

    Args:
        banks: One bank per domain that the share asks for.
        settings: Number, size, temperature, levels and share.
        root_seed: The recipe's seed; every draw derives its own from it.

    Raises:
        ConfigError: The bank cannot give that many distinct combinations.
    """
    samplers = {bank.domain: CombinationSampler(bank, settings) for bank in banks}
    seen: set[tuple[Domain, frozenset[str]]] = set()
    drawn = []
    for index in range(settings.num_combinations):
        domain = domain_of(index, settings.math_share)
        concepts, rng = _draw_new(samplers[domain], seen, domain, (root_seed, index))
        levels = settings.math_levels if domain == "math" else settings.code_levels
        level = levels[math.floor(rng.random() * len(levels))]
        content = {"concepts": concepts, "domain": domain, "level": level}
        drawn.append(
            ConceptCombination(
                id=content_hash(content), concepts=concepts, domain=domain, level=level
            )
        )
    return drawn


def domain_of(index: int, math_share: float) -> Domain:
    """Domain of the draw at a position: evenly interleaved, so that any prefix keeps the share."""
    share = Fraction(str(math_share))
    return "math" if math.floor((index + 1) * share) > math.floor(index * share) else "code"


def _draw_new(
    sampler: CombinationSampler,
    seen: set[tuple[Domain, frozenset[str]]],
    domain: Domain,
    origin: tuple[int, int],
) -> tuple[list[str], random.Random]:
    """Draw until the set of concepts is new; remember it."""
    root_seed, index = origin
    for attempt in range(MAX_REDRAWS):
        rng = derive_random(root_seed, "combinations", str(index), str(attempt))
        concepts = sampler.draw(rng)
        key = (domain, frozenset(concepts))
        if key not in seen:
            seen.add(key)
            return concepts, rng
    found = sum(1 for known, _ in seen if known == domain)
    raise ConfigError(
        f"the {domain} bank is exhausted: {found} distinct combinations found, then "
        f"{MAX_REDRAWS} draws in a row gave known ones (num_combinations wants more)",
        hint="lower synthesis.combinations.num_combinations, raise its temperature, or use a "
        "larger synthesis.bank",
    )
