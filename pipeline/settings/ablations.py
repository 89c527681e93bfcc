"""Settings of ablations: how training departs from the recipe, and over which seeds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.settings.base import Settings
from pipeline.settings.curriculum import CurriculumSettings

Matching = Literal["none", "steps", "tokens"]
FULL = "full"
"""Name of the recipe itself among its ablations."""


class AblationData(Settings):
    """What is trained on."""

    phases: tuple[str, ...] = ()
    """Phases that are trained, in order; empty: all that the recipe has."""
    data: dict[str, str] = Field(default_factory=dict)
    """Phase to the curriculum variant that it trains on; other phases train as the recipe says."""


class AblationVariant(AblationData):
    """``[ablations.variants.NAME]``: one departure from the recipe."""

    title: str = ""
    paper: str = ""
    """Key of the paper's ablation that this repeats, in ``evaluation/data/paper_results.toml``."""
    matched: AblationData | None = None
    """What is trained instead when steps or tokens are matched. A variant that leaves out a whole
    phase needs it: something else must fill that phase's steps."""

    def resolve(self, matching: Matching) -> AblationData:
        """What is trained on."""
        return self if matching == "none" or self.matched is None else self.matched


class AblationSettings(Settings):
    """``[ablations]`` of a recipe."""

    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """0 is the recipe as it stands. Others add to the seeds of training and of sampling, and
    shuffle the rows of each epoch anew where the dataset is in shuffled order anyway."""
    matched: Matching = "none"
    """Whether a variant's phases take as many optimiser steps, or training tokens, as the
    recipe's."""
    variants: dict[str, AblationVariant] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _named(self) -> AblationSettings:
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds are different numbers from 0, got {list(self.seeds)}")
        for name in self.variants:
            if name == FULL or not name.replace("-", "").isalnum() or name != name.lower():
                raise ValueError(
                    f"ablation {name!r}: use lower-case letters, digits and hyphens, not {FULL!r}"
                )
        return self

    def check(self, curriculum: CurriculumSettings) -> None:
        """Hold every phase and dataset named here against the curriculum.

        Raises:
            ValueError: One of them does not exist.
        """
        for name, variant in self.variants.items():
            for data in (variant, variant.matched or AblationData()):
                for phase in (*data.phases, *data.data):
                    if phase not in curriculum.phases:
                        raise ValueError(
                            f"ablation {name} names phase {phase!r}; the curriculum has "
                            f"{sorted(curriculum.phases)}"
                        )
                for phase, dataset in data.data.items():
                    known = sorted(curriculum.phases[phase].variants)
                    if dataset not in known:
                        raise ValueError(
                            f"ablation {name} wants variant {dataset!r} of phase {phase}; it has "
                            f"{known}"
                        )
