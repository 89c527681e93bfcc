"""The bundled bank is rich enough, and draws follow the original's distribution."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import promptcot
from pipeline.settings.synthesis import CombinationSettings
from promptcot.bank import build_bank, load_bank
from promptcot.sampling import CombinationSampler

SEEDS = load_bank(Path(promptcot.__path__[0]) / "data" / "seeds.jsonl")


def test_bundled_bank_covers_both_domains() -> None:
    concepts = {concept for seed in SEEDS for concept in seed.concepts}
    assert len(SEEDS) >= 60
    assert len(concepts) >= 150
    assert {seed.domain for seed in SEEDS} == {"math", "code"}


def test_first_concepts_follow_their_frequency() -> None:
    bank = build_bank(SEEDS, "math")
    sampler = CombinationSampler(bank, CombinationSettings())
    expected = sampler.first_probabilities()
    rng = random.Random(3)
    draws = 2000
    counts = Counter(sampler.draw(rng)[0] for _ in range(draws))
    most, share = max(zip(bank.concepts, expected, strict=True), key=lambda pair: pair[1])
    sigma = math.sqrt(draws * share * (1 - share))
    assert abs(counts[most] - draws * share) < 5 * sigma


def test_draws_are_seeded_and_hold_no_concept_twice() -> None:
    bank = build_bank(SEEDS, "code")
    sampler = CombinationSampler(bank, CombinationSettings())
    one = [sampler.draw(random.Random(7)) for _ in range(3)]
    assert one[0] == one[1] == one[2]
    for seed in range(50):
        drawn = sampler.draw(random.Random(seed))
        assert len(set(drawn)) == len(drawn) == 5


def test_chosen_concepts_have_no_chance_and_chances_add_up() -> None:
    bank = build_bank(SEEDS, "math")
    chances = CombinationSampler(bank, CombinationSettings()).next_probabilities([0, 1])
    assert chances[0] == chances[1] == 0
    assert math.isclose(float(chances.sum()), 1.0)
