"""Intervals of a benchmark's mean score, over its problems and over the sampling alone.

Samples of one problem resemble each other, so the problem is the unit that is resampled, never the
answer: a clustered bootstrap. What a bootstrap is known to get wrong is mended here:

* its tails are too short for few problems, by the factor that Student's t has over the normal and
  by sqrt(n / (n - 1)); its percentiles are moved out by both (Hesterberg 2015, section 5.1);
* where a handful of problems alone have a score apart from 0 or 1, it hardly moves beyond them;
  there the interval also covers Wilson's for as many independent problems as the spread between
  problems amounts to (Korn and Graubard 1998 do the same with Clopper and Pearson's);
* problems that all score alike have no spread at all: n of them leave room for a share of up to
  1 - alpha^(1/n) that score otherwise (exact where all score 0, or all 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from evaluation.student_t import t_quantile

Floats = NDArray[np.float64]

FEW_ITEMS = 30
"""Below this the notes call an interval rough."""
RARE = 10
"""Fewer problems than this with a score apart from 0 (or from 1): a bootstrap alone falls short.
Measured over simulated benchmarks of 30 problems: 81 to 90 % coverage instead of 95."""
_PIECE = 1_000_000
"""Numbers drawn at once: bounds memory at 16 MB."""


def bootstrap_interval(
    means: Sequence[float], *, confidence: float, num_resamples: int, seed: int
) -> tuple[float, float]:
    """Interval of the mean over problems like these, by resampling problems.

    Args:
        means: Mean score of each problem, between 0 and 1.
        confidence: E.g. 0.95.
        num_resamples: Bootstrap replicates.
        seed: Seed of the resampling.
    """
    values = np.asarray(means, dtype=np.float64)
    if values.min() == values.max():
        mean, unseen = float(values[0]), unseen_share(len(values), confidence)
        return mean * (1.0 - unseen), mean + (1.0 - mean) * unseen
    tail = expanded_tail(confidence, len(values))
    replicates = resample_means(values, num_resamples, seed)
    low, high = (float(end) for end in np.quantile(replicates, [tail, 1.0 - tail]))
    if min((values > 0).sum(), (values < 1).sum()) < RARE:
        wide = _wilson(values, confidence)
        low, high = min(low, wide[0]), max(high, wide[1])
    return max(0.0, low), min(1.0, high)


def unseen_share(num_units: int, confidence: float) -> float:
    """Largest share of units of a kind that may exist though none is among so many."""
    return 1.0 - float((1.0 - confidence) ** (1.0 / num_units))


def expanded_tail(confidence: float, num_units: int) -> float:
    """Tail probability at which a percentile bootstrap of so many units is read.

    Args:
        confidence: E.g. 0.95, whose plain tail is 0.025.
        num_units: Units that were resampled; one alone has no spread, whatever the tail.
    """
    tail = (1.0 - confidence) / 2
    if num_units < 2:
        return tail
    reach = sqrt(num_units / (num_units - 1)) * t_quantile(1.0 - tail, num_units - 1)
    return NormalDist().cdf(-reach)


def resample_means(values: Floats, num_resamples: int, seed: int) -> Floats:
    """Means of samples with replacement, each as large as ``values``; memory is bounded."""
    return resample(values, num_resamples, seed, statistic=lambda drawn: drawn.mean(axis=1))


def resample(
    values: Floats, num_resamples: int, seed: int, statistic: Callable[[Floats], Floats]
) -> Floats:
    """A statistic of samples with replacement.

    Args:
        values: One number per unit.
        num_resamples: Samples.
        seed: Seed of the draws.
        statistic: From (samples, units) to one number per sample.
    """
    generator = np.random.default_rng(seed)
    rows = max(1, _PIECE // len(values))
    pieces = [
        statistic(values[generator.integers(0, len(values), size=(count, len(values)))])
        for count in _split(num_resamples, rows)
    ]
    return np.concatenate(pieces)


def _split(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


def _wilson(values: Floats, confidence: float) -> tuple[float, float]:
    """Wilson's interval for as many independent problems as the spread between them amounts to."""
    mean, count = float(values.mean()), len(values)
    t = t_quantile((1.0 + confidence) / 2, max(1, count - 1))
    effective = mean * (1.0 - mean) * count / float(values.var(ddof=1))
    centre = (mean + t * t / (2 * effective)) / (1.0 + t * t / effective)
    half = t * sqrt(mean * (1 - mean) / effective + (t / (2 * effective)) ** 2)
    half /= 1.0 + t * t / effective
    return centre - half, centre + half


def sampling_interval(
    correct: Sequence[int], samples: Sequence[int], confidence: float
) -> tuple[float, float]:
    """Interval of avg@k of these very problems, had other samples been drawn.

    The spread of p (1 - p) within a problem is estimated without bias from its samples, so it holds
    for any k of at least 2, summed over problems. One sample a problem shows nothing of it: then
    the largest that fits the mean stands there, as if all problems were equally hard. Where no two
    samples of a problem disagree, the largest spread that would show none this often does.

    Args:
        correct: Correct answers of each problem.
        samples: Answers of each problem.
        confidence: E.g. 0.95.
    """
    right, drawn = np.asarray(correct, np.float64), np.asarray(samples, np.float64)
    rates, count = right / drawn, len(right)
    mean = float(rates.mean())
    if drawn.min() < 2:
        variance = mean * (1.0 - mean) / count
    else:
        variance = float((rates * (1 - rates) / (drawn - 1)).sum()) / count**2
    if variance == 0.0:
        k = float(drawn.min())
        unseen = unseen_share(count, confidence) / k
        variance = unseen * (1.0 - unseen) / (k * count)
    reach = NormalDist().inv_cdf((1.0 + confidence) / 2) * sqrt(variance)
    return max(0.0, mean - reach), min(1.0, mean + reach)


def describe_interval(means: Sequence[float]) -> str:
    """What limits the interval over problems, in words; empty when nothing does."""
    if len(set(means)) == 1:
        if means[0] in (0.0, 1.0):
            return "all problems score alike: the exact bound for that many problems"
        return "all problems score alike: the bound on how many others there may be"
    if len(means) < FEW_ITEMS:
        return f"rough: only {len(means)} problems"
    return ""
