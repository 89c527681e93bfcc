"""Grade a file of answers that any model wrote: rows ``{id, answer}``, optionally ``sample``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.grading import AnswerGrader, Grade, ToGrade, split_answer
from evaluation.statistics import Outcome, score_benchmark
from pipeline.benchmark_items import BenchmarkItem
from pipeline.benchmark_rows import read_json_lines
from pipeline.benchmarks import load_benchmark
from pipeline.errors import ConfigError, SourceError
from pipeline.settings.benchmarks import BenchmarkSettings
from pipeline.settings.evaluation import EvaluationSettings
from pipeline.settings.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of the file."""

    item_id: str
    sample: str
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """One graded row; an item without a row is graded as ``missing``."""

    item_id: str
    sample: str
    grade: Grade

    def as_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "id": self.item_id,
            "sample": self.sample,
            "correct": self.grade.correct,
            "reason": self.grade.reason,
            "extracted": self.grade.extracted,
            "detail": self.grade.detail,
        }


def choose_benchmark(recipe: Recipe, name_or_file: str) -> BenchmarkSettings:
    """The recipe's benchmark of that name, or settings for a file in the default columns.

    Raises:
        ConfigError: Neither.
        SourceError: The file cannot be read.
    """
    known = {entry.name: entry for entry in recipe.settings.benchmarks}
    if name_or_file in known:
        if not known[name_or_file].is_scored:
            raise ConfigError(
                f"benchmark {name_or_file!r} of recipe {recipe.name} has questions only: "
                "it is kept out of training data and cannot be scored",
                hint="set its `answer_field` (maths) or `tests_field` (code), or choose another",
            )
        return known[name_or_file]
    path = Path(name_or_file)
    if not path.is_file():
        raise ConfigError(
            f"{name_or_file!r} is neither a benchmark of recipe {recipe.name} nor a file",
            hint=f"use one of {', '.join(known) or 'none'}, or a path to a .jsonl file with the "
            "fields id, question and answer (maths) or tests (code)",
        )
    first = next(read_json_lines(path), {})
    return BenchmarkSettings(
        name=path.name.split(".")[0],
        path=str(path.resolve()),
        domain="code" if "tests" in first else "math",
    )


def read_answers(path: Path, items: Sequence[BenchmarkItem]) -> list[Answer]:
    """Read the rows and hold them against the benchmark's items.

    Raises:
        SourceError: The file is missing, empty or malformed, an id is not the benchmark's, or one
            (id, sample) occurs twice.
    """
    known = {item.id for item in items}
    seen: dict[tuple[str, str], int] = {}
    answers = []
    for number, row in enumerate(read_json_lines(path), start=1):
        answer = _read_answer(path, number, row)
        if answer.item_id not in known:
            raise SourceError(
                f"{path}, row {number}: the benchmark has no item {answer.item_id!r}",
                hint=f"its ids look like {items[0].id!r}; pass the benchmark these answers are for",
            )
        first = seen.setdefault((answer.item_id, answer.sample), number)
        if first != number:
            raise SourceError(
                f"{path}, row {number}: id {answer.item_id!r} was answered by row {first} already",
                hint="remove one, or number several samples of an item with the field 'sample'",
            )
        answers.append(answer)
    if not answers:
        raise SourceError(f"{path} has no rows", hint="write one {id, answer} object per line")
    return answers


def _read_answer(path: Path, number: int, row: dict[str, Any]) -> Answer:
    for field in ("id", "answer"):
        if field not in row:
            raise SourceError(
                f"{path}, row {number}: no field {field!r}; it has {', '.join(sorted(row))}",
                hint='write rows like {"id": "...", "answer": "..."}',
            )
    if not isinstance(row["answer"], str):
        raise SourceError(
            f"{path}, row {number}: 'answer' should be a text, found {row['answer']!r}",
            hint="write the model's whole answer as text, its box or code block included",
        )
    return Answer(str(row["id"]), str(row.get("sample", 0)), row["answer"])


def grade_answers(
    items: Sequence[BenchmarkItem], answers: Sequence[Answer], settings: EvaluationSettings
) -> list[Verdict]:
    """Verdicts in file order, then one per (item, sample) that the file lacks.

    Raises:
        SandboxError: Programs are to be graded and cannot be executed safely here.
    """
    by_id = {item.id: item for item in items}
    with AnswerGrader(settings, has_code=items[0].domain == "code") as grader:
        grades = grader.grade(
            [ToGrade(item=by_id[a.item_id], answer=split_answer(a.text)) for a in answers]
        )
    verdicts = [
        Verdict(answer.item_id, answer.sample, grade)
        for answer, grade in zip(answers, grades, strict=True)
    ]
    present = {(answer.item_id, answer.sample) for answer in answers}
    samples = sorted({answer.sample for answer in answers})
    missing = Grade(False, "missing")
    wanted = [(item.id, sample) for item in items for sample in samples]
    return verdicts + [Verdict(*pair, missing) for pair in wanted if pair not in present]


def score_verdicts(
    items: Sequence[BenchmarkItem], verdicts: Sequence[Verdict], settings: EvaluationSettings
) -> dict[str, Any]:
    """Scores over all items of the benchmark; missing answers count as wrong.

    Lengths are unknown here, so the figures about tokens are left out.
    """
    outcomes = [
        Outcome(
            benchmark=items[0].benchmark,
            domain=items[0].domain,
            item_id=verdict.item_id,
            extracted=verdict.grade.extracted,
            correct=verdict.grade.correct,
            reason=verdict.grade.reason,
            truncated=False,
            num_tokens=0,
        )
        for verdict in verdicts
    ]
    scores = score_benchmark(outcomes, settings)
    return {k: v for k, v in scores.items() if k != "truncated_rate" and "token" not in k}


def load_items(recipe: Recipe, name_or_file: str) -> list[BenchmarkItem]:
    """Items of a recipe's benchmark or of a file.

    Raises:
        ConfigError: Neither a benchmark's name nor a file.
        SourceError: The file cannot be read.
    """
    return load_benchmark(recipe, choose_benchmark(recipe, name_or_file))
