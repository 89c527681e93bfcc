"""Scores are what their definitions say, and intervals are over problems."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.statistics import (
    Outcome,
    bootstrap_interval,
    majority_at_k,
    pass_at_k,
    score_benchmark,
)
from pipeline.settings.evaluation import EvaluationSettings

SETTINGS = EvaluationSettings(bootstrap_samples=500)


def outcomes(*rows: list[bool]) -> list[Outcome]:
    return [
        Outcome("b", "math", f"i{n}", "1" if right else None, right, "x", not right, 10)
        for n, samples in enumerate(rows)
        for right in samples
    ]


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(
    samples: list[bool], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(samples)))
    subsets = list(combinations(samples, k))
    expected = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_at_k(len(samples), sum(samples), k) == pytest.approx(expected)


def test_pass_at_more_than_was_sampled_is_refused() -> None:
    with pytest.raises(ValueError, match="pass@3"):
        pass_at_k(2, 1, 3)


@pytest.mark.parametrize(
    ("answers", "credit"),
    [
        ([("5", True), ("5", True), ("7", False)], 1.0),
        ([("7", False), ("7", False), ("5", True)], 0.0),
        ([("5", True), ("7", False)], 0.5),
        ([("5", True), (None, False), (None, False)], 1.0),
        ([("1,000", True), ("1000", True), ("7", False)], 1.0),
        ([(None, False)], 0.0),
    ],
)
def test_the_commonest_answer_is_the_majority(
    answers: list[tuple[str | None, bool]], credit: float
) -> None:
    assert majority_at_k(answers) == credit


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=12))
def test_the_interval_holds_the_mean_and_repeats(means: list[float]) -> None:
    first = bootstrap_interval(means, confidence=0.95, num_resamples=300, seed=1)
    assert first == bootstrap_interval(means, confidence=0.95, num_resamples=300, seed=1)
    if set(means) in ({0.0}, {1.0}):
        assert first[0] <= means[0] <= first[1], "the exact bound reaches beyond what was seen"
    else:
        assert min(means) <= first[0] <= first[1] <= max(means)


def test_more_samples_of_the_same_problems_narrow_nothing() -> None:
    few = score_benchmark(outcomes([True], [False], [True], [False]), SETTINGS)
    many = score_benchmark(outcomes(*[[n % 2 == 0] * 50 for n in range(4)]), SETTINGS)
    assert few["interval"] == many["interval"]


def test_a_benchmark_scores_by_hand() -> None:
    scores = score_benchmark(outcomes([True, True], [True, False], [False, False]), SETTINGS)
    assert scores["avg_at_k"] == pytest.approx(0.5)
    assert scores["pass_at_k"] == pytest.approx(2 / 3)
    assert scores["majority_at_k"] == pytest.approx(2 / 3)
    assert scores["truncated_rate"] == pytest.approx(0.5)
    assert (scores["num_items"], scores["samples_per_item"]) == (3, 2)
    assert scores["interval_note"] == "rough: only 3 problems"


def test_an_interval_without_spread_says_so() -> None:
    scores = score_benchmark(outcomes([True, False], [True, False]), SETTINGS)
    assert scores["interval"] == [0.5, 0.5]
    assert "no spread" in scores["interval_note"]


@pytest.mark.parametrize("solved", [False, True])
def test_all_or_nothing_is_never_called_certain(solved: bool) -> None:
    scores = score_benchmark(outcomes(*[[solved]] * 16), SETTINGS)
    low, high = scores["interval"]
    assert high - low == pytest.approx(1 - 0.05 ** (1 / 16))
    assert (high if solved else low) == float(solved)
    assert "exact bound" in scores["interval_note"]
