"""Evaluate one checkpoint: sample k answers per benchmark item, grade them, score them.

Inputs: a checkpoint folder (or a teacher) and the recipe's benchmarks. Output: a version under
``<out>/evaluation/<name>`` whose rows are the raw graded answers and whose manifest holds the
scores in ``extra["scores"]``. Samples are stored one by one, so a killed run continues with those
that are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from evaluation.card import write_card
from evaluation.checkpoints import hash_checkpoint
from evaluation.decoding.plan import plan_decoding
from evaluation.grading import AnswerGrader, Grade, ToGrade
from evaluation.records import SampledAnswer
from evaluation.sampling import Completion, Sampler, SampleRequest, open_sampler
from evaluation.statistics import Outcome, score_benchmark
from pipeline.benchmark_items import BenchmarkItem
from pipeline.benchmarks import load_benchmark, scored_inputs
from pipeline.claims import claiming
from pipeline.errors import ConfigError
from pipeline.events import emit, recording
from pipeline.hashing import content_hash
from pipeline.manifest import InputRef, Version
from pipeline.settings.base import determining
from pipeline.settings.evaluation import EvaluationSettings
from pipeline.settings.recipe import Recipe
from pipeline.stages import Batch, BatchResult, Stage, run_stage, split_batches, staged_shards
from pipeline.store import read_rows
from promptcot.verification.math_answers import MathGrader

_ALL = "evaluation"
"""The part that a run of the whole loop claims; the part of one checkpoint has its name behind."""


def evaluate_checkpoint(recipe: Recipe, checkpoint: Path | None, out: Path, name: str) -> Version:
    """Sample and grade what is missing; return the version with the scores.

    Args:
        recipe: The experiment; its benchmarks and ``[evaluation]``.
        checkpoint: Folder with ``config.json`` and safetensors; none: the teacher's own model.
        out: Run folder.
        name: Folder of this checkpoint's versions under ``<out>/evaluation``.

    Raises:
        ConfigError: The recipe has no benchmarks, or there is no checkpoint and no teacher.
        SourceError: A benchmark or the checkpoint cannot be read.
        GateRefused: A benchmark's file is not the one that the recipe names.
        SandboxError: There are programs to grade and no way to run them safely.
        TeacherError: What answers cannot be used, or has no answer to a sample.
        StoreError: The disk is full, or another run evaluates the same.
    """
    settings = recipe.settings.evaluation
    benchmarks = load_benchmarks(recipe)
    stage = _describe_stage(recipe, checkpoint, out, name)
    batches = plan_batches(benchmarks, recipe)
    with ExitStack() as opened:
        opened.enter_context(claim_evaluations(out, [name]))
        opened.enter_context(recording(out, recipe.settings.events, f"evaluation of {name}"))
        sampler = open_sampler(recipe, checkpoint, out, stage.name)
        evaluator = _Evaluator(recipe, batches, sampler, opened)
        version = run_stage(
            replace(stage, cancel=sampler.cancel, spending=sampler.spending),
            batches,
            evaluator.process,
            card=write_card,
            extra=lambda _: {"scores": _score(stage, settings, benchmarks)},
        )
        for score in version.manifest.extra["scores"]:
            figures = {key: score[key] for key in ("benchmark", "avg_at_k", "interval")}
            emit("benchmark.scored", stage=stage.name, checkpoint=name, **figures)
        return version


@contextmanager
def claim_evaluations(out: Path, names: Iterable[str]) -> Iterator[None]:
    """Have the evaluation of these checkpoints to oneself; others may be evaluated meanwhile.

    Raises:
        StoreError: Another run is at work on one of them, or on all of a run folder's.
    """
    with claiming(out, [f"{_ALL}-{name}" for name in names], shared=[_ALL]):
        yield


def load_benchmarks(recipe: Recipe) -> dict[str, list[BenchmarkItem]]:
    """All items of all benchmarks of a recipe, by benchmark.

    Raises:
        ConfigError: The recipe has none, or two of one name.
    """
    benchmarks: dict[str, list[BenchmarkItem]] = {}
    for settings in recipe.settings.benchmarks:
        if settings.name in benchmarks:
            raise ConfigError(
                f"recipe {recipe.path} has two benchmarks named {settings.name!r}",
                hint="give each [[benchmarks]] entry its own name",
            )
        if settings.is_scored:
            benchmarks[settings.name] = load_benchmark(recipe, settings)
    if not benchmarks:
        raise ConfigError(
            f"recipe {recipe.path} has no benchmarks to evaluate on",
            hint="add a [[benchmarks]] entry with name, path, domain and answers or tests",
        )
    return benchmarks


def plan_batches(benchmarks: Mapping[str, Sequence[BenchmarkItem]], recipe: Recipe) -> list[Batch]:
    """Batches of samples that are graded together; none mixes two benchmarks.

    So one benchmark's samples do not change when another is added, also where a batch is decoded
    as one.
    """
    settings = recipe.settings.evaluation
    samples = {entry.name: entry.samples_per_item for entry in recipe.settings.benchmarks}
    batches = []
    for name, items in benchmarks.items():
        number = samples[name] or settings.samples_per_item
        requests = [SampleRequest(item, n) for item in items for n in range(number)]
        batches += split_batches(requests, settings.batch_size, key=lambda request: request.id)
    return batches


def _describe_stage(recipe: Recipe, checkpoint: Path | None, out: Path, name: str) -> Stage:
    inputs = [*_describe_model(recipe, checkpoint), *scored_inputs(recipe)]
    settings = recipe.settings.evaluation
    if settings.is_local:
        how = {"decoding": plan_decoding(settings).as_json()}
    else:
        how = {"teacher": determining(recipe.settings.teachers[settings.engine])}
    return Stage(
        name=f"evaluation-{name}",
        root=out / "evaluation" / name,
        record=SampledAnswer,
        settings={
            **determining(settings),
            **how,
            "benchmarks": [
                determining(entry) for entry in recipe.settings.benchmarks if entry.is_scored
            ],
        },
        inputs=inputs,
        packages=("evaluation", "promptcot.verification", "trainer.model", "pipeline"),
        unit="answers",
    )


def _describe_model(recipe: Recipe, checkpoint: Path | None) -> list[InputRef]:
    """What answers: a checkpoint by its content, a teacher by its model's name."""
    settings = recipe.settings.evaluation
    inputs = []
    if not settings.is_local:
        teacher = recipe.settings.teachers[settings.engine]
        inputs.append(InputRef(name=f"model:{teacher.model}", version=content_hash(teacher.model)))
    if checkpoint is not None:
        with_tokenizer = settings.engine == "transformer"
        version = hash_checkpoint(checkpoint, with_tokenizer=with_tokenizer)
        inputs.append(InputRef(name="checkpoint", version=version))
    if not inputs:
        raise ConfigError(
            f"evaluation.engine = {settings.engine!r} decodes a checkpoint, and none is given",
            hint="pass --checkpoint FOLDER, or name a teacher in evaluation.engine",
        )
    return inputs


class _Evaluator:
    """Turns batches of requests into graded answers; sampler and graders start on first need."""

    def __init__(
        self, recipe: Recipe, batches: Sequence[Batch], sampler: Sampler, opened: ExitStack
    ) -> None:
        self._sampler = sampler
        self._requests = [request for batch in batches for request in batch.rows]
        self._opened = opened
        self._is_open = False
        has_code = any(request.item.domain == "code" for request in self._requests)
        self._grader = opened.enter_context(
            AnswerGrader(recipe.settings.evaluation, has_code=has_code)
        )

    def process(self, batch: Batch) -> BatchResult:
        """Wait for the samples of one batch and grade them, while further ones are drawn."""
        if not self._is_open:
            self._opened.enter_context(self._sampler)
            self._sampler.start(self._requests)
            self._is_open = True
        requests: Sequence[SampleRequest] = batch.rows
        completions = self._sampler.sample(requests)
        grades = self._grader.grade(
            [
                ToGrade(item=request.item, answer=completion.answer, truncated=completion.truncated)
                for request, completion in zip(requests, completions, strict=True)
            ]
        )
        return BatchResult(
            num_in=len(requests),
            rows=[
                _make_row(request, completion, grade)
                for request, completion, grade in zip(requests, completions, grades, strict=True)
            ],
            tokens={
                "prompt": sum(completion.num_prompt_tokens for completion in completions),
                "completion": sum(completion.num_tokens for completion in completions),
            },
        )


def _make_row(trial: SampleRequest, completion: Completion, grade: Grade) -> SampledAnswer:
    return SampledAnswer(
        id=trial.id,
        benchmark=trial.item.benchmark,
        domain=trial.item.domain,
        item_id=trial.item.id,
        sample=trial.sample,
        question=trial.item.question,
        gold=trial.item.gold.text if trial.item.gold else None,
        text=completion.text,
        thinking=completion.thinking,
        answer=completion.answer or "",
        extracted=grade.extracted,
        correct=grade.correct,
        reason=grade.reason,
        truncated=completion.truncated,
        finish_reason=completion.finish_reason,
        num_tokens=completion.num_tokens,
        num_prompt_tokens=completion.num_prompt_tokens,
        seed=completion.seed,
        prompt_hash=completion.prompt_hash,
    )


def _score(
    stage: Stage,
    settings: EvaluationSettings,
    benchmarks: Mapping[str, Sequence[BenchmarkItem]],
) -> list[dict[str, Any]]:
    """Scores of every benchmark, from the finished shards."""
    names = [field.name for field in fields(Outcome)]
    outcomes: dict[str, list[Outcome]] = {}
    for path in staged_shards(stage):
        for row in read_rows(path, names):
            # A vote needs no more of a program than that there is one; all of them may be large.
            if row["domain"] == "code" and row["extracted"] is not None:
                row["extracted"] = ""
            outcomes.setdefault(row["benchmark"], []).append(Outcome(**row))
    labels = {name: {item.id: item.labels for item in items} for name, items in benchmarks.items()}
    # Its processes start only where a vote depends on answers that their texts do not tell apart.
    with MathGrader(num_workers=settings.num_workers) as grader:
        return [
            score_benchmark(rows, settings, labels=labels[name], compare=grader.compare)
            for name, rows in outcomes.items()
        ]
