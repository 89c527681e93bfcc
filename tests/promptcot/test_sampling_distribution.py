"""Draws follow the published rule exactly, whatever shortcut was taken, and are the same anywhere."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import promptcot
from pipeline.errors import ConfigError
from pipeline.records import Seed
from pipeline.settings.concepts import CombinationSettings, EncoderSettings
from promptcot import envelope
from promptcot.bank import Bank, build_bank, load_bank
from promptcot.encoders import embed_concepts
from promptcot.near_concepts import NearConcepts
from promptcot.portable import UNIT, Exponential
from promptcot.sampling import CombinationSampler, DistinctDraws, KnownSets, domain_of

BUNDLED = load_bank(Path(promptcot.__path__[0]) / "data" / "seeds.jsonl")


def seed(*concepts: str) -> Seed:
    return Seed(concepts=list(concepts), domain="math", level="AMC12")


def open_sampler(
    bank: Bank, *, num_near: int = 64, root_seed: int = 1, **values: float
) -> CombinationSampler:
    vectors = embed_concepts(EncoderSettings(), bank.concepts)
    return CombinationSampler(
        bank,
        CombinationSettings.model_validate(values),
        near=NearConcepts(vectors, num_near),
        root_seed=root_seed,
    )


TINY = build_bank(
    [seed("sums", "sets"), seed("sums", "sets", "limits"), seed("circles", "limits")], "math"
)
MIXED = build_bank(
    [
        seed("sums", "sets", "limits of sums"),
        seed("sums", "sets"),
        seed("sums of squares", "squares"),
        seed("circle area", "circles", "squares"),
        seed("triangle area", "circle area"),
        seed("triangles", "similar triangles"),
        seed("similar triangles", "triangle area", "ratios"),
    ],
    "math",
)  # fmt: skip
UNLINKED = replace(
    MIXED,
    indptr=np.zeros_like(MIXED.indptr),
    indices=MIXED.indices[:0],
    counts=MIXED.counts[:0],
)
# One concept with many links of all strengths, of which the weak ones need not be read; two of its
# neighbours are tied through a second, equally frequent one.
HUB = build_bank(
    [seed("hub", f"spoke {i}") for i in range(12) for _ in range(38 + i % 3)]
    + [seed("rim", f"spoke {i}") for i in range(12) for _ in range(3 * i)]
    + [seed("hub", f"leaf {i}") for i in range(20)],
    "math",
)


def test_next_concept_follows_softmax_of_co_occurrence_plus_cosine() -> None:
    assert TINY.concepts == ("circles", "limits", "sets", "sums")
    sampler = open_sampler(TINY, size=3, temperature=0.7)
    vectors = embed_concepts(EncoderSettings(), TINY.concepts).astype(float) / 4000
    together = np.array([[0, 1, 0, 0], [1, 0, 1, 1], [0, 1, 0, 2], [0, 1, 2, 0]])
    for chosen in ([3], [3, 1]):
        scores = sum(together[c] + vectors @ vectors[c] for c in chosen) / 0.7
        expected = np.where(np.isin(range(4), chosen), 0, np.exp(scores))
        np.testing.assert_allclose(
            sampler.next_probabilities(chosen), expected / expected.sum(), atol=1e-9
        )


def assert_plausible(statistic: float, freedom: int) -> None:
    """Chi-square within four standard deviations, by Wilson and Hilferty's approximation."""
    if freedom:
        score = ((statistic / freedom) ** (1 / 3) - 1 + 2 / (9 * freedom)) / math.sqrt(
            2 / (9 * freedom)
        )
        assert score < 4, f"chi-square {statistic:.1f} with {freedom} degrees of freedom"


def compare_with_exact_chances(sampler: CombinationSampler, drawn: np.ndarray) -> list[int]:
    """Chi-square of every draw, given the ones before it; the degrees of freedom of each step."""
    freedoms = []
    for step in range(drawn.shape[1]):
        before = Counter(tuple(row) for row in drawn[:, :step].tolist())
        found = Counter(tuple(row) for row in drawn[:, : step + 1].tolist())
        statistic, freedom = 0.0, 0
        for chosen, count in before.most_common(60):
            chances = sampler.next_probabilities(chosen) if step else sampler.first_probabilities()
            expected = count * chances
            observed = np.array([found[(*chosen, j)] for j in range(len(chances))])
            assert not observed[expected == 0].any()
            common = expected >= 5
            # Rare ones together, so that no bound is too low for them either.
            cells = [*zip(observed[common], expected[common], strict=True)]
            if (rest := expected[~common].sum()) >= 5:
                cells.append((observed[~common].sum(), rest))
            if len(cells) > 1:
                statistic += sum((o - e) ** 2 / e for o, e in cells)
                freedom += len(cells) - 1
        assert_plausible(statistic, freedom)
        freedoms.append(freedom)
    return freedoms


@pytest.mark.parametrize(
    ("bank", "num_near", "temperature"),
    [
        pytest.param(MIXED, 64, 0.2, id="everything listed"),
        pytest.param(MIXED, 3, 0.2, id="most by rejection"),
        pytest.param(MIXED, 3, 1.0, id="warm"),
        pytest.param(UNLINKED, 3, 0.2, id="no co-occurrence"),
        pytest.param(HUB, 3, 0.2, id="long rows cut"),
        pytest.param(HUB, 5, 1.5, id="long rows, warm"),
    ],
)
def test_every_draw_of_a_combination_passes_a_chi_square_test(
    bank: Bank, num_near: int, temperature: float
) -> None:
    sampler = open_sampler(bank, num_near=num_near, size=5, temperature=temperature)
    drawn = sampler.draw(np.arange(8000)).concepts
    freedoms = compare_with_exact_chances(sampler, drawn)
    assert min(freedoms[:2]) > 3, "the test must be able to fail"


def test_draws_made_the_plain_way_pass_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "_MIN_REFUSALS", 0)
    sampler = open_sampler(MIXED, num_near=3, size=3, temperature=0.3)
    compare_with_exact_chances(sampler, sampler.draw(np.arange(4000)).concepts)


def test_a_wrong_distribution_fails_the_chi_square_test() -> None:
    drawn = open_sampler(MIXED, size=3, temperature=0.3).draw(np.arange(12_000)).concepts
    with pytest.raises(AssertionError, match="chi-square"):
        compare_with_exact_chances(open_sampler(MIXED, size=3, temperature=0.32), drawn)


def test_rows_are_cut_where_the_rest_cannot_matter() -> None:
    sampler = open_sampler(HUB, num_near=3, size=3, temperature=0.2)
    hub = HUB.concepts.index("hub")
    row = slice(HUB.indptr[hub], HUB.indptr[hub + 1])
    floor = (HUB.counts[row].max() - 6) * UNIT
    count = sampler._drawing.links.count_above(np.array([hub], dtype=np.int32), np.array([floor]))
    assert 0 < count[0] < len(HUB.indices[row])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 2**31 - 1), st.sampled_from([0.01, 0.2, 3.0]))
def test_counts_of_any_size_neither_overflow_nor_vanish(count: int, temperature: float) -> None:
    counts = np.where(TINY.counts == 2, count, TINY.counts).astype(np.int32)
    sampler = open_sampler(replace(TINY, counts=counts), size=3, temperature=temperature)
    drawn = sampler.draw(np.arange(64)).concepts
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    sums, sets = TINY.concepts.index("sums"), TINY.concepts.index("sets")
    if count > 100:
        assert (drawn[drawn[:, 0] == sums][:, 1] == sets).all()


@settings(deadline=None, max_examples=30)
@given(st.floats(0.01, 20), st.lists(st.integers(0, 10**11), min_size=1))
def test_table_exponential_is_exp(temperature: float, differences: list[int]) -> None:
    exponential = Exponential(temperature)
    expected = [math.exp(-d / (UNIT * temperature)) for d in differences]
    expected = [value if value >= 2**-40 else 0.0 for value in expected]
    found = exponential(np.array(differences, dtype=np.int64))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_near_lists_hold_all_similarities_above_their_bound() -> None:
    bank = build_bank(BUNDLED, "math")
    vectors = embed_concepts(EncoderSettings(), bank.concepts)
    near = NearConcepts(vectors, 7)
    near.require(np.arange(len(vectors), dtype=np.int32))
    exact = vectors.astype(np.int64) @ vectors.astype(np.int64).T
    for concept, row in enumerate(exact):
        listed = near.concepts[concept][near.concepts[concept] >= 0]
        others = np.setdiff1d(np.arange(len(row)), [*listed, concept])
        assert 0 < len(listed) < 7
        assert (row[others] <= near.bound[concept]).all()
        np.testing.assert_array_equal(
            row[listed] - near.bound[concept], near.excess[concept][: len(listed)]
        )


def test_draws_do_not_depend_on_how_they_are_grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = build_bank(BUNDLED, "math")
    whole = open_sampler(bank, num_near=9).draw(np.arange(600))
    monkeypatch.setattr(envelope, "_MAX_ENTRIES", 3000)
    monkeypatch.setattr(envelope, "_MAX_TRIALS", 2)
    sampler = open_sampler(bank, num_near=9)
    parts = [sampler.draw(np.arange(a, b)) for a, b in pairwise([0, 1, 77, 600])]
    np.testing.assert_array_equal(whole.concepts, np.concatenate([p.concepts for p in parts]))
    np.testing.assert_array_equal(
        whole.level_chances, np.concatenate([p.level_chances for p in parts])
    )


def test_draws_do_not_depend_on_the_length_of_near_lists_in_distribution() -> None:
    bank = build_bank(BUNDLED, "code")
    short, long = (open_sampler(bank, num_near=n, size=2, temperature=1.0) for n in (2, 64))
    a, b = (
        np.bincount(s.draw(np.arange(20_000)).concepts[:, 1], minlength=len(bank.concepts))
        for s in (short, long)
    )
    used = a + b >= 10
    assert_plausible(float(((a - b)[used] ** 2 / (a + b)[used]).sum()), int(used.sum()))


PROGRAM = """
import numpy as np
from hashlib import sha256
from pathlib import Path
import promptcot
from pipeline.settings.concepts import CombinationSettings, EncoderSettings
from promptcot.bank import build_bank, load_bank
from promptcot.encoders import embed_concepts
from promptcot.near_concepts import NearConcepts
from promptcot.sampling import CombinationSampler
bank = build_bank(load_bank(Path(promptcot.__path__[0]) / "data" / "seeds.jsonl"), "math")
near = NearConcepts(embed_concepts(EncoderSettings(), bank.concepts), 9)
sampler = CombinationSampler(bank, CombinationSettings(), near=near, root_seed=3)
drawn = sampler.draw(np.arange(500))
print(sha256(drawn.concepts.tobytes() + drawn.level_chances.tobytes()).hexdigest())
"""


def test_draws_do_not_depend_on_threads_processor_or_hash_seed() -> None:
    outputs = set()
    for threads, core, hash_seed in (("1", "Prescott", "1"), ("4", "", "2")):
        extra = {"OPENBLAS_NUM_THREADS": threads, "PYTHONHASHSEED": hash_seed}
        extra |= (
            {"OPENBLAS_CORETYPE": core, "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3"} if core else {}
        )
        outputs.add(
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", PROGRAM],
                env={**os.environ, **extra},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
    assert len(outputs) == 1


def test_a_smaller_run_is_the_start_of_a_larger_one() -> None:
    bank = build_bank(BUNDLED, "math")
    small = DistinctDraws(open_sampler(bank, root_seed=5)).take(40)
    larger = DistinctDraws(open_sampler(bank, root_seed=5))
    parts = [larger.take(25), larger.take(900)]
    joined = np.concatenate([part.concepts for part in parts])
    np.testing.assert_array_equal(small.concepts, joined[:40])
    assert len({frozenset(row) for row in joined.tolist()}) == len(joined) == 925
    other = DistinctDraws(open_sampler(bank, root_seed=6)).take(40)
    assert (other.concepts != small.concepts).any()


def test_combinations_are_the_draws_in_order_without_repeated_sets() -> None:
    sampler = open_sampler(MIXED, size=2, temperature=0.5)
    taken = DistinctDraws(sampler).take(20).concepts.tolist()
    seen: list[frozenset[int]] = []
    rows = []
    for row in sampler.draw(np.arange(2048)).concepts.tolist():
        if frozenset(row) not in seen:
            seen.append(frozenset(row))
            rows.append(row)
    assert taken == rows[:20]


@settings(deadline=None)
@given(st.lists(st.lists(st.permutations(range(5)).map(lambda p: p[:3]), max_size=9), max_size=4))
def test_known_sets_are_those_that_came_before(blocks: list[list[list[int]]]) -> None:
    known, seen = KnownSets(), set()
    for block in blocks:
        new = known.add_new(np.array(block, dtype=np.int32).reshape(-1, 3))
        expected = []
        for position, row in enumerate(block):
            if frozenset(row) not in seen:
                seen.add(frozenset(row))
                expected.append(position)
        assert new.tolist() == expected
    assert len(known) == len(seen)


def test_exhausted_bank_is_named() -> None:
    draws = DistinctDraws(open_sampler(TINY, size=2, temperature=5))
    found = draws.take(6).concepts.tolist()
    assert {frozenset(row) for row in found} == {frozenset(p) for p in combinations(range(4), 2)}
    with pytest.raises(ConfigError, match="math bank is exhausted: 6 distinct"):
        draws.take(1)
    with pytest.raises(ConfigError, match="4 concepts, fewer than"):
        open_sampler(TINY, size=5)


def test_domains_are_interleaved_so_that_any_prefix_keeps_the_share() -> None:
    counts = [sum(domain_of(i, 0.65) == "math" for i in range(n)) for n in range(61)]
    assert counts[60] == 39
    assert all(b - a in (0, 1) for a, b in pairwise(counts))
    assert all(abs(count - 0.65 * n) < 1 for n, count in enumerate(counts))
