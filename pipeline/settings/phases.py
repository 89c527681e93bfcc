"""Settings of the curriculum's phases: which rows, how many, in which order."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from pipeline.errors import ConfigError
from pipeline.records import Domain
from pipeline.settings.base import Settings

Order = Literal["shuffled", "as-is", "difficulty", "length"]


class PhaseSource(Settings):
    """How much of one source a phase takes: a share of its rows, or a weight in the mix."""

    source: str
    share: float = Field(1.0, gt=0, le=1000)
    """Part of the source's accepted rows (or tokens, see ``mix_by``), drawn by the phase's seed.
    Over 1 repeats rows: 2.5 takes each twice and half of them a third time."""
    weight: float | None = Field(None, gt=0)
    """The source's part of the phase, relative to the other weights. Without ``size``, the phase
    is as large as the scarcest source allows."""
    max_repeats: float = Field(1.0, ge=1, le=1000)
    """How often a row may occur for its source to reach its weight."""
    cap_rows: int | None = Field(None, ge=1)
    """Most rows taken, copies counted."""
    cap_tokens: int | None = Field(None, ge=1)
    """Most tokens taken, copies counted."""
    domains: tuple[Domain, ...] = ()
    """Domains taken from this source; empty takes what the phase takes."""

    @model_validator(mode="after")
    def _one_way(self) -> PhaseSource:
        if self.weight is not None and self.share != 1.0:
            raise ValueError(f"source {self.source}: give a share or a weight, not both")
        if self.weight is None and self.max_repeats != 1.0:
            raise ValueError(f"source {self.source}: max_repeats belongs to a weight; use share")
        return self


class Replay(Settings):
    """Rows of another phase, mixed in against forgetting."""

    phase: str = "1"
    ratio: float = Field(ge=0, lt=1)
    """Part of this phase's rows (or tokens, see ``mix_by``) that the other phase chose; 0 is
    none. They come on top of what the sources give."""


class _PhaseFields(Settings):
    """What a phase and its variants can say."""

    sources: tuple[PhaseSource, ...] = ()
    max_tokens: int = Field(32, ge=32)
    """Longest prompt plus completion; longer rows are rejected, never cut."""
    mix_by: Literal["rows", "tokens"] = "rows"
    """What shares, weights, ``size`` and the replay ratio count."""
    size: int | None = Field(None, ge=1)
    """Rows or tokens of the phase before replay; needs weights."""
    domains: tuple[Domain, ...] = ()
    """Domains that the phase takes; empty takes all."""
    order: Order = "shuffled"
    """``difficulty`` and ``length`` go from easy or short to hard or long, equal rows shuffled;
    ``as-is`` is the order of the sources."""
    replay: Replay | None = None
    distinct_from: tuple[str, ...] = ()
    """Phases whose questions this one must not hold."""
    allowed_licences: tuple[str, ...] = ()
    """Empty allows all; otherwise another licence refuses the build (exit 3)."""


class PhaseVariant(_PhaseFields):
    """An ablation: what is written here replaces what the phase says, the rest stays."""

    without: tuple[str, ...] = ()
    """Sources left out."""


class PhaseSettings(_PhaseFields):
    """One phase of the curriculum."""

    max_tokens: int = Field(ge=32)
    """Longest prompt plus completion; longer rows are rejected, never cut."""
    variants: dict[str, PhaseVariant] = Field(default_factory=dict)
    """By name, for ``--variant``. A variant is a dataset of its own and renames no other."""

    @model_validator(mode="after")
    def _consistent(self) -> PhaseSettings:
        names = [entry.source for entry in self.sources]
        if len(set(names)) != len(names):
            raise ValueError(f"a phase names each source once, got {names}")
        weights = [entry.weight for entry in self.sources if entry.weight is not None]
        if weights and len(weights) < len(names):
            raise ValueError("give every source of the phase a weight, or none")
        if self.size is not None and not weights:
            raise ValueError("size is divided by weights: give every source a weight")
        if len(weights) == 1 and self.size is None:
            raise ValueError("the weight of an only source changes nothing: use share or size")
        for name, variant in self.variants.items():
            if not _is_slug(name):
                raise ValueError(f"variant {name!r}: use lower-case letters, digits and hyphens")
            for source in variant.without:
                if source not in names:
                    raise ValueError(f"variant {name}: no source {source!r} among {names}")
            self.resolve(name)
        return self

    def resolve(self, variant: str | None = None) -> PhaseSettings:
        """The phase as it is built: with a variant's changes, and without the list of variants.

        Raises:
            ConfigError: There is no such variant, or it leaves a phase that makes no sense.
        """
        values = self.model_dump(exclude={"variants"})
        if variant is not None:
            if variant not in self.variants:
                known = ", ".join(sorted(self.variants)) or "none"
                raise ConfigError(
                    f"no variant {variant!r} (the phase has: {known})",
                    hint="add [curriculum.phases.N.variants.NAME], or pass another --variant",
                )
            values |= _changes(self.variants[variant])
            without = self.variants[variant].without
            values["sources"] = [s for s in values["sources"] if s["source"] not in without]
            if without and len(values["sources"]) == 1 and values["size"] is None:
                # Nothing is left to weigh it against: what remains is taken whole.
                values["sources"][0] |= {"weight": None, "max_repeats": 1.0}
        try:
            return PhaseSettings.model_validate(values)
        except ValidationError as exc:
            raise ConfigError(
                f"variant {variant!r} of a phase: {exc.errors()[0]['msg']}",
                hint="correct the variant's settings",
            ) from exc


def _changes(variant: PhaseVariant) -> dict[str, Any]:
    """What the variant's author wrote."""
    return variant.model_dump(include=set(variant.model_fields_set) - {"without"})


def _is_slug(name: str) -> bool:
    return (
        bool(name) and name == name.lower() and name.replace("-", "").isalnum() and name.isascii()
    )
