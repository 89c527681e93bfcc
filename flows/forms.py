"""The ``config`` of a run's form: common settings in sections, each for one section of the recipe.

What is left empty stays as the recipe says. A section's field is a key of the recipe's section of
the same meaning, with its type and bounds (a test holds them equal), so that a filled-in form is
nothing but ``--set`` overrides. An unknown key is refused, by Prefect's form as well as here.

No discriminated unions and no free tables: Prefect draws those as a box for JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic_core import CoreSchema

from flows.catalog import AS_RECIPE
from pipeline.settings.concepts import Form
from pipeline.settings.training import Activation, Launcher, Packing, Precision


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of ``X | None`` as that of an X that may be left empty.

    Otherwise Prefect first asks by buttons which of the two types is meant, and shows a drop-down
    or a field for a number only then.
    """
    kept = {key: value for key, value in schema.items() if key != "anyOf"}
    for choice in schema.get("anyOf", []):
        if choice.get("type") != "null":
            kept |= choice
    if kept.get("default", 0) is None:
        del kept["default"]
    return kept


class _Part(BaseModel):
    # The text under a field is its help in the form.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The schema of a form: every field may be empty, and none is null."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        schema["properties"] = {
            name: _without_null(field) for name, field in schema["properties"].items()
        }
        return reference

    @model_serializer(mode="wrap")
    def _only_filled(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value not in (None, {})}


Switch = Literal["on", "off"]
"""A setting that is true or false: a switch of the form could not be left empty."""
# Prefect sends the default of a parameter that was left alone, and a number cannot be null.
Count = Annotated[int, Field(ge=0)]
"""A number of things; 0 leaves it to the recipe."""
Seed = Annotated[int, Field(ge=-1)]
"""A seed; -1 leaves it to the recipe."""
UNTURNED: dict[str, str | int] = {
    "domain": AS_RECIPE,
    "teacher": "",
    "rows": 0,
    "rounds": 0,
    "samples": 0,
    "seed": -1,
}
"""The value of each knob that leaves the recipe as it is; the flows' defaults."""


@dataclass(frozen=True, slots=True)
class At:
    """Where a section of the form is in the recipe; ``{phase}`` and ``{teacher}`` are filled in."""

    prefix: str


class TeacherSection(_Part):
    """Which model answers, and where."""

    engine: Literal["embedded", "http", "vllm", "batch_file", "scripted"] | None = None
    """embedded: in this process, no GPU; http: an OpenAI-compatible server; vllm: vLLM in this
    process; batch_file: files for an offline fleet; scripted: answers from a file, for tests."""
    model: str | None = None
    """Model name as the engine knows it; a hub id or folder for vllm."""
    base_urls: Annotated[list[str], Field(min_length=1)] | None = None
    """http: the servers' roots, each with /v1 at its end."""
    max_concurrency: int | None = Field(None, ge=1)
    """Requests in flight, over all servers together."""
    timeout_s: float | None = Field(None, gt=0)
    """http: longest wait for one answer, seconds."""
    outage_s: float | None = Field(None, ge=0)
    """http: how long all servers may be silent before the run stops, seconds."""


class CombinationSection(_Part):
    """What each problem is made from."""

    size: int | None = Field(None, ge=2)
    """Concepts in one combination."""
    sampler: Literal["original", "balanced"] | None = None
    """original: PromptCoT 1.0's distribution; balanced: uses every concept alike."""
    math_share: float | None = Field(None, ge=0, le=1)
    """Share of combinations from the maths bank; the rest is code. domain, if set, wins."""


class ProblemSection(_Part):
    """Rationale and problem from a combination."""

    form: Form | None = None
    """free: marked sections, for capable models; constrained: enforced while it generates."""
    temperature: float | None = Field(None, ge=0)
    """Of sampling."""
    max_tokens: int | None = Field(None, ge=16)
    """Longest reply, tokens."""
    attempts: int | None = Field(None, ge=1)
    """Tries per combination; a further one only after a rejected reply."""


class SolutionSection(_Part):
    """Long chain-of-thought answers."""

    samples_per_problem: int | None = Field(None, ge=1)
    """Solutions asked for each problem."""
    sampling: Literal["explicit", "recommended"] | None = None
    """recommended: what the model's makers publish; explicit: the recipe's values."""
    temperature: float | None = Field(None, ge=0)
    """Of sampling, when it is explicit."""
    max_tokens: int | None = Field(None, ge=16)
    """Longest solution, tokens."""


class VerificationSection(_Part):
    """What makes a solution good enough to train on."""

    minimum_agreement: float | None = Field(None, ge=0, le=1)
    """Share of a problem's samples that must agree with the solution."""
    maximum_agreement: float | None = Field(None, gt=0, le=1)
    """Problems that more samples solve are too easy."""
    traces_per_problem: int | None = Field(None, ge=0)
    """Solutions kept of one problem, shortest first; 0 keeps all."""
    keep_unverified: Switch | None = None
    """Relaxed gate: keep what nothing confirmed and nothing contradicted."""


class BudgetSection(_Part):
    """Hard limits of what a run folder may spend; 0 is no limit."""

    max_completion_tokens: int | None = Field(None, ge=0)
    """Tokens written by teachers."""
    max_usd: float | None = Field(None, ge=0)
    """Needs prices at the teachers."""
    max_hours: float | None = Field(None, ge=0)
    """Hours during which teachers were working."""


class RefinementSection(_Part):
    """Rounds over rationales."""

    rationales_per_problem: int | None = Field(None, ge=2)
    """Drawn in each round."""
    max_problems: int | None = Field(None, ge=0)
    """Take only so many seeds; 0 takes all."""


class DatasetSection(_Part):
    """How rows are checked and worked on."""

    deduplicate: Switch | None = None
    """Keep one of equal questions."""
    near_duplicates: Switch | None = None
    """Count questions in nearly the same words as one."""
    num_workers: int | None = Field(None, ge=1)
    """Processes, or Ray workers, at once."""


class ExecutionSection(_Part):
    """Which machines build datasets and verify solutions."""

    executor: Literal["local", "ray"] | None = None
    """local: processes of this machine; ray: a Ray cluster."""
    ray_address: str | None = None
    """Ray cluster to join: host:port of its head, or auto; empty starts one here."""


class DecontaminationSection(_Part):
    """When a row counts as a benchmark item."""

    enabled: Switch | None = None
    """Off only for experiments: the card says so."""
    find_rewordings: Switch | None = None
    """Also find items told in other words."""
    drop_twins: Switch | None = None
    """Refuse items with other numbers or another final question, too."""


class TrainingSection(_Part):
    """The optimiser, and how long rows are packed."""

    learning_rate: float | None = Field(None, gt=0)
    """Of every phase that names none of its own."""
    warmup_steps: int | None = Field(None, ge=0)
    """Optimiser steps."""
    documents_per_step: int | None = Field(None, ge=1)
    """Batch size of an optimiser step, over all devices."""
    packing: Packing | None = None
    """exact: every step has exactly that many documents; best_fit: fuller rows; off: padding."""
    precision: Precision | None = None
    """Of weights and optimiser; float32 and bf16_autocast keep float32 weights."""
    activation: Activation | None = None
    """Blocks whose activations are recomputed: less memory, more time."""
    save_steps: int | None = Field(None, ge=1)
    """Steps between checkpoints: what a kill loses at most."""


class LaunchSection(_Part):
    """How training is started."""

    launcher: Launcher | None = None
    """inline: in this process, one device; torchrun, accelerate: several; command: the recipe's."""
    num_processes: int | None = Field(None, ge=1)
    """One a GPU, for torchrun and accelerate."""
    stop_grace_s: float | None = Field(None, gt=0)
    """Longest time for the last checkpoint after a stop, seconds."""


class PhaseSection(_Part):
    """Length and duration of the phase."""

    max_length: int | None = Field(None, ge=32)
    """Tokens of a document; longer ones are dropped and counted."""
    epochs: float | None = Field(None, gt=0)
    """Passes over the dataset."""
    max_steps: int | None = None
    """Stop after so many optimiser steps; -1 uses epochs."""


class SamplingSection(_Part):
    """How answers to the benchmarks are sampled."""

    temperature: float | None = Field(None, ge=0)
    """0 is greedy."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Nucleus; 1 is off."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest answer, tokens."""
    batch_size: int | None = Field(None, ge=1)
    """Sequences decoded together."""


class SynthesisConfig(_Part):
    """Further settings of synthesis; what is empty stays as the recipe says."""

    teacher: Annotated[TeacherSection, At("teachers.{teacher}")] = TeacherSection()
    """The recipe's teacher named above, or its default one."""
    combinations: Annotated[CombinationSection, At("synthesis.combinations")] = CombinationSection()
    """What each problem is made from."""
    problems: Annotated[ProblemSection, At("synthesis.problems")] = ProblemSection()
    """Rationale and problem from a combination."""
    solutions: Annotated[SolutionSection, At("synthesis.solutions")] = SolutionSection()
    """Long chain-of-thought answers."""
    verification: Annotated[VerificationSection, At("synthesis.verification")] = (
        VerificationSection()
    )
    """What makes a solution good enough to train on."""
    budget: Annotated[BudgetSection, At("synthesis.budget")] = BudgetSection()
    """Hard limits of what the output folder may spend."""
    execution: Annotated[ExecutionSection, At("execution")] = ExecutionSection()
    """Which machines build datasets and verify solutions."""


class RefinementConfig(_Part):
    """Further settings of refinement; what is empty stays as the recipe says."""

    teacher: Annotated[TeacherSection, At("teachers.{teacher}")] = TeacherSection()
    """The recipe's teacher named above, or its default one."""
    refinement: Annotated[RefinementSection, At("synthesis.refinement")] = RefinementSection()
    """Rounds over rationales."""
    budget: Annotated[BudgetSection, At("synthesis.budget")] = BudgetSection()
    """Hard limits of what the output folder may spend."""


class CurriculumConfig(_Part):
    """Further settings of datasets; what is empty stays as the recipe says."""

    rows: Annotated[DatasetSection, At("curriculum")] = DatasetSection()
    """How rows are checked and worked on."""
    decontamination: Annotated[DecontaminationSection, At("curriculum.decontamination")] = (
        DecontaminationSection()
    )
    """When a row counts as a benchmark item."""
    execution: Annotated[ExecutionSection, At("execution")] = ExecutionSection()
    """Which machines build datasets and verify solutions."""


class TrainingConfig(_Part):
    """Further settings of training; what is empty stays as the recipe says."""

    training: Annotated[TrainingSection, At("training")] = TrainingSection()
    """The optimiser, and how long rows are packed."""
    phase: Annotated[PhaseSection, At("training.phases.{phase}")] = PhaseSection()
    """Length and duration of the phase chosen above."""
    launch: Annotated[LaunchSection, At("training.launch")] = LaunchSection()
    """How training is started."""


class EvaluationConfig(_Part):
    """Further settings of evaluation; what is empty stays as the recipe says."""

    sampling: Annotated[SamplingSection, At("evaluation")] = SamplingSection()
    """How answers to the benchmarks are sampled."""


class WholeLoopConfig(SynthesisConfig):
    """Further settings of all stages; what is empty stays as the recipe says."""

    rows: Annotated[DatasetSection, At("curriculum")] = DatasetSection()
    """How rows of datasets are checked and worked on."""
    training: Annotated[TrainingSection, At("training")] = TrainingSection()
    """The optimiser, and how long rows are packed."""
    launch: Annotated[LaunchSection, At("training.launch")] = LaunchSection()
    """How training is started."""
    sampling: Annotated[SamplingSection, At("evaluation")] = SamplingSection()
    """How answers to the benchmarks are sampled."""


Config = SynthesisConfig | RefinementConfig | CurriculumConfig | TrainingConfig | EvaluationConfig
"""Any flow's; :class:`WholeLoopConfig` is a :class:`SynthesisConfig`."""


def sections(config: type[Config]) -> Iterator[tuple[str, str]]:
    """(field, prefix in the recipe) of every section of a form."""
    for name, field in config.model_fields.items():
        yield from ((name, mark.prefix) for mark in field.metadata if isinstance(mark, At))


def list_overrides(config: Config, *, phase: str, teacher: str) -> list[str]:
    """What was filled in, as ``section.key=value`` texts.

    Args:
        config: The filled-in form.
        phase: Of the run, for the sections of one phase.
        teacher: Name among the recipe's teachers that the teacher's section is about.
    """
    texts = []
    for name, prefix in sections(type(config)):
        place = prefix.format(phase=phase, teacher=teacher)
        section: BaseModel = getattr(config, name)
        fields = type(section).model_fields
        for key, value in section.model_dump(mode="json").items():
            is_switch = set(get_args(fields[key].annotation)) == {Switch, type(None)}
            texts.append(f"{place}.{key}={as_toml(value == 'on' if is_switch else value)}")
    return texts


def as_toml(value: str | int | float | bool | list[str]) -> str:
    """A value as TOML: texts, numbers, booleans and lists of texts are written as in JSON."""
    return json.dumps(value, ensure_ascii=False)
