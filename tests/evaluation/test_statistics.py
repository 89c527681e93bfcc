"""Scores are what their definitions say, and intervals cover what they say they cover."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.intervals import bootstrap_interval, sampling_interval
from evaluation.statistics import Outcome, list_ks, pass_at_k, score_benchmark
from evaluation.votes import Ballot, count_majorities, read_ballot
from pipeline.settings.evaluation import EvaluationSettings
from promptcot.verification.math_answers import MathGrader

SETTINGS = EvaluationSettings(bootstrap_samples=500)


def outcomes(*rows: list[bool]) -> list[Outcome]:
    return [
        Outcome("b", "math", f"i{n}", "1" if right else None, right, "x", not right, 10 + 10 * n)
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


def test_pass_is_told_for_powers_of_two_and_for_all_samples() -> None:
    assert (list_ks(1), list_ks(6), list_ks(16)) == ([1], [1, 2, 4, 6], [1, 2, 4, 8, 16])
    scores = score_benchmark(outcomes([True, False, False], [False] * 3), SETTINGS)
    assert scores["pass_at"] == {k: pytest.approx(int(k) / 6) for k in ("1", "2", "3")}
    assert scores["pass_at"]["1"] == pytest.approx(scores["avg_at_k"])


@pytest.mark.parametrize(
    ("answers", "credit"),
    [
        ([("5", True), ("5", True), ("7", False)], 1.0),
        ([("7", False), ("7", False), ("5", True)], 0.0),
        ([("5", True), ("7", False)], 0.5),
        ([("5", True), (None, False), (None, False)], 1.0),
        ([("1,000", True), ("1000", True), ("7", False)], 1.0),
        ([(None, False)], 0.0),
        # Correct answers are one group however they are written.
        ([("0.5", True), ("\\frac12", True), ("7", False), ("8", False)], 1.0),
        # Equal fractions vote together, though neither is correct.
        ([("1/2", False), ("2/4", False), ("5", True)], 0.0),
    ],
)
def test_the_largest_group_of_equal_answers_is_the_majority(
    answers: list[tuple[str | None, bool]], credit: float
) -> None:
    majority = count_majorities([read_ballot(answers)])
    assert majority.credits == (credit,)


class Recorder:
    """An equality that modulo 10 decides, and that remembers what it was asked."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []

    def __call__(self, pairs: object) -> list[bool | None]:
        self.pairs += pairs  # type: ignore[operator]
        return [int(a) % 10 == int(b) % 10 for a, b in pairs]  # type: ignore[attr-defined]


def test_only_equalities_that_could_change_the_leader_are_asked_about() -> None:
    ask = Recorder()
    led_by_right = Ballot(3, (("1", 1), ("11", 1)))
    led_by_wrong = Ballot(1, (("1", 2), ("11", 1)))
    open_race = Ballot(2, (("1", 1), ("11", 1), ("2", 1), ("21", 1)))
    majority = count_majorities([led_by_right, led_by_wrong, open_race], ask)
    assert majority.credits == (1.0, 0.0, 0.0)
    assert ask.pairs[0] == ("1", "11") and len(ask.pairs) == 6


def test_the_cost_of_a_vote_is_bounded_and_what_stays_open_is_counted() -> None:
    ask = Recorder()
    ballot = Ballot(2, tuple((str(n), 1) for n in range(9, 59)))
    majority = count_majorities([ballot], ask, most_comparisons=7)
    assert len(ask.pairs) == 7
    assert majority.num_unsettled == 1
    unasked = count_majorities([ballot], lambda pairs: [None] * len(pairs))
    assert (unasked.credits, unasked.num_unsettled) == ((1.0,), 1)


@given(st.lists(st.tuples(st.integers(0, 29), st.just(False)), max_size=7), st.integers(0, 4))
def test_votes_are_those_of_grouping_everything(wrong: list[tuple[int, bool]], right: int) -> None:
    texts: list[tuple[str | None, bool]] = [(str(value), False) for value, _ in wrong]
    texts += [("1000", True)] * right
    groups = [sum(v % 10 == rest for v, _ in wrong) for rest in range(10)]
    most = max([right, *groups])
    expected = 1 / (1 + groups.count(most)) if right == most and right else 0.0
    majority = count_majorities([read_ballot(texts)], Recorder())
    assert majority.credits == (expected,)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=12))
def test_the_interval_holds_the_mean_and_repeats(means: list[float]) -> None:
    low, high = bootstrap_interval(means, confidence=0.95, num_resamples=300, seed=1)
    assert (low, high) == bootstrap_interval(means, confidence=0.95, num_resamples=300, seed=1)
    assert 0 <= low <= sum(means) / len(means) <= high <= 1
    assert high - low > 0, "no number of problems makes a score certain"


def test_more_samples_of_the_same_problems_narrow_nothing() -> None:
    few = score_benchmark(outcomes([True], [False], [True], [False]), SETTINGS)
    many = score_benchmark(outcomes(*[[n % 2 == 0] * 50 for n in range(4)]), SETTINGS)
    assert few["interval"] == many["interval"]


def simulate(rates: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(rng.binomial(k, rates))


@pytest.mark.parametrize(
    ("num_items", "k", "shape"),
    [(30, 16, (0.3, 0.7)), (30, 1, (0.1, 0.9)), (30, 16, (0.1, 1.0)), (164, 1, (4.0, 1.0))],
)
def test_intervals_over_problems_cover_the_score_as_often_as_they_say(
    num_items: int, k: int, shape: tuple[float, float]
) -> None:
    rng = np.random.default_rng(7)
    truth, hits, trials = shape[0] / sum(shape), 0, 250
    for trial in range(trials):
        means = simulate(rng.beta(*shape, num_items), k, rng) / k
        low, high = bootstrap_interval(
            means.tolist(), confidence=0.95, num_resamples=400, seed=trial
        )
        hits += low <= truth <= high
    # 0.95 less three standard errors of so few trials, and what skew costs.
    assert hits / trials >= 0.9


@pytest.mark.parametrize("k", [1, 2, 4])
def test_intervals_of_the_sampling_cover_with_few_samples(k: int) -> None:
    rng = np.random.default_rng(3)
    rates = rng.beta(0.6, 0.8, 60)
    trials, hits = 400, 0
    for _ in range(trials):
        low, high = sampling_interval(simulate(rates, k, rng).tolist(), [k] * 60, 0.95)
        hits += low <= rates.mean() <= high
    assert hits / trials >= 0.91


def test_samples_that_always_agree_leave_room_for_ones_that_do_not() -> None:
    low, high = sampling_interval([4, 0, 4, 0], [4] * 4, 0.95)
    assert low < 0.5 < high
    narrow = sampling_interval([16, 0] * 100, [16] * 200, 0.95)
    assert narrow[1] - narrow[0] < 0.01


def test_a_benchmark_scores_by_hand() -> None:
    scores = score_benchmark(outcomes([True, True], [True, False], [False, False]), SETTINGS)
    assert scores["avg_at_k"] == pytest.approx(0.5)
    assert scores["pass_at_k"] == pytest.approx(2 / 3)
    assert scores["majority_at_k"] == pytest.approx(2 / 3)
    assert scores["truncated_rate"] == pytest.approx(0.5)
    assert (scores["num_items"], scores["samples_per_item"]) == (3, 2)
    assert scores["interval_note"] == "rough: only 3 problems"
    assert (scores["mean_tokens"], scores["mean_tokens_correct"]) == (20, pytest.approx(40 / 3))
    assert scores["token_quantiles"] == {"p10": 10, "p50": 20, "p90": 30, "max": 30}


def test_scores_are_broken_down_by_labels() -> None:
    labels = {"i0": {"level": "1"}, "i1": {"level": "5"}, "i2": {"level": "5"}}
    scores = score_benchmark(outcomes([True], [True], [False]), SETTINGS, labels=labels)
    levels = scores["by_label"]["level"]
    assert {value: (f["num_items"], f["avg_at_k"]) for value, f in levels.items()} == {
        "1": (1, 1.0),
        "5": (2, 0.5),
    }
    days = {"i0": {"day": "2024-08-03"}, "i1": {"day": "2024-08-31"}, "i2": {"day": "2024-09-01"}}
    scores = score_benchmark(outcomes([True], [True], [False]), SETTINGS, labels=days)
    assert list(scores["by_label"]["day"]) == ["2024-08", "2024-09"]
    assert score_benchmark(outcomes([True]), SETTINGS)["by_label"] == {}


def test_an_interval_without_spread_says_so() -> None:
    scores = score_benchmark(outcomes([True, False], [True, False]), SETTINGS)
    assert scores["interval"][0] < 0.5 < scores["interval"][1]
    assert "score alike" in scores["interval_note"]


@pytest.mark.parametrize("solved", [False, True])
def test_all_or_nothing_is_never_called_certain(solved: bool) -> None:
    scores = score_benchmark(outcomes(*[[solved]] * 16), SETTINGS)
    low, high = scores["interval"]
    assert high - low == pytest.approx(1 - 0.05 ** (1 / 16))
    assert (high if solved else low) == float(solved)
    assert "exact bound" in scores["interval_note"]


def test_votes_are_counted_by_the_graders_own_equality() -> None:
    answers = [("\\int_0^1 x dx", False), ("\\frac12", False), ("5", True), ("6", False)]
    by_text = count_majorities([read_ballot(answers)])
    assert (by_text.credits, by_text.num_unsettled) == ((0.25,), 1), "rules leave it open"
    with MathGrader(num_workers=1) as grader:
        majority = count_majorities([read_ballot(answers)], grader.compare)
    assert (majority.credits, majority.num_unsettled) == ((0.0,), 0)
