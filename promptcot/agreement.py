"""How far judges agree: Cohen's κ for two, Fleiss' κ for many votes, each with an interval.

Everything is computed from counts, so memory does not grow with the problems and the same counts
give the same figures. The intervals of κ are analytic: the variance of its influence over items
(the delta method, which for two raters is the formula of Fleiss, Cohen and Everitt, 1969). Where
chance cannot be told from agreement κ is left out and the reason said in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_Z = 1.959963984540054
"""Of a 95 % interval."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement over some items, with 95 % intervals."""

    num_items: int
    observed: float | None = None
    """Share of pairs of votes on one item that agree; none without items."""
    observed_interval: Interval | None = None
    by_chance: float | None = None
    """What the votes' overall shares alone would give."""
    kappa: float | None = None
    kappa_interval: Interval | None = None
    note: str = ""
    """Why a figure is missing, or what limits it."""

    def as_json(self) -> dict[str, Any]:
        """JSON-ready, rounded to what the counts can carry."""
        return {
            "num_items": self.num_items,
            "observed": _rounded(self.observed),
            "observed_interval": _rounded_pair(self.observed_interval),
            "by_chance": _rounded(self.by_chance),
            "kappa": _rounded(self.kappa),
            "kappa_interval": _rounded_pair(self.kappa_interval),
            "note": self.note,
        }

    def describe(self) -> str:
        """One line for people."""
        if self.observed is None:
            return self.note
        text = f"agree on {self.observed:.1%} of {self.num_items:,}"
        if self.kappa is None or self.kappa_interval is None:
            return f"{text}; {self.note}"
        low, high = self.kappa_interval
        return f"{text}, κ = {self.kappa:.2f} ({low:.2f} to {high:.2f})"


def wilson_interval(share: float, total: int) -> Interval:
    """Wilson's 95 % interval of a share of ``total`` trials.

    It stays inside 0 to 1 and has a width even at a share of 0 or 1.
    """
    if total <= 0:
        return (0.0, 1.0)
    spread = _Z * _Z / total
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(max(share * (1 - share), 0.0) * spread + spread * spread / 4) / (1 + spread)
    return (max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share)))


def cohen_kappa(table: Sequence[Sequence[int]]) -> Agreement:
    """Cohen's κ of two raters.

    Args:
        table: Items by the first rater's category (row) and the second's (column).
    """
    total = sum(map(sum, table))
    if total == 0:
        return _nothing()
    rows = [sum(row) / total for row in table]
    columns = [sum(column) / total for column in zip(*table, strict=True)]
    items = [
        # Each item's own agreement, and twice what its two categories add to chance.
        (count, float(i == j), columns[i] + rows[j])
        for i, row in enumerate(table)
        for j, count in enumerate(row)
        if count
    ]
    by_chance = sum(r * c for r, c in zip(rows, columns, strict=True))
    return _summarise(items, by_chance)


def fleiss_kappa(profiles: Mapping[Sequence[int], int]) -> Agreement:
    """Fleiss' κ of a constant number of votes on each item.

    Args:
        profiles: How the votes on an item fall into the categories → number of such items.

    Raises:
        ValueError: Items have different numbers of votes, or fewer than two.
    """
    present = {tuple(profile): count for profile, count in profiles.items() if count}
    if not present:
        return _nothing()
    sizes = {sum(profile) for profile in present}
    if len(sizes) != 1 or min(sizes) < 2:
        raise ValueError(f"every item needs the same number of votes, two or more: {sizes}")
    (num_votes,) = sizes
    total = sum(present.values())
    width = max(map(len, present))
    shares = [
        sum(profile[j] * count for profile, count in present.items()) / (total * num_votes)
        for j in range(width)
    ]
    items = [
        (
            count,
            sum(n * (n - 1) for n in profile) / (num_votes * (num_votes - 1)),
            2 * sum(share * n / num_votes for share, n in zip(shares, profile, strict=True)),
        )
        for profile, count in present.items()
    ]
    return _summarise(items, sum(share * share for share in shares))


def _nothing() -> Agreement:
    return Agreement(num_items=0, note="no item has votes that can be compared")


def _summarise(items: Sequence[tuple[int, float, float]], by_chance: float) -> Agreement:
    """κ and its interval from (number of items, own agreement, own influence on chance)."""
    total = sum(count for count, _, _ in items)
    observed = sum(count * own for count, own, _ in items) / total
    known: dict[str, Any] = {
        "num_items": total,
        "observed": observed,
        # Own agreement lies between 0 and 1, so a share of yes-or-no items varies at least as much.
        "observed_interval": wilson_interval(observed, total),
        "by_chance": by_chance,
    }
    room = 1 - by_chance
    if room < 1e-12:
        note = "every vote is the same, so agreement cannot be told from chance (no κ)"
        return Agreement(**known, note=note)
    kappa = (observed - by_chance) / room
    variance = sum(
        count
        * ((own - observed) / room - (1 - observed) / room**2 * (influence - 2 * by_chance)) ** 2
        for count, own, influence in items
    )
    error = math.sqrt(variance) / total
    low, high = kappa - _Z * error, kappa + _Z * error
    note = ""
    if error < 1e-12:
        # Without any disagreement the variance is zero; the share's own interval is not.
        low, high = ((end - by_chance) / room for end in known["observed_interval"])
        note = "no variation between items: the interval is that of the raw agreement"
    return Agreement(
        **known, kappa=kappa, kappa_interval=(max(-1.0, low), min(1.0, high)), note=note
    )


def each_pair(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """All unordered pairs, in order."""
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            yield first, second


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _rounded_pair(pair: Interval | None) -> list[float] | None:
    return None if pair is None else [round(end, 6) for end in pair]
