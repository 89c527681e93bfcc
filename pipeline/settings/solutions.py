"""Settings of solutions and of their verification."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.settings.base import Settings
from pipeline.settings.concepts import Form


class SolutionSettings(Settings):
    """Long chain-of-thought answers."""

    teacher: str = "default"
    """Also writes the tests of code problems."""
    form: Form = "free"
    """Of the solutions and of the tests."""
    samples_per_problem: int = Field(4, ge=1)
    sampling: Literal["explicit", "recommended"] = "explicit"
    """``recommended``: what the teacher model's makers publish, from a table of known models; a
    model that is not in it stops the run. ``explicit``: the four values below."""
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    """0: off."""
    min_p: float = Field(0.0, ge=0, le=1)
    max_tokens: int = Field(16_384, ge=16)
    min_thinking_chars: int = Field(1, ge=1)


class VerificationSettings(Settings):
    """What makes a trace good enough to train on."""

    minimum_agreement: float = Field(0.5, ge=0, le=1)
    """Share of the samples asked for a problem that must agree with the trace: by answer (maths)
    or by passing all tests (code). A lower share confirms nothing."""
    maximum_agreement: float = Field(1.0, gt=0, le=1)
    """Upper end of the target band: problems that more samples solve are too easy."""
    minimum_votes: int = Field(2, ge=1)
    """Maths: samples with an answer, for one of these to have a majority. Code: sampled programs
    that print an output, for it to be expected."""
    traces_per_problem: int = Field(0, ge=0)
    """Traces kept of one problem, those with the fewest tokens first; 0 keeps all."""
    code_tests: int = Field(2, ge=0)
    """Code: tests the teacher writes per problem."""
    expected_outputs: Literal["majority", "teacher"] = "majority"
    """Code: who says what a test's right output is: ``majority``, the most frequent output of the
    problem's sampled programs, by at least ``minimum_votes`` of them and more than any other (a
    test without one is dropped); or ``teacher``, who wrote the test (PromptCoT 2.0's scripts)."""
    keep_unverified: bool = False
    """Relaxed gate: keep well-formed traces that nothing confirmed and nothing contradicted (no
    majority among the answers, no test to run or none that could tell programs apart), marked
    ``unverified``."""
    test_max_tokens: int = Field(2048, ge=16)
    """Length of a reply that holds one test."""
    test_timeout_s: float = Field(6.0, gt=0)
    """CPU time of one program on one test, seconds."""
    test_memory_mib: int = Field(1024, ge=64)
    """Address space of one program."""
    answer_timeout_s: float = Field(5.0, gt=0)
    """Processor time of comparing two answers, seconds, rounded up; what takes longer is unequal.
    Its memory is limited to 1 GiB."""

    @model_validator(mode="after")
    def _band_is_open(self) -> VerificationSettings:
        if self.minimum_agreement > self.maximum_agreement:
            raise ValueError("minimum_agreement is above maximum_agreement")
        return self
