"""Balanced sampling uses every concept, follows its own exact chances, and stays reproducible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import promptcot
from pipeline.records import Seed
from pipeline.settings.concepts import CombinationSettings, EncoderSettings
from promptcot.balanced import BalancedSampler, associate
from promptcot.bank import Bank, build_bank, load_bank
from promptcot.encoders import embed_concepts
from promptcot.envelope import NextConcept, Pressure
from promptcot.near_concepts import NearConcepts
from promptcot.portable import UNIT, Exponential, draw_keys
from promptcot.sampling import CombinationSampler, DistinctDraws, plain_probabilities
from promptcot.usage import describe_usage, entropy_bits

BUNDLED = build_bank(load_bank(Path(promptcot.__path__[0]) / "data" / "seeds.jsonl"), "math")


def open_sampler(bank: Bank, **values: float | str) -> BalancedSampler:
    near = NearConcepts(embed_concepts(EncoderSettings(), bank.concepts), 8)
    settings = CombinationSettings.model_validate(values)
    return BalancedSampler(bank, settings, near=near, root_seed=4)


def count(bank: Bank, concepts: np.ndarray) -> np.ndarray:
    return np.bincount(concepts.ravel(), minlength=len(bank.concepts))


@pytest.mark.parametrize("association", ["pmi", "log_co_occurrence"])
def test_every_concept_is_used_once_there_are_as_many_combinations(association: str) -> None:
    num = len(BUNDLED.concepts)
    draws = DistinctDraws(open_sampler(BUNDLED, association=association))
    half, rest = draws.take(num // 2), draws.take(num - num // 2)
    assert np.count_nonzero(count(BUNDLED, half.concepts)) >= num // 2
    assert count(BUNDLED, np.concatenate([half.concepts, rest.concepts])).min() >= 1


def test_usage_is_more_even_than_the_originals() -> None:
    near = NearConcepts(embed_concepts(EncoderSettings(), BUNDLED.concepts))
    original = CombinationSampler(BUNDLED, CombinationSettings(), near=near, root_seed=4)
    usual = count(BUNDLED, DistinctDraws(original).take(400).concepts)
    usage = count(BUNDLED, DistinctDraws(open_sampler(BUNDLED)).take(400).concepts)
    assert entropy_bits(usage) > entropy_bits(usual) + 0.3
    target = np.sqrt(BUNDLED.frequency) / np.sqrt(BUNDLED.frequency).sum() * usage.sum()
    assert abs(np.log2((usage + 1) / (target + 1))).mean() < 0.5
    free = count(BUNDLED, DistinctDraws(open_sampler(BUNDLED, coverage=0)).take(400).concepts)
    assert entropy_bits(usage) > entropy_bits(free)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_pressure_counts_exactly(temperature: float) -> None:
    near = NearConcepts(embed_concepts(EncoderSettings(), BUNDLED.concepts), 8)
    exponential, links = Exponential(temperature), associate(BUNDLED, "pmi")
    scores = -(np.arange(len(BUNDLED.concepts)) * 7919 % 12) * (UNIT // 8)
    pressure = Pressure(len(scores), scores, exponential)
    chosen = np.tile(np.array([[3, 20, 41]], dtype=np.int32), (8_000, 1))
    keys = draw_keys(9, np.arange(len(chosen)))
    drawn = NextConcept(links, near, exponential).draw(chosen, keys, pressure)
    vectors = near.vectors.astype(float)
    plain = (vectors @ vectors[chosen[0]].sum(axis=0) + scores) / UNIT
    expected = len(drawn) * plain_probabilities(plain, links, chosen[0].tolist(), temperature)
    found = np.bincount(drawn, minlength=len(scores))
    assert not found[chosen[0]].any()
    common = expected >= 5
    statistic = ((found - expected)[common] ** 2 / expected[common]).sum()
    freedom = int(common.sum())
    assert freedom > 5
    assert statistic < freedom + 4.5 * np.sqrt(2 * freedom)


def test_a_smaller_run_is_the_start_of_a_larger_one() -> None:
    small = DistinctDraws(open_sampler(BUNDLED)).take(50).concepts
    larger = DistinctDraws(open_sampler(BUNDLED))
    parts = np.concatenate([larger.take(7).concepts, larger.take(300).concepts])
    np.testing.assert_array_equal(small, parts[:50])
    assert len({frozenset(row) for row in parts.tolist()}) == len(parts)


def test_association_has_mean_one_and_rarer_pairs_tell_more() -> None:
    def seed(*concepts: str) -> Seed:
        return Seed(concepts=list(concepts), domain="math", level="x")

    bank = build_bank(
        [seed("a", "b")] * 6 + [seed("a", "c")] * 3 + [seed("a", "d")] * 3 + [seed("c", "d")] * 3,
        "math",
    )
    number = {name: i for i, name in enumerate(bank.concepts)}

    def score(kind: str, one: str, other: str) -> float:
        rows, columns = np.array([number[one]], dtype=np.int32), np.array([number[other]])
        return float(associate(bank, kind).scores_of(rows, columns)[0]) / UNIT

    for kind in ("pmi", "log_co_occurrence"):
        links = associate(bank, kind)
        assert (links.strengths * (links.unit / UNIT)).mean() == pytest.approx(1, abs=1e-5)
        assert score(kind, "a", "b") == score(kind, "b", "a")
        assert score(kind, "b", "c") == 0
    assert score("pmi", "c", "d") > score("pmi", "a", "c"), "they have no other partner but a"
    counted = [score("log_co_occurrence", *pair) for pair in ("ab", "cd")]
    assert counted[0] / counted[1] == pytest.approx(np.log(7) / np.log(4), rel=1e-5)


def test_figures_of_usage() -> None:
    bank = build_bank([Seed(concepts=list("abcd"), domain="code", level="x")], "code")
    figures = describe_usage({"code": (bank, np.array([4, 0, 2, 2]))})
    assert figures["entropy_bits"] == 1.5
    assert figures["max_entropy_bits"] == 2
    assert figures["coverage"] == 0.75
    assert figures["concepts_never_used"] == 1
    bars = [(bar["from"], bar["to"], bar["concepts"]) for bar in figures["usage_histogram"]]
    assert bars == [(0, 0, 1), (1, 1, 0), (2, 3, 2), (4, 7, 1)]
    top = figures["domains"]["code"]["top_concepts"]
    assert [item["concept"] for item in top] == ["a", "c", "d"]
