"""Stage ``combinations``: concepts, domain and level of each problem to be made.

Input: the concept bank. Output: ``ConceptCombination`` rows, distinct as sets within a domain. They
are drawn some thousand at a time while the stage writes them; a restart draws the finished ones
again (some thousand a second) to know which sets were taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np

from pipeline.hashing import content_hash
from pipeline.manifest import Version
from pipeline.records import ConceptCombination, Domain
from pipeline.settings.base import determining
from pipeline.stages import Batch, BatchResult, BatchStream, run_stage, staged_shards
from promptcot.balanced import BalancedSampler
from promptcot.bank import Bank, BankSource, build_bank, open_bank
from promptcot.cards import render_card
from promptcot.encoders import embed_concepts
from promptcot.near_concepts import NearConcepts
from promptcot.run_context import SynthesisRun
from promptcot.sampling import CombinationSampler, DistinctDraws, Sampler, domain_of
from promptcot.usage import count_usage, describe_usage, entropy_bits

ROWS_PER_BATCH = 4096
"""A combination is small; files of ``synthesis.batch_size`` rows would be many."""
_NUM_COMPARED = 5000
"""Combinations of each sampler for the comparison that ``balanced`` writes down."""


def run_combinations(run: SynthesisRun) -> Version:
    """Draw the combinations of concepts, domain and level.

    Raises:
        SourceError: The bank is missing, malformed, or lacks a domain.
        ConfigError: The bank cannot give that many distinct combinations.
    """
    settings = run.settings.combinations
    source = open_bank(run)
    stage = run.stage(
        "combinations",
        record=ConceptCombination,
        settings={"combinations": determining(settings)},
        inputs=[source.input],
    )
    batches = BatchStream(
        rows=lambda: range(settings.num_combinations),
        num_rows=settings.num_combinations,
        size=ROWS_PER_BATCH,
        key=str,
    )
    drawing = Drawing(run, source)

    def take(batch: Batch) -> BatchResult:
        return BatchResult(num_in=len(batch.rows), rows=drawing.rows(batch.rows))

    def figures(_: Mapping[str, int]) -> Mapping[str, Any]:
        shards = staged_shards(stage)
        usages = {d: (bank, count_usage(shards, bank)) for d, bank in drawing.banks.items()}
        return {**describe_usage(usages), **drawing.compare()}

    # One batch after the other: each draw must know which sets came before it.
    return run_stage(replace(stage, concurrency=1), batches, take, card=render_card, extra=figures)


class Drawing:
    """The combinations of one run in order of position; nothing is loaded before they are asked."""

    def __init__(self, run: SynthesisRun, source: BankSource) -> None:
        self._settings = run.settings.combinations
        self._root_seed = run.root_seed
        self._source = source
        # A pilot shares the folder of its run.
        self._cache = run.books / "embeddings"
        self._position = 0

    @cached_property
    def banks(self) -> dict[Domain, Bank]:
        """The bank of each domain that the share asks for."""
        share = self._settings.math_share
        wanted: list[Domain] = ["math"] if share > 0 else []
        wanted += ["code"] if share < 1 else []
        return {domain: build_bank(self._source.seeds(domain), domain) for domain in wanted}

    @cached_property
    def _near(self) -> dict[Domain, NearConcepts]:
        encoder = self._settings.encoder
        return {
            domain: NearConcepts(embed_concepts(encoder, bank.concepts, cache=self._cache))
            for domain, bank in self.banks.items()
        }

    @cached_property
    def _draws(self) -> dict[Domain, DistinctDraws]:
        kind = self._settings.sampler
        return {domain: DistinctDraws(self._open(domain, kind)) for domain in self.banks}

    def _open(self, domain: Domain, kind: str) -> Sampler:
        make = BalancedSampler if kind == "balanced" else CombinationSampler
        bank, near = self.banks[domain], self._near[domain]
        return make(bank, self._settings, near=near, root_seed=self._root_seed)

    def rows(self, positions: Sequence[int]) -> list[ConceptCombination]:
        """Combinations at consecutive positions, none before one asked earlier."""
        while self._position < positions[0]:
            stop = min(positions[0], self._position + ROWS_PER_BATCH)
            self._advance(range(self._position, stop))
        return self._advance(positions)

    def _advance(self, positions: Sequence[int]) -> list[ConceptCombination]:
        """The next combinations of each domain, put into the order of positions."""
        self._position = positions[-1] + 1
        domains = [domain_of(position, self._settings.math_share) for position in positions]
        rows: dict[Domain, list[ConceptCombination]] = {}
        for domain, same in groupby(sorted(domains)):
            drawn = self._draws[domain].take(len(list(same)))
            names = self.banks[domain].concepts
            rows[domain] = [
                self._make_row(domain, [names[number] for number in numbers], chance)
                for numbers, chance in zip(
                    drawn.concepts.tolist(), drawn.level_chances.tolist(), strict=True
                )
            ][::-1]
        return [rows[domain].pop() for domain in domains]

    def _make_row(
        self, domain: Domain, concepts: list[str], level_chance: float
    ) -> ConceptCombination:
        settings = self._settings
        levels = settings.math_levels if domain == "math" else settings.code_levels
        level = levels[math.floor(level_chance * len(levels))]
        content = {"concepts": concepts, "domain": domain, "level": level}
        return ConceptCombination(
            id=content_hash(content), concepts=concepts, domain=domain, level=level
        )

    def compare(self) -> dict[str, Any]:
        """For ``balanced``: both samplers' use of concepts over equally many draws."""
        if self._settings.sampler != "balanced":
            return {}
        count = min(_NUM_COMPARED, self._settings.num_combinations)
        samplers: tuple[str, ...] = ("original", "balanced")
        return {
            "compared": {
                domain: {
                    "draws": count,
                    **{kind: _use(self._open(domain, kind), count) for kind in samplers},
                }
                for domain in self.banks
            }
        }


def _use(sampler: Sampler, count: int) -> dict[str, float]:
    """Entropy and coverage of a sampler's first draws, repeated sets included."""
    usage = np.zeros(len(sampler.bank.concepts), dtype=np.int64)
    start = 0
    while start < count:
        drawn = sampler.draw_block(start, count - start).take(slice(count - start))
        sampler.accept(drawn)
        usage += np.bincount(drawn.concepts.ravel(), minlength=len(usage))
        start += len(drawn.concepts)
    return {
        "entropy_bits": entropy_bits(usage),
        "coverage": round(float((usage > 0).mean()), 6),
    }
