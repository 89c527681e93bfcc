"""Evaluate one checkpoint: sample k answers per benchmark item, grade them, score them.

Inputs: a checkpoint folder and the recipe's benchmarks. Output: a version under
``<out>/evaluation/<name>`` whose rows are the raw graded answers and whose manifest holds the
scores in ``extra["scores"]``. A killed run continues with the batches that are missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from evaluation.card import write_card
from evaluation.checkpoints import hash_checkpoint
from evaluation.grading import AnswerGrader, Grade, ToGrade, split_completion
from evaluation.records import SampledAnswer
from evaluation.sampling import Completion, Student, encode_item
from evaluation.statistics import Outcome, score_benchmark
from pipeline.benchmark_items import BenchmarkItem
from pipeline.benchmarks import load_benchmark, scored_inputs
from pipeline.errors import ConfigError
from pipeline.hashing import derive_seed
from pipeline.manifest import InputRef, Version
from pipeline.settings.base import determining
from pipeline.settings.evaluation import EvaluationSettings
from pipeline.settings.recipe import Recipe
from pipeline.stages import Batch, BatchResult, Stage, run_stage, split_batches, staged_shards
from pipeline.store import read_rows


@dataclass(frozen=True, slots=True)
class Trial:
    """One sample to be drawn for one item."""

    item: BenchmarkItem
    sample: int

    @property
    def id(self) -> str:
        """The row's id."""
        return f"{self.item.benchmark}/{self.item.id}/{self.sample}"


def evaluate_checkpoint(recipe: Recipe, checkpoint: Path, out: Path, name: str) -> Version:
    """Sample and grade what is missing; return the version with the scores.

    Args:
        recipe: The experiment; its benchmarks and ``[evaluation]``.
        checkpoint: Folder with ``config.json`` and safetensors.
        out: Run folder.
        name: Folder of this checkpoint's versions under ``<out>/evaluation``.

    Raises:
        ConfigError: The recipe has no benchmarks.
        SourceError: A benchmark or the checkpoint cannot be read.
        GateRefused: A benchmark's file is not the one that the recipe names.
        SandboxError: There are programs to grade and no way to run them safely.
        StoreError: The disk is full, or another process evaluates the same.
    """
    settings = recipe.settings.evaluation
    benchmarks = load_benchmarks(recipe)
    stage = _describe_stage(recipe, checkpoint, out, name)
    batches = plan_batches(benchmarks, settings)
    has_code = any(items[0].domain == "code" for items in benchmarks.values())
    with _Evaluator(checkpoint, settings, has_code=has_code) as evaluator:
        return run_stage(
            stage,
            batches,
            evaluator.process,
            card=write_card,
            extra=lambda _: {"scores": _score(stage, settings)},
        )


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


def plan_batches(
    benchmarks: Mapping[str, Sequence[BenchmarkItem]], settings: EvaluationSettings
) -> list[Batch]:
    """Batches of sequences that are decoded together; none mixes two benchmarks.

    So one benchmark's samples do not change when another is added.
    """
    batches = []
    for items in benchmarks.values():
        trials = [Trial(item, n) for item in items for n in range(settings.samples_per_item)]
        batches += split_batches(trials, settings.batch_size, key=lambda trial: trial.id)
    return batches


def _describe_stage(recipe: Recipe, checkpoint: Path, out: Path, name: str) -> Stage:
    inputs = [InputRef(name="checkpoint", version=hash_checkpoint(checkpoint))]
    inputs += scored_inputs(recipe)
    return Stage(
        name=f"evaluation-{name}",
        root=out / "evaluation" / name,
        record=SampledAnswer,
        settings={
            **determining(recipe.settings.evaluation),
            "benchmarks": [
                determining(entry) for entry in recipe.settings.benchmarks if entry.is_scored
            ],
        },
        inputs=inputs,
        packages=("evaluation", "promptcot.verification", "pipeline"),
        unit="answers",
    )


class _Evaluator:
    """Turns batches of trials into graded answers; model and graders start on first need."""

    def __init__(self, checkpoint: Path, settings: EvaluationSettings, *, has_code: bool) -> None:
        self._settings = settings
        self._student = Student(checkpoint, settings)
        self._open = ExitStack()
        self._grader = self._open.enter_context(AnswerGrader(settings, has_code=has_code))

    def __enter__(self) -> _Evaluator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def process(self, batch: Batch) -> BatchResult:
        """Decode and grade one batch."""
        trials: Sequence[Trial] = batch.rows
        prompts = [encode_item(trial.item) for trial in trials]
        seed = derive_seed(self._settings.seed, "evaluation", batch.id)
        completions = self._student.complete(prompts, seed=seed)
        grades = self._grader.grade(
            [
                ToGrade(
                    item=trial.item,
                    answer=split_completion(completion.text)[1],
                    truncated=completion.truncated,
                )
                for trial, completion in zip(trials, completions, strict=True)
            ]
        )
        rows = [
            _make_row(trial, completion, grade)
            for trial, completion, grade in zip(trials, completions, grades, strict=True)
        ]
        return BatchResult(
            num_in=len(trials),
            rows=rows,
            tokens={
                "prompt": sum(len(prompt) for prompt in prompts),
                "completion": sum(completion.num_tokens for completion in completions),
            },
        )


def _make_row(trial: Trial, completion: Completion, grade: Grade) -> SampledAnswer:
    thinking, answer = split_completion(completion.text)
    return SampledAnswer(
        id=trial.id,
        benchmark=trial.item.benchmark,
        domain=trial.item.domain,
        item_id=trial.item.id,
        sample=trial.sample,
        question=trial.item.question,
        gold=trial.item.gold.text if trial.item.gold else None,
        text=completion.text,
        thinking=thinking,
        answer=answer or "",
        extracted=grade.extracted,
        correct=grade.correct,
        reason=grade.reason,
        truncated=completion.truncated,
        num_tokens=completion.num_tokens,
    )


def _score(stage: Stage, settings: EvaluationSettings) -> list[dict[str, Any]]:
    """Scores of every benchmark, from the finished shards."""
    names = [field.name for field in fields(Outcome)]
    outcomes: dict[str, list[Outcome]] = {}
    for path in staged_shards(stage):
        for row in read_rows(path, names):
            outcomes.setdefault(row["benchmark"], []).append(Outcome(**row))
    return [score_benchmark(rows, settings) for rows in outcomes.values()]
