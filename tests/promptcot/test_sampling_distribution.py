"""The sampler's probabilities are those of the published rule, and runs are distinct and exact."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import promptcot
from pipeline.errors import ConfigError, SourceError
from pipeline.records import Seed
from pipeline.settings.synthesis import CombinationSettings
from promptcot.bank import build_bank, load_bank, nearest_seeds
from promptcot.embedding import embed_concepts
from promptcot.sampling import CombinationSampler, domain_of, draw_combinations


def seed(*concepts: str) -> Seed:
    return Seed(concepts=list(concepts), domain="math", level="AMC12", problem="p?", rationale="r")


SEEDS = Path(promptcot.__path__[0]) / "data" / "seeds.jsonl"
TINY = [seed("sums", "sets"), seed("sums", "sets", "limits"), seed("circles", "limits")]


def test_next_concept_follows_softmax_of_co_occurrence_plus_cosine() -> None:
    bank = build_bank(TINY, "math")
    assert bank.concepts == ("circles", "limits", "sets", "sums")
    sampler = CombinationSampler(bank, CombinationSettings(size=3, temperature=0.7))
    cosine = embed_concepts(bank.concepts) @ embed_concepts(bank.concepts).T
    together = np.array([[0, 1, 0, 0], [1, 0, 1, 1], [0, 1, 0, 2], [0, 1, 2, 0]])
    for chosen in ([3], [3, 1]):
        scores = sum(together[c] + cosine[c] for c in chosen) / 0.7
        expected = np.where(np.isin(range(4), chosen), 0, np.exp(scores))
        np.testing.assert_allclose(
            sampler.next_probabilities(chosen), expected / expected.sum(), atol=1e-12
        )


def test_drawn_pairs_pass_a_chi_square_test() -> None:
    bank = build_bank(TINY, "math")
    sampler = CombinationSampler(bank, CombinationSettings(size=2, temperature=1.0))
    rng, draws = random.Random(11), 6000
    found = Counter(tuple(sampler.draw(rng)) for _ in range(draws))
    first = sampler.first_probabilities()
    np.testing.assert_allclose(first, np.array([1, 2, 2, 2]) / 7)
    statistic = 0.0
    for i, a in enumerate(bank.concepts):
        following = sampler.next_probabilities([i])
        for j, b in enumerate(bank.concepts):
            expected = draws * first[i] * following[j]
            if i == j:
                assert found[a, b] == 0
            else:
                statistic += (found[a, b] - expected) ** 2 / expected
    assert statistic < 31.3, "0.1 % point of chi-square with 11 degrees of freedom"


def test_large_co_occurrence_does_not_overflow() -> None:
    bank = build_bank([seed("a", "b")] * 5000 + [seed("c", "d")], "math")
    sampler = CombinationSampler(bank, CombinationSettings(size=2, temperature=0.2))
    chances = sampler.next_probabilities([0])
    assert np.isfinite(chances).all()
    assert chances[1] == pytest.approx(1.0)


def test_combinations_are_distinct_sets_and_keep_the_share_at_any_prefix() -> None:
    seeds = load_bank(SEEDS)
    banks = [build_bank(seeds, "math"), build_bank(seeds, "code")]
    settings = CombinationSettings(num_combinations=60, math_share=0.65)
    drawn = draw_combinations(banks, settings, root_seed=5)
    assert len({frozenset(row.concepts) for row in drawn}) == 60
    assert sum(row.domain == "math" for row in drawn) == 39
    assert drawn == draw_combinations(banks, settings, root_seed=5)
    shorter = CombinationSettings(num_combinations=20, math_share=0.65)
    assert drawn[:20] == draw_combinations(banks, shorter, root_seed=5)
    assert drawn != draw_combinations(banks, settings, root_seed=6)
    counts = [sum(domain_of(i, 0.65) == "math" for i in range(n)) for n in range(40)]
    assert all(b - a in (0, 1) for a, b in pairwise(counts))


def test_exhausted_bank_is_named() -> None:
    bank = build_bank(TINY, "math")
    settings = CombinationSettings(num_combinations=7, size=2, temperature=5)
    with pytest.raises(ConfigError, match="math bank is exhausted: 6 distinct"):
        draw_combinations([bank], settings, root_seed=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no seeds"),
        ("{", "line 1: not a seed"),
        ('{"concepts": ["a"], "domain": "math", "level": "x"}', "line 1"),
        ('{"concepts": ["a", "a"], "domain": "math", "level": "x"}', "named twice"),
    ],
)
def test_broken_bank_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bank.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=message):
        load_bank(path)


def test_bundled_bank_is_large_and_connected() -> None:
    lines = SEEDS.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    counts = Counter(concept for row in rows for concept in row["concepts"])
    assert len(rows) >= 70
    assert len(counts) >= 160
    assert sum(count > 1 for count in counts.values()) >= 60
    assert all(len(row["concepts"]) >= 5 and row["problem"] and row["rationale"] for row in rows)
    assert len({row["problem"] for row in rows}) == len(rows)


def test_nearest_seeds_share_most_concepts() -> None:
    bank = build_bank(TINY, "math")
    best = nearest_seeds(bank, ["limits", "sums", "sets"], 1, tie_break=[0, 0, 0])
    assert best[0].concepts == ["sums", "sets", "limits"]
