"""Paired comparison of two checkpoints on the same problems, and many comparisons at once.

Both answered the same problems, so their difficulty cancels: what is compared is each problem's
difference. Its interval resamples problems; its p-value flips signs of whole problems, which is
exact under the null hypothesis that the two could swap names on any problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from evaluation.intervals import expanded_tail, resample_means, unseen_share
from evaluation.student_t import t_quantile, two_sided_p

Floats = NDArray[np.float64]

EXACT_UP_TO = 16
"""Problems with a difference up to which all 2**n sign patterns are counted."""
_PIECE = 2_000_000
_EQUAL = 1e-12
"""Sums of the same differences in another order differ by rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """B minus A, as shares between -1 and 1."""

    num_items: int
    num_differing: int
    """Problems on which the two differ."""
    mean: float
    interval: tuple[float, float]
    p_value: float
    is_exact: bool
    """Whether the p-value counts all sign patterns, or draws some."""
    note: str = ""


def compare_means(
    first: Sequence[float],
    second: Sequence[float],
    *,
    confidence: float,
    num_resamples: int,
    seed: int,
) -> Difference:
    """Difference of two checkpoints over the same problems, in the same order.

    Args:
        first: Mean score of each problem of A.
        second: The same of B.
        confidence: E.g. 0.95.
        num_resamples: Bootstrap replicates, and sign patterns drawn where they are too many.
        seed: Seed of both.
    """
    differences = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    p_value, is_exact = flip_signs(differences, num_draws=max(10_000, num_resamples), seed=seed)
    return Difference(
        num_items=len(differences),
        num_differing=int((np.abs(differences) > _EQUAL).sum()),
        mean=float(differences.mean()),
        interval=_interval(differences, confidence, num_resamples, seed=seed),
        p_value=p_value,
        is_exact=is_exact,
        note=_describe(differences),
    )


def _interval(
    differences: Floats, confidence: float, num_resamples: int, *, seed: int
) -> tuple[float, float]:
    """By resampling problems.

    Where all differ alike, unseen ones may differ as much the other way; where none does, by 1.
    """
    if differences.min() == differences.max():
        mean, unseen = float(differences[0]), unseen_share(len(differences), confidence)
        reach = unseen * (2 * abs(mean) or 1.0)
        return max(-1.0, mean - reach), min(1.0, mean + reach)
    tail = expanded_tail(confidence, len(differences))
    replicates = resample_means(differences, num_resamples, seed)
    low, high = np.quantile(replicates, [tail, 1.0 - tail])
    return float(low), float(high)


def _describe(differences: Floats) -> str:
    if np.abs(differences).max() <= _EQUAL:
        return "no problem differs: the interval is the bound for that many problems"
    if len(differences) < 10:
        return f"rough: only {len(differences)} problems"
    return ""


def flip_signs(differences: Floats, *, num_draws: int, seed: int) -> tuple[float, bool]:
    """Two-sided p-value of a mean difference of 0, and whether it is exact.

    Problems without a difference say nothing and are left out. With few others all sign patterns
    are counted; otherwise some are drawn, and the observed one counts among them, so that the
    p-value is never 0 and never too small.
    """
    moved = np.abs(differences[np.abs(differences) > _EQUAL])
    if len(moved) == 0:
        return 1.0, True
    observed = abs(float(differences.sum())) - _EQUAL * len(differences)
    if len(moved) <= EXACT_UP_TO:
        patterns = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        sums = np.abs((1 - 2 * patterns) @ moved)
        return float((sums >= observed).mean()), True
    generator, as_far, left = np.random.default_rng(seed), 0, num_draws
    while left:
        rows = min(left, max(1, _PIECE // len(moved)))
        signs = 1 - 2 * generator.integers(0, 2, size=(rows, len(moved)), dtype=np.int8)
        as_far += int((np.abs(signs @ moved) >= observed).sum())
        left -= rows
    return (1 + as_far) / (1 + num_draws), False


def correct_holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (1979): the chance of any false finding stays under the level.

    Args:
        p_values: By name of the comparison.

    Returns:
        Adjusted p-values by name, in the given order; none is over 1.
    """
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: (p_values[name], name))):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over seeds and problems, or a difference of two."""

    mean: float
    interval: tuple[float, float]
    p_value: float | None
    """Of a difference of 0; none for a mean."""
    seed_spread: float | None
    """Standard deviation of the mean between seeds (of a difference: of both together); none with
    one seed."""


def estimate_over_seeds(first: Floats, second: Floats | None, *, confidence: float) -> Estimate:
    """Mean of A, or B minus A, over seeds and problems, with what both contribute.

    Three variances add up: between problems (of their means over seeds, which holds what one
    problem and one seed have of their own), and between each side's seeds. Each side's seeds are
    its own, the problems are the same. The second part counts a little of the first again, so the
    interval is rather too wide than too narrow. Freedom is Satterthwaite's.

    Args:
        first: Scores of A, (seeds, problems); at least two seeds.
        second: The same of B for a difference; seeds may be fewer or more.
        confidence: E.g. 0.95.
    """
    sides = [first] if second is None else [first, second]
    by_problem = sides[-1].mean(axis=0) - (sides[0].mean(axis=0) if second is not None else 0.0)
    parts = [(float(by_problem.var(ddof=1)) / by_problem.size, by_problem.size - 1)]
    spreads = [side.mean(axis=1).var(ddof=1) for side in sides]
    parts += [
        (float(spread) / len(side), len(side) - 1)
        for spread, side in zip(spreads, sides, strict=True)
    ]
    variance = sum(part for part, _ in parts)
    mean = float(by_problem.mean())
    if variance == 0.0:
        # Every seed gave every problem alike.
        return Estimate(mean=mean, interval=(mean, mean), p_value=None, seed_spread=0.0)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    reach = t_quantile((1.0 + confidence) / 2, freedom) * sqrt(variance)
    least = -1.0 if second is not None else 0.0
    return Estimate(
        mean=mean,
        interval=(max(least, mean - reach), min(1.0, mean + reach)),
        p_value=None if second is None else two_sided_p(mean / sqrt(variance), freedom),
        seed_spread=sqrt(float(sum(spreads))),
    )
