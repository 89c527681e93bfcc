"""Settings of the curriculum's phases: which rows, how many, in which order."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.settings.base import Settings


class PhaseSource(Settings):
    """How much of one source a phase takes."""

    source: str
    share: float = Field(1.0, gt=0, le=1)
    """Fraction of the source's accepted rows, drawn by the phase's seed."""


class PhaseSettings(Settings):
    """One phase of the curriculum."""

    sources: tuple[PhaseSource, ...]
    max_tokens: int = Field(ge=32)
    """Longest prompt plus completion; longer rows are rejected, never cut."""
    order: Literal["shuffled", "as-is", "difficulty"] = "shuffled"
    allowed_licences: tuple[str, ...] = ()
    """Empty allows all; otherwise another licence refuses the build (exit 3)."""
