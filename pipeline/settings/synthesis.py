"""Settings of PromptCoT synthesis, stage by stage.

Sampling, problems and the verdict rule default to PromptCoT 1.0. The number of judges (two models
there), solutions and their verification (unpublished, or absent there) are this project's choice.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.records import Domain
from pipeline.settings.base import Settings, execution_only
from pipeline.settings.concepts import (
    CODE_LEVELS,
    MATH_LEVELS,
    CombinationSettings,
    ConceptSettings,
    EncoderSettings,
    Form,
    SeedSourceSettings,
)
from pipeline.settings.judging import JudgeSettings, JudgingSettings
from pipeline.settings.refinement import (
    FitSettings,
    RefinementSettings,
    ScorerSettings,
    TripleSettings,
)
from pipeline.settings.solutions import SolutionSettings, VerificationSettings

__all__ = [
    "CODE_LEVELS",
    "MATH_LEVELS",
    "BudgetSettings",
    "CombinationSettings",
    "ConceptSettings",
    "DistinctSettings",
    "EncoderSettings",
    "FitSettings",
    "Form",
    "JudgeSettings",
    "JudgingSettings",
    "ProblemSettings",
    "RefinementSettings",
    "ScorerSettings",
    "SeedSourceSettings",
    "SolutionSettings",
    "SynthesisSettings",
    "TripleSettings",
    "VerificationSettings",
]


class ProblemSettings(Settings):
    """Rationale and problem from a combination."""

    teacher: str = "default"
    mode: Literal["prompted", "generator"] = "prompted"
    """``prompted``: an instruct model with few-shot seed triples. ``generator``: a model that was
    fine-tuned on triples, asked with exactly their prompt and no chat template."""
    form: Form = "free"
    """``prompted`` only."""
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(4096, ge=16)
    num_examples: int = Field(1, ge=0)
    """Seed triples shown as few-shot examples, chosen by shared concepts."""
    attempts: int = Field(1, ge=1)
    """Tries per combination; a further one only after a rejected reply."""
    min_statement_chars: int = Field(40, ge=1)
    max_statement_chars: int = Field(4000, ge=40)

    @model_validator(mode="after")
    def _some_length(self) -> ProblemSettings:
        if self.min_statement_chars > self.max_statement_chars:
            raise ValueError("min_statement_chars is above max_statement_chars")
        return self


class DistinctSettings(Settings):
    """Duplicates and benchmark items among the problems, removed before judges and solutions."""

    enabled: bool = True
    near_duplicate_jaccard: float = Field(0.7, gt=0, le=1)
    """Jaccard similarity of word 3-grams (numbers kept) from which two problems are one; 1 removes
    equal statements only."""
    decontaminate: bool = True
    """Against every ``[[benchmarks]]`` entry, by the rule of ``[curriculum.decontamination]``."""


class BudgetSettings(Settings):
    """Hard limits of what a run folder may spend on answers; 0 is no limit."""

    max_completion_tokens: int = execution_only(0, ge=0)
    max_usd: float = execution_only(0.0, ge=0)
    """Needs prices at the teachers."""
    max_hours: float = execution_only(0.0, ge=0)
    """Hours during which teachers were working, over all runs in this folder."""


class SynthesisSettings(Settings):
    """``[synthesis]`` of a recipe."""

    bank: str = "../promptcot/data/seeds.jsonl"
    """JSONL of seeds (concepts, domain, level, …), relative to the recipe. Used when ``seeds`` is
    empty."""
    seeds: tuple[SeedSourceSettings, ...] = ()
    """Files of problems from which the bank is made first (stage ``concepts``)."""
    batch_size: int = Field(96, ge=1)
    """Rows of one unit of work and of resume. Groups of the embedded engine are cut from a batch,
    so below ``teachers.NAME.group_size`` it works slower."""
    max_batches_in_flight: int = execution_only(0, ge=0)
    """Batches worked on at once; 0: as many as keep the stage's teacher full."""
    min_rows: int = Field(1, ge=0)
    """Accepted rows below which a stage refuses (exit 3)."""
    domains: tuple[Domain, ...] = ("math", "code")
    licence: str = Field("", pattern=r"^([a-z0-9][a-z0-9.-]*)?$")
    """Licence that you state for the verified traces, by its name on the Hub (``apache-2.0``). The
    card names the seeds' licences and the models beside it; empty states none."""
    num_workers: int = execution_only(2, ge=1)
    """Processes that check answers and run code."""
    budget: BudgetSettings = BudgetSettings()
    concepts: ConceptSettings = ConceptSettings()
    combinations: CombinationSettings = CombinationSettings()
    triples: TripleSettings = TripleSettings()
    problems: ProblemSettings = ProblemSettings()
    refinement: RefinementSettings = RefinementSettings()
    distinct: DistinctSettings = DistinctSettings()
    judging: JudgingSettings = JudgingSettings()
    solutions: SolutionSettings = SolutionSettings()
    verification: VerificationSettings = VerificationSettings()

    @model_validator(mode="after")
    def _domains_match_share(self) -> SynthesisSettings:
        share = self.combinations.math_share
        for domain, wanted in (("math", share > 0), ("code", share < 1)):
            if wanted and domain not in self.domains:
                raise ValueError(
                    f"combinations.math_share = {share} needs the domain {domain!r}, "
                    f"but domains = {list(self.domains)}"
                )
        return self
