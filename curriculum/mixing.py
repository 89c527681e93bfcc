"""Which accepted rows a phase takes, and in which order: draws that no order of work can change."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from curriculum.dedupe import Entry
from pipeline.errors import ConfigError
from pipeline.hashing import derive_seed

STAGE = "mix"

_LEVELS = {
    "unknown": 50,
    "easy": 10,
    "introductory": 10,
    "medium": 30,
    "medium_hard": 40,
    "interview": 40,
    "hard": 60,
    "competition": 70,
    "very_hard": 80,
    "ajhsme": 5,
    "amc8": 5,
    "amc10": 15,
    "ahsme": 25,
    "amc12": 25,
    "hmmt-nov": 45,
    "hmmt-feb": 55,
    "aime": 60,
    "usajmo": 75,
    "usamo": 85,
    "usojmo": 75,
    "usomo": 85,
}
"""Vocabularies of the sources on one scale from 0 to 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivor:
    """A row that every single-row rule accepted."""

    entry: Entry
    batch: int
    """Input batch it came in."""
    domain: str
    licence: str
    difficulty: str | None
    num_prompt_tokens: int

    @property
    def num_tokens(self) -> int:
        """Prompt plus completion."""
        return self.entry.num_tokens


def rank_difficulty(text: str | None) -> float:
    """A difficulty label on a scale from 0 (easiest) to 100; unknown ones sit in the middle."""
    label = (text or "").strip().lower().replace(" ", "_").removesuffix("_difficulty")
    if label in _LEVELS:
        return float(_LEVELS[label])
    rating = re.fullmatch(r"(?:cf-)?(\d{1,5})", label)
    if rating is None:
        return 50.0
    # Contest ratings run to 3500; the small integers of CodeContests are enumeration values.
    number = int(rating.group(1))
    return min(100.0, number / 35) if number >= 500 else 50.0


def draw_share(
    rows: Sequence[Survivor], share: float, *, seed: int, phase: str
) -> tuple[list[Survivor], list[Survivor]]:
    """Part a source's rows into (drawn, not drawn).

    Raises:
        ConfigError: The share of a source that has rows rounds to none.
    """
    if share >= 1 or not rows:
        return list(rows), []
    count = round(share * len(rows))
    if count == 0:
        raise ConfigError(
            f"phase {phase}: share {share} of {len(rows)} accepted rows rounds to 0 rows",
            hint="set a larger share, or drop the source from the phase",
        )
    ordered = sorted(rows, key=lambda row: _lot(seed, f"draw-phase-{phase}", row))
    return ordered[:count], ordered[count:]


def order_rows(
    rows: Sequence[Survivor],
    order: Literal["shuffled", "as-is", "difficulty"],
    *,
    seed: int,
    phase: str,
) -> list[Survivor]:
    """Rows in training order; equal difficulties are shuffled."""
    if order == "as-is":
        return sorted(rows, key=lambda row: row.entry.position)
    purpose = f"order-phase-{phase}"
    shuffled = sorted(rows, key=lambda row: _lot(seed, purpose, row))
    if order == "shuffled":
        return shuffled
    return sorted(shuffled, key=lambda row: rank_difficulty(row.difficulty))


def _lot(seed: int, purpose: str, row: Survivor) -> tuple[int, str, int]:
    return derive_seed(seed, purpose, row.entry.row_id), row.entry.row_id, row.entry.position
