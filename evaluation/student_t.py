"""Student's t distribution, for intervals and tests with few problems or few seeds.

The distribution function is a regularised incomplete beta function, evaluated by its continued
fraction (Numerical Recipes, section 6.4); checked against tabled quantiles in the tests.
"""

from __future__ import annotations

from math import exp, inf, lgamma, log
from statistics import NormalDist

_TINY = 1e-300
_MOST_TERMS = 300
_MANY = 1e6
"""Degrees of freedom from which the normal distribution is the same to six digits."""


def two_sided_p(statistic: float, freedom: float) -> float:
    """Chance of a t at least as far from 0 as this one.

    Args:
        statistic: Estimate over its standard error.
        freedom: Degrees of freedom, over 0; need not be whole.
    """
    if freedom >= _MANY:
        return 2.0 * NormalDist().cdf(-abs(statistic))
    return _incomplete_beta(freedom / (freedom + statistic * statistic), freedom / 2, 0.5)


def t_quantile(probability: float, freedom: float) -> float:
    """The t below which this share of the distribution lies, by bisection.

    Args:
        probability: Between 0 and 1, without both.
        freedom: Degrees of freedom, over 0.
    """
    if probability < 0.5:
        return -t_quantile(1.0 - probability, freedom)
    wanted = 2.0 * (1.0 - probability)
    low, high = 0.0, 1.0
    while two_sided_p(high, freedom) > wanted and high < inf:
        high *= 2.0
    for _ in range(80):
        middle = (low + high) / 2
        if two_sided_p(middle, freedom) > wanted:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0.0 or x >= 1.0:
        return min(1.0, max(0.0, x))
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(1.0 - x))
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _continued_fraction(x, a, b) / a
    return 1.0 - front * _continued_fraction(1.0 - x, b, a) / b


def _continued_fraction(x: float, a: float, b: float) -> float:
    """Lentz's evaluation; converges in a few dozen terms for the x that it is called with."""
    c, d = 1.0, 1.0 / _apart_from_zero(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _apart_from_zero(1.0 + term * d)
            c = _apart_from_zero(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < 1e-14:
            break
    return value


def _apart_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
