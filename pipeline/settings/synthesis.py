"""Settings of PromptCoT synthesis, stage by stage.

Sampling, problems and the verdict rule default to PromptCoT 1.0. The number of judges (two models
there), solutions and their verification (unpublished, or absent there) are this project's choice.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.records import Domain
from pipeline.settings.base import Settings, execution_only

MATH_LEVELS = ("AMC12", "HMMT-Nov", "HMMT-Feb", "AIME", "USAJMO", "USAMO", "USOJMO", "USOMO")
"""The eight levels the original samples from uniformly."""
CODE_LEVELS = ("CF-1200", "CF-1600", "CF-2000", "CF-2400")
"""Ours: Codeforces-style rating bands, for the code domain that 1.0 does not have."""


Form = Literal["free", "constrained"]
"""How a teacher is asked to write. ``free``: marked sections, for any capable model, reasoning ones
included. ``constrained``: short headings that the engine enforces while it generates, which even a
135M model keeps; where the engine cannot enforce a form, ``free`` is used and the run says so."""


class CombinationSettings(Settings):
    """Which concepts and level each problem is made from."""

    num_combinations: int = Field(256_000, ge=1)
    size: int = Field(5, ge=2)
    """Concepts in one combination."""
    temperature: float = Field(0.2, gt=0)
    """Of the softmax over co-occurrence plus cosine similarity."""
    math_share: float = Field(1.0, ge=0, le=1)
    """Share of combinations from the maths bank; the rest is code."""
    math_levels: tuple[str, ...] = MATH_LEVELS
    code_levels: tuple[str, ...] = CODE_LEVELS


class ProblemSettings(Settings):
    """Rationale and problem from a combination."""

    teacher: str = "default"
    form: Form = "free"
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


class JudgeSettings(Settings):
    """One judge."""

    teacher: str = "default"
    votes: int = Field(1, ge=1)
    """Replies asked of this judge per problem."""


class JudgingSettings(Settings):
    """Five criteria, verdict recomputed from the ratings."""

    judges: tuple[JudgeSettings, ...] = Field((JudgeSettings(),), min_length=1)
    form: Form = "free"
    temperature: float = Field(0.6, ge=0)
    max_tokens: int = Field(2048, ge=16)
    aggregation: Literal["unanimous", "lenient"] = "unanimous"
    """``unanimous``: every vote reaches ``minimum_verdict``; ``lenient``: at least one perfect and
    none bad."""
    minimum_verdict: Literal["perfect", "acceptable", "bad"] = "perfect"
    """The paper keeps ``perfect`` only; lower values relax the gate and are reported."""


class SolutionSettings(Settings):
    """Long chain-of-thought answers."""

    teacher: str = "default"
    """Also writes the tests of code problems."""
    form: Form = "free"
    """Of the solutions and of the tests."""
    samples_per_problem: int = Field(4, ge=1)
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_tokens: int = Field(16_384, ge=16)
    min_thinking_chars: int = Field(1, ge=1)


class VerificationSettings(Settings):
    """What makes a trace good enough to train on."""

    minimum_agreement: float = Field(0.5, ge=0, le=1)
    """Maths: share of the samples asked for a problem that must agree with the trace's answer."""
    minimum_votes: int = Field(2, ge=1)
    """Maths: samples with an answer that a majority needs."""
    code_tests: int = Field(2, ge=0)
    """Code: tests the teacher writes per problem."""
    keep_unverified: bool = False
    """Relaxed gate: keep well-formed traces that nothing confirmed and nothing contradicted (no
    majority among the answers, no test to run), marked ``unverified``."""
    test_max_tokens: int = Field(2048, ge=16)
    """Length of a reply that holds one test."""
    test_timeout_s: float = Field(6.0, gt=0)
    """CPU time of one problem's tests, seconds."""


class SynthesisSettings(Settings):
    """``[synthesis]`` of a recipe."""

    bank: str = "../promptcot/data/seeds.jsonl"
    """JSONL of seeds (concepts, domain, level, …), relative to the recipe."""
    batch_size: int = Field(64, ge=1)
    """Rows of one unit of work and of resume."""
    min_rows: int = Field(1, ge=0)
    """Accepted rows below which a stage refuses (exit 3)."""
    domains: tuple[Domain, ...] = ("math", "code")
    num_workers: int = execution_only(2, ge=1)
    """Processes that check answers and run code."""
    combinations: CombinationSettings = CombinationSettings()
    problems: ProblemSettings = ProblemSettings()
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
