"""The records that pass between stages: pydantic at the edges, Arrow on disk.

Every field is documented in ``docs/data-model.md``; a test holds that page against these models.
"""

from __future__ import annotations

import types
from enum import StrEnum
from typing import Any, Literal, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

Domain = Literal["math", "code", "other"]
FinishReason = Literal["stop", "length", "error"]


class Rating(StrEnum):
    """A judge's rating of one criterion; also the verdict's vocabulary."""

    PERFECT = "perfect"
    ACCEPTABLE = "acceptable"
    BAD = "bad"


class Record(BaseModel):
    """Base of all records: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Concept(Record):
    """One entry of the concept bank: a canonical name and the spellings merged into it."""

    name: str = Field(min_length=1)
    domain: Domain
    frequency: int
    aliases: list[str] = Field(default_factory=list)


class Seed(Record):
    """A seed: the concepts of one problem that a person (or a teacher) worked out together."""

    concepts: list[str] = Field(min_length=2)
    domain: Domain
    level: str
    problem: str | None = None
    rationale: str | None = None
    answer: str | None = None
    source: str = ""
    source_id: str = ""
    licence: str = ""
    teacher: str | None = None
    prompt_hash: str | None = None


class Triple(Record):
    """Concepts, rationale and problem as one example to fine-tune a generator on (TRL's form)."""

    prompt: str
    completion: str
    concepts: list[str]
    level: str
    domain: Domain
    rationale: str
    problem: str
    source: str = ""
    source_id: str = ""
    licence: str = ""
    teacher: str
    prompt_hash: str
    seed: int
    score: float | None = None
    mean_score: float | None = None
    num_candidates: int = 1


class ConceptCombination(Record):
    """What one problem is to be made from."""

    id: str
    concepts: list[str]
    domain: Domain
    level: str


class Problem(Record):
    """A synthesised problem with the rationale that led to it (PromptCoT 1.0, section 3)."""

    id: str
    combination_id: str
    concepts: list[str]
    level: str
    domain: Domain
    rationale: str
    statement: str
    teacher: str
    prompt_hash: str
    seed: int


class Judgement(Record):
    """One judge's five ratings of one problem; the verdict is recomputed from the ratings."""

    problem_id: str
    judge: str
    format: Rating
    factual_accuracy: Rating
    difficulty_alignment: Rating
    concept_coverage: Rating
    solvability: Rating
    verdict: Rating
    stated_verdict: Rating | None = None
    reasons: list[str] = Field(default_factory=list)
    model: str
    vote: int
    prompt_hash: str
    seed: int


class JudgedProblem(Record):
    """A problem that passed its judges, with all judgements."""

    problem: Problem
    judgements: list[Judgement]


class Solution(Record):
    """One sampled long chain-of-thought answer to a problem."""

    id: str
    problem: Problem
    judgements: list[Judgement]
    thinking: str
    answer: str
    finish_reason: FinishReason
    teacher: str
    temperature: float
    top_p: float
    prompt_hash: str
    seed: int
    num_prompt_tokens: int
    num_completion_tokens: int


class ProgramTest(Record):
    """One test of a program that reads standard input, and how sure its output is."""

    input: str
    output: str
    votes: int
    stated_output: str
    prompt_hash: str
    seed: int


class VerifiedTrace(Record):
    """A solution that verification accepted; the row that synthesis hands to the curriculum."""

    solution: Solution
    final_answer: str
    agreement: float
    num_samples: int
    method: Literal["majority", "tests", "unverified"]
    tests: list[ProgramTest]


class Message(Record):
    """One chat turn, in TRL's conversational form."""

    role: Literal["system", "user", "assistant"]
    content: str


class Provenance(Record):
    """Where a training row's text came from."""

    teacher: str | None = None
    prompt_hash: str | None = None
    seed: int | None = None
    concepts: list[str] = Field(default_factory=list)
    level: str | None = None
    verdicts: list[str] = Field(default_factory=list)
    agreement: float | None = None
    source_row: str | None = None
    source_dataset: str | None = None
    source_split: str | None = None
    source_file: str | None = None
    source_position: int | None = None


class TrainingRow(Record):
    """One supervised example, readable by TRL as conversational prompt-completion."""

    id: str
    prompt: list[Message]
    completion: list[Message]
    question: str
    source: str
    source_revision: str
    source_id: str
    licence: str
    domain: Domain
    difficulty: str | None
    num_prompt_tokens: int
    num_completion_tokens: int
    num_tokens: int
    provenance: Provenance


class Rejected(Record):
    """A row that a stage refused: data, never an exception."""

    row_id: str
    stage: str
    reason: str
    detail: str
    text: str = ""
    source: str | None = None
    source_file: str | None = None
    source_position: int | None = None


def arrow_schema(model: type[BaseModel]) -> pa.Schema:
    """Arrow schema of a record: scalars, lists and structs; unions with None are nullable."""
    return pa.schema(
        [
            pa.field(name, *_arrow_type(field.annotation))
            for name, field in model.model_fields.items()
        ]
    )


_SCALARS: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
}


def _arrow_type(annotation: Any) -> tuple[pa.DataType, bool]:
    """Arrow type and nullability of one annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        inner = [a for a in arguments if a is not type(None)]
        if len(inner) != 1:
            raise TypeError(f"no Arrow type for {annotation}")
        return _arrow_type(inner[0])[0], True
    if origin is list:
        return pa.list_(_arrow_type(arguments[0])[0]), False
    if origin is Literal:
        return pa.string(), False
    if annotation in _SCALARS:
        return _SCALARS[annotation], False
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return pa.string(), False
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(list(arrow_schema(annotation))), False
    raise TypeError(f"no Arrow type for {annotation}")
