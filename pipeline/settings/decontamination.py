"""Settings of the search for benchmark items."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings.base import Settings
from pipeline.settings.concepts import EncoderSettings


class SemanticSettings(Settings):
    """Items told so differently that no rule sees them: nearest by embedding, then asked about."""

    enabled: bool = False
    teacher: str = "default"
    """The recipe's teacher that says whether two problems are the same; only a clear no clears."""
    encoder: EncoderSettings = EncoderSettings()
    """What embeds questions and items; ``ngrams`` sees spelling alone."""
    nearest: int = Field(3, ge=1)
    """Items that a row's question is compared with at most."""
    min_cosine: float = Field(0.5, ge=-1, le=1)
    """Likeness below which nobody is asked; each encoder has a scale of its own."""


class DecontaminationSettings(Settings):
    """When a row counts as a benchmark item (docs/design.md explains the rule)."""

    enabled: bool = True
    ngram: int = Field(5, ge=2)
    min_coverage: float = Field(0.6, gt=0, le=1)
    """Share of the item's n-grams found in the row."""
    short_words: int = Field(8, ge=1)
    """Items with fewer words are matched whole."""
    min_ratio: float = Field(90.0, gt=0, le=100)
    """Character similarity (with equal numbers and the same last sentence)."""
    find_rewordings: bool = True
    """Also find items told in other words, by the words, numbers and formulas that both share."""
    drop_twins: bool = False
    """Refuse template twins too: the item with other numbers or another final question."""
    thinking_chars: int = Field(2000, ge=0)
    """How much of the reasoning is searched too."""
    semantic: SemanticSettings = SemanticSettings()
