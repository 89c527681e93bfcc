"""How much of each source a phase takes, and which rows: shares, weights, caps, repeats.

Amounts are counted in rows or in tokens. What rounding would undo is refused, so that a share or a
weight that a recipe states always shows in the rows that come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curriculum.features import Rows
from pipeline.errors import ConfigError
from pipeline.settings.phases import PhaseSettings, PhaseSource

_EXACT = 1e-9
"""Relative difference below which an amount counts as met exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """The rows of one source that a phase may take, in the order of their lots."""

    entry: PhaseSource
    rows: Rows
    tokens: npt.NDArray[np.int64]

    def sizes(self, unit: str) -> npt.NDArray[np.int64]:
        """Each row's size in the unit of the mix."""
        return self.tokens if unit == "tokens" else np.ones(len(self.rows), np.int64)


@dataclass(frozen=True, slots=True)
class Draw:
    """So many whole passes over a supply, then a beginning of it."""

    passes: int
    prefix: int

    def expand(self, rows: Rows) -> tuple[Rows, Rows]:
        """The rows drawn, and the number of each one's copy (0 is the original)."""
        counts = [len(rows)] * self.passes + [self.prefix]
        drawn = np.concatenate([rows[:count] for count in counts])
        return drawn, np.repeat(np.arange(self.passes + 1), counts)

    def amount(self, sizes: npt.NDArray[np.int64]) -> int:
        """The size of what is drawn."""
        return self.passes * int(sizes.sum()) + int(sizes[: self.prefix].sum())

    @property
    def is_empty(self) -> bool:
        """Whether nothing is drawn."""
        return self.passes == 0 and self.prefix == 0

    @property
    def is_whole(self) -> bool:
        """Whether each row is drawn equally often, at least once."""
        return self.passes > 0 and self.prefix == 0


def draw_sources(supplies: Sequence[Supply], settings: PhaseSettings, phase: str) -> list[Draw]:
    """What to take of each source.

    Raises:
        ConfigError: A share, weight or cap leaves nothing, or rounds to no effect; or a source
            cannot reach its part.
    """
    if any(supply.entry.weight is not None for supply in supplies):
        return _draw_by_weight(supplies, settings, phase)
    return [_draw_share(supply, settings.mix_by, phase) for supply in supplies]


def draw_amount(sizes: npt.NDArray[np.int64], target: float) -> Draw:
    """The draw whose amount is nearest to the target; of two equally near ones the larger."""
    total = int(sizes.sum())
    if total == 0 or target <= 0:
        return Draw(0, 0)
    passes = int(target * (1 + _EXACT) // total)
    rest = max(0.0, target - passes * total)
    reached = np.cumsum(sizes)
    prefix = int(np.searchsorted(reached, rest * (1 - _EXACT)))
    before = int(reached[prefix - 1]) if prefix else 0
    if prefix < len(sizes) and int(reached[prefix]) - rest <= (rest - before) * (1 + _EXACT):
        prefix += rest > 0
    return Draw(passes + 1, 0) if prefix == len(sizes) else Draw(passes, int(prefix))


def _draw_share(supply: Supply, unit: str, phase: str) -> Draw:
    entry, sizes = supply.entry, supply.sizes(unit)
    if not len(sizes):
        return Draw(0, 0)
    draw = draw_amount(sizes, entry.share * int(sizes.sum()))
    if entry.share != int(entry.share) and (draw.is_empty or draw.is_whole):
        came_to = "no rows" if draw.is_empty else f"{draw.passes} times all rows"
        raise ConfigError(
            f"phase {phase}: share {entry.share:g} of the {len(sizes):,} accepted rows of source "
            f"{entry.source!r} rounds to {came_to}",
            hint="set a share that takes at least one row more or less, or drop it",
        )
    return _apply_caps(supply, draw, phase)


def _draw_by_weight(supplies: Sequence[Supply], settings: PhaseSettings, phase: str) -> list[Draw]:
    unit = settings.mix_by
    capacities = [_capacity(supply, unit, phase) for supply in supplies]
    weights = [supply.entry.weight or 0.0 for supply in supplies]
    if settings.size is None:
        scale = min(c / w for c, w in zip(capacities, weights, strict=True))
        targets = [min(scale * w, c) for c, w in zip(capacities, weights, strict=True)]
    else:
        targets = [settings.size * w / sum(weights) for w in weights]
    draws, is_exact = [], True
    for supply, target, capacity in zip(supplies, targets, capacities, strict=True):
        if target > capacity * (1 + _EXACT):
            raise ConfigError(
                f"phase {phase}: size {settings.size:,} {unit} needs {target:,.0f} of source "
                f"{supply.entry.source!r}, which can give {capacity:,}",
                hint="lower size or this weight, raise max_repeats or the cap, or add rows",
            )
        sizes = supply.sizes(unit)
        draw = _apply_caps(supply, draw_amount(sizes, target), phase)
        if draw.is_empty:
            raise ConfigError(
                f"phase {phase}: weight {supply.entry.weight:g} of source "
                f"{supply.entry.source!r} rounds to no rows ({target:g} {unit} wanted)",
                hint="raise its weight or the phase's size, or drop the source",
            )
        is_exact = is_exact and abs(target - int(sizes.sum())) <= _EXACT * target
        draws.append(draw)
    if not is_exact and all(draw == Draw(1, 0) for draw in draws):
        raise ConfigError(
            f"phase {phase}: the weights round to no effect: every source is taken whole, as it "
            "would be without them",
            hint="set weights further apart, or drop them",
        )
    return draws


def _capacity(supply: Supply, unit: str, phase: str) -> int:
    """The most that a source can give, in the unit of the mix."""
    entry, sizes = supply.entry, supply.sizes(unit)
    if not len(sizes):
        raise ConfigError(
            f"phase {phase}: source {entry.source!r} has a weight but no accepted rows to take",
            hint="drop the source, or look at its rejections with `python -m curriculum ingest`",
        )
    most = draw_amount(sizes, entry.max_repeats * int(sizes.sum()))
    return _apply_caps(supply, most, phase).amount(sizes)


def _apply_caps(supply: Supply, draw: Draw, phase: str) -> Draw:
    """The longest beginning of a draw that stays within the source's caps."""
    entry = supply.entry
    caps = (("rows", entry.cap_rows), ("tokens", entry.cap_tokens))
    for unit, cap in caps:
        sizes = supply.sizes(unit)
        if cap is None or draw.is_empty or draw.amount(sizes) <= cap:
            continue
        passes, rest = divmod(cap, int(sizes.sum()))
        prefix = int(np.searchsorted(np.cumsum(sizes), rest, side="right"))
        draw = Draw(passes, prefix)
        if draw.is_empty:
            raise ConfigError(
                f"phase {phase}: cap_{unit} {cap:,} of source {entry.source!r} is less than its "
                f"first row needs ({int(sizes[0]):,})",
                hint="raise the cap, or drop the source",
            )
    return draw
