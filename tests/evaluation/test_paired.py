"""Comparisons: exact where they say so, uniform under the null, honest about seeds."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import paired
from evaluation.paired import compare_means, correct_holm, estimate_over_seeds, flip_signs
from evaluation.student_t import t_quantile, two_sided_p


def compare(first: list[float], second: list[float], seed: int = 0) -> object:
    return compare_means(first, second, confidence=0.95, num_resamples=500, seed=seed)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
def test_the_p_value_counts_all_sign_patterns(values: list[int]) -> None:
    differences = np.asarray(values, np.float64) / 4
    sums = [
        abs(float(np.dot(signs, differences))) for signs in product((-1, 1), repeat=len(values))
    ]
    expected = np.mean([total >= abs(differences.sum()) - 1e-9 for total in sums])
    p_value, is_exact = flip_signs(differences, num_draws=10, seed=0)
    assert is_exact and p_value == pytest.approx(expected)


def test_drawn_patterns_agree_with_counted_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    differences = rng.choice([-0.5, -0.25, 0.25, 0.5], 16, p=[0.15, 0.2, 0.3, 0.35])
    exact, is_exact = flip_signs(differences, num_draws=0, seed=0)
    monkeypatch.setattr(paired, "EXACT_UP_TO", 15)
    drawn, is_drawn_exact = flip_signs(differences, num_draws=40_000, seed=0)
    assert (is_exact, is_drawn_exact) == (True, False)
    assert drawn == pytest.approx(exact, abs=0.015)


def shares(p_values: list[float], *levels: float) -> list[float]:
    return [float(np.mean(np.asarray(p_values) <= level)) for level in levels]


@pytest.mark.parametrize("num_items", [12, 25])
def test_p_values_are_uniform_where_nothing_differs(num_items: int) -> None:
    rng = np.random.default_rng(5)
    p_values = [
        flip_signs(rng.standard_t(4, num_items), num_draws=300, seed=trial)[0]
        for trial in range(300)
    ]
    assert shares(p_values, 0.05, 0.25, 0.5, 0.75) == pytest.approx(
        [0.05, 0.25, 0.5, 0.75], abs=0.09
    )
    assert shares(p_values, 0.05)[0] <= 0.09


def test_p_values_of_graded_answers_are_never_too_small() -> None:
    """Answers are counted, so many sign patterns tie with the observed one: all of them count."""
    rng = np.random.default_rng(6)
    p_values = []
    for trial in range(300):
        rates = rng.beta(0.5, 0.8, 25)
        draws = rng.binomial(8, rates), rng.binomial(8, rates)
        p_values.append(flip_signs((draws[1] - draws[0]) / 8, num_draws=300, seed=trial)[0])
    for level, share in zip((0.05, 0.2, 0.5), shares(p_values, 0.05, 0.2, 0.5), strict=True):
        assert share <= level + 3 * (level * (1 - level) / 300) ** 0.5


def test_intervals_of_differences_cover_them() -> None:
    rng = np.random.default_rng(11)
    hits = 0
    for trial in range(250):
        rates = rng.beta(1, 1, 40)
        better = np.clip(rates + 0.1, 0, 1)
        first, second = rng.binomial(4, rates) / 4, rng.binomial(4, better) / 4
        found = compare_means(
            first.tolist(), second.tolist(), confidence=0.95, num_resamples=300, seed=trial
        )
        # The mean over all problems: rates above 0.9 are cut at 1.
        hits += found.interval[0] <= 0.095 <= found.interval[1]
    assert hits / 250 >= 0.91


def test_pairing_finds_what_two_intervals_hide() -> None:
    hard = [0.0, 0.25, 0.5, 0.75] * 8
    easier = [value + 0.125 for value in hard]
    found = compare(hard, easier)
    assert found.mean == pytest.approx(0.125)  # type: ignore[attr-defined]
    assert found.p_value < 0.001 and found.interval[0] > 0  # type: ignore[attr-defined]


def test_equal_checkpoints_have_no_difference_and_no_certainty() -> None:
    found = compare([0.5] * 30, [0.5] * 30)
    assert (found.mean, found.p_value, found.is_exact) == (0.0, 1.0, True)  # type: ignore[attr-defined]
    assert found.interval[0] < 0 < found.interval[1]  # type: ignore[attr-defined]
    assert "no problem differs" in found.note  # type: ignore[attr-defined]


def test_holm_by_hand() -> None:
    adjusted = correct_holm({"a": 0.04, "b": 0.01, "c": 0.03})
    assert adjusted == {
        "a": pytest.approx(0.06),
        "b": pytest.approx(0.03),
        "c": pytest.approx(0.06),
    }
    assert correct_holm({}) == {}


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=6))
def test_holm_keeps_the_order_and_never_helps(p_values: dict[str, float]) -> None:
    adjusted = correct_holm(p_values)
    assert list(adjusted) == list(p_values)
    for name, value in p_values.items():
        assert value <= adjusted[name] <= min(1.0, value * len(p_values)) + 1e-12 or (
            adjusted[name] <= 1.0 and adjusted[name] >= value
        )


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.30265),
        (0.975, 29, 2.04523),
        (0.95, 2.5, 2.5582),
        (0.995, 200, 2.60063),
    ],
)
def test_quantiles_of_t_are_those_of_the_tables(
    probability: float, freedom: float, quantile: float
) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(quantile, rel=2e-5)
    assert t_quantile(1 - probability, freedom) == pytest.approx(-quantile, rel=2e-5)


@settings(max_examples=50)
@given(st.floats(0.01, 0.99), st.floats(0.6, 1e7))
def test_quantile_and_p_value_undo_each_other(probability: float, freedom: float) -> None:
    t = t_quantile(probability, freedom)
    assert two_sided_p(t, freedom) == pytest.approx(2 * min(probability, 1 - probability), rel=1e-6)


def draw_runs(rng: np.random.Generator, num_seeds: int, shift: float) -> np.ndarray:
    """Scores of (seeds, problems): problems differ, and so do whole runs."""
    problems = np.linspace(-2, 1, 40)
    runs = rng.normal(shift, 0.4, (num_seeds, 1))
    return np.asarray(rng.binomial(4, 1 / (1 + np.exp(-(problems + runs)))) / 4)


def test_seeds_that_differ_are_not_mistaken_for_a_difference() -> None:
    rng = np.random.default_rng(2)
    over_seeds, over_problems = [], []
    for trial in range(200):
        first, second = draw_runs(rng, 3, 0), draw_runs(rng, 3, 0)
        found = estimate_over_seeds(first, second, confidence=0.95)
        over_seeds.append(found.p_value)
        difference = second.mean(axis=0) - first.mean(axis=0)
        over_problems.append(flip_signs(difference, num_draws=200, seed=trial)[0])
    assert np.mean(np.asarray(over_seeds) <= 0.05) <= 0.1
    assert np.mean(np.asarray(over_problems) <= 0.05) > 0.25, "problems alone find it too often"


def test_a_real_difference_is_found_over_seeds() -> None:
    rng = np.random.default_rng(2)
    found = estimate_over_seeds(draw_runs(rng, 3, 0), draw_runs(rng, 3, 2), confidence=0.95)
    assert found.interval[0] > 0.1 and found.p_value is not None and found.p_value < 0.05
    assert found.seed_spread is not None and found.seed_spread > 0


def test_runs_that_are_all_alike_have_no_p_value() -> None:
    same = np.full((2, 3), 0.25)
    found = estimate_over_seeds(same, same, confidence=0.95)
    assert (found.mean, found.interval, found.p_value) == (0.0, (0.0, 0.0), None)
