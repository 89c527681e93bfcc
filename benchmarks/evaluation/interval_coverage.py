"""How often the intervals of ``evaluation.intervals`` hold the true score, by simulation.

Problems have success rates from a beta distribution, answers are drawn from them; the plain
percentile bootstrap over problems stands beside ours. Run:
``python benchmarks/evaluation/interval_coverage.py --trials 2000``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from evaluation.intervals import bootstrap_interval, resample_means, sampling_interval
from evaluation.paired import compare_means, estimate_over_seeds, flip_signs

BENCHMARKS = {
    "AIME, k 16, mean 30 %": (30, 16, (0.3, 0.7)),
    "AIME, k 1, mean 30 %": (30, 1, (0.3, 0.7)),
    "AIME, k 16, mean 9 %": (30, 16, (0.1, 1.0)),
    "AIME, k 16, mean 3 %": (30, 16, (0.05, 1.5)),
    "MATH-500, k 4, mean 80 %": (500, 4, (2.0, 0.5)),
    "HumanEval, k 1, mean 80 %": (164, 1, (4.0, 1.0)),
    "LCB, k 8, mean 30 %": (279, 8, (0.3, 0.7)),
    "10 problems, k 4": (10, 4, (0.5, 0.5)),
}
Interval = Callable[[np.ndarray, int], tuple[float, float]]


def plain(means: np.ndarray, seed: int) -> tuple[float, float]:
    low, high = np.quantile(resample_means(means, 1000, seed), [0.025, 0.975])
    return float(low), float(high)


def ours(means: np.ndarray, seed: int) -> tuple[float, float]:
    return bootstrap_interval(means.tolist(), confidence=0.95, num_resamples=1000, seed=seed)


def cover_problems(trials: int, rng: np.random.Generator) -> None:
    print("over problems                plain   ours   (share of intervals that hold the truth)")
    for name, (num_items, k, shape) in BENCHMARKS.items():
        truth, hits = shape[0] / sum(shape), np.zeros(2)
        for trial in range(trials):
            means = rng.binomial(k, rng.beta(*shape, num_items)) / k
            for place, interval in enumerate((plain, ours)):
                low, high = interval(means, trial)
                hits[place] += low <= truth <= high
        print(f"{name:28} {hits[0] / trials:5.3f}  {hits[1] / trials:5.3f}")


def cover_sampling(trials: int, rng: np.random.Generator) -> None:
    print("\nof the sampling alone, 60 fixed problems")
    rates = rng.beta(0.6, 0.8, 60)
    for k in (1, 2, 4, 16):
        hits = 0
        for _ in range(trials):
            low, high = sampling_interval(rng.binomial(k, rates).tolist(), [k] * 60, 0.95)
            hits += low <= rates.mean() <= high
        print(f"k {k:<26} {hits / trials:5.3f}")


def cover_comparisons(trials: int, rng: np.random.Generator) -> None:
    print("\ntwo equal checkpoints, 30 problems, k 16")
    p_values, hits = [], 0
    for trial in range(trials):
        rates = rng.beta(0.3, 0.7, 30)
        sides = [(rng.binomial(16, rates) / 16) for _ in range(2)]
        p_values.append(flip_signs(sides[1] - sides[0], num_draws=1000, seed=trial)[0])
        found = compare_means(
            sides[0].tolist(), sides[1].tolist(), confidence=0.95, num_resamples=500, seed=trial
        )
        hits += found.interval[0] <= 0 <= found.interval[1]
    shares = ", ".join(f"p <= {p}: {np.mean(np.asarray(p_values) <= p):.3f}" for p in (0.05, 0.2))
    print(f"{shares}; intervals that hold 0: {hits / trials:.3f}")


def cover_seeds(trials: int, rng: np.random.Generator) -> None:
    print("\ntwo equal recipes over seeds, 60 problems, k 4 (seeds differ by sd on the logit)")
    for num_seeds, spread in ((2, 0.5), (3, 0.0), (3, 0.5), (3, 1.5), (5, 0.3)):
        p_values, only_problems = [], []
        ease = np.linspace(-3, 1.5, 60)
        for trial in range(trials):
            sides = []
            for _ in range(2):
                runs = rng.normal(0, spread, (num_seeds, 1)) + rng.normal(0, 0.5, (num_seeds, 60))
                sides.append(rng.binomial(4, 1 / (1 + np.exp(-(ease + runs)))) / 4)
            found = estimate_over_seeds(sides[0], sides[1], confidence=0.95)
            p_values.append(1.0 if found.p_value is None else found.p_value)
            difference = sides[1].mean(axis=0) - sides[0].mean(axis=0)
            only_problems.append(flip_signs(difference, num_draws=300, seed=trial)[0])
        rates = [np.mean(np.asarray(values) <= 0.05) for values in (p_values, only_problems)]
        print(
            f"{num_seeds} seeds, sd {spread}: p <= 0.05 in {rates[0]:.3f}; "
            f"over problems alone {rates[1]:.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    for part in (cover_problems, cover_sampling, cover_comparisons, cover_seeds):
        part(options.trials, rng)


if __name__ == "__main__":
    main()
