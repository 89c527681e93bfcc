"""Grade a file of answers that any model wrote: rows ``{id, answer}``.

Optional fields: ``sample`` numbers several answers to one item; ``finish_reason`` is ``length``
where a token limit ended the text. The file may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.grading import AnswerGrader, Grade, ToGrade, split_answer
from evaluation.statistics import Outcome, score_benchmark
from pipeline.benchmark_items import BenchmarkItem
from pipeline.benchmark_rows import read_json_lines
from pipeline.benchmarks import load_benchmark
from pipeline.errors import ConfigError, SourceError
from pipeline.settings.benchmarks import BUNDLED, BenchmarkSettings
from pipeline.settings.evaluation import EvaluationSettings
from pipeline.settings.recipe import Recipe
from promptcot.verification.math_answers import MathGrader
from promptcot.verification.math_text import MAX_CHARS

_PIECE_ROWS = 500
_PIECE_CHARS = 32_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of the file."""

    item_id: str
    sample: str
    text: str
    is_cut: bool = False
    """Whether the row says that a token limit ended it (``"finish_reason": "length"``)."""


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """A file whose rows fit the benchmark."""

    path: Path
    answered: frozenset[tuple[str, str]]
    """Every row's item and sample."""

    def count_missing(self, items: Sequence[BenchmarkItem]) -> int:
        """Items without any answer."""
        return len({item.id for item in items} - {item_id for item_id, _ in self.answered})


@dataclass(frozen=True, slots=True)
class Verdict:
    """One graded row; an item without a row is graded as ``missing``."""

    item_id: str
    sample: str
    grade: Grade

    def as_outcome(self, item: BenchmarkItem) -> Outcome:
        """What counts of it; votes need no more of a program than that there is one."""
        extracted = self.grade.extracted
        return Outcome(
            benchmark=item.benchmark,
            domain=item.domain,
            item_id=self.item_id,
            extracted=extracted if extracted is None or item.domain == "math" else "",
            correct=self.grade.correct,
            reason=self.grade.reason,
            truncated=self.grade.reason == "truncated",
            num_tokens=0,
        )

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
    """The recipe's benchmark of that name, a bundled one, or a file in the default columns.

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
    bundled = sorted(file.stem for file in BUNDLED.glob("*.toml"))
    if name_or_file in bundled:
        return BenchmarkSettings.model_validate({"use": name_or_file})
    path = Path(name_or_file)
    if not path.is_file():
        raise ConfigError(
            f"{name_or_file!r} is neither a benchmark of recipe {recipe.name} or of the paper "
            "nor a file",
            hint=f"use one of {', '.join([*known, *bundled])}, or a path to a .jsonl file with the "
            "fields id, question and answer (maths) or tests (code)",
        )
    first = next(read_json_lines(path), {})
    return BenchmarkSettings(
        name=path.name.split(".")[0],
        path=str(path.resolve()),
        domain="code" if "tests" in first else "math",
    )


def check_answers(path: Path, items: Sequence[BenchmarkItem]) -> AnswerFile:
    """Read the rows once and hold them against the benchmark's items; no text is kept.

    Raises:
        SourceError: The file is missing, empty or malformed, an id is not the benchmark's, or one
            (id, sample) occurs twice.
    """
    known = {item.id for item in items}
    seen: dict[tuple[str, str], int] = {}
    for number, answer in enumerate(_read_rows(path), start=1):
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
    if not seen:
        raise SourceError(f"{path} has no rows", hint="write one {id, answer} object per line")
    return AnswerFile(path, frozenset(seen))


def _read_rows(path: Path) -> Iterator[Answer]:
    for number, row in enumerate(read_json_lines(path), start=1):
        yield _read_answer(path, number, row)


def _read_answer(path: Path, number: int, row: dict[str, Any]) -> Answer:
    for field in ("id", "answer"):
        if field not in row:
            raise SourceError(
                f"{path}, row {number}: no field {field!r}; it has {', '.join(sorted(row))}",
                hint='write rows like {"id": "...", "answer": "..."}',
            )
    if not isinstance(row["answer"], str):
        raise SourceError(
            f"{path}, row {number}: 'answer' should be a text, found {row['answer']!r:.60}",
            hint="write the model's whole answer as text, its box or code block included",
        )
    is_cut = row.get("finish_reason") == "length"
    return Answer(str(row["id"]), str(row.get("sample", 0)), row["answer"], is_cut)


def grade_answers(
    items: Sequence[BenchmarkItem], file: AnswerFile, settings: EvaluationSettings
) -> Iterator[Verdict]:
    """Verdicts in file order, then one per (item, sample) that the file lacks.

    The file is read in pieces: its texts never are in memory together.

    Raises:
        SandboxError: Programs are to be graded and cannot be executed safely here.
    """
    by_id = {item.id: item for item in items}
    with AnswerGrader(settings, has_code=items[0].domain == "code") as grader:
        for answers in _read_pieces(file.path):
            grades = grader.grade([_to_grade(by_id[a.item_id], a) for a in answers])
            for answer, grade in zip(answers, grades, strict=True):
                yield Verdict(answer.item_id, answer.sample, _shorten(grade))
    samples = sorted({sample for _, sample in file.answered})
    for item in items:
        for sample in samples:
            if (item.id, sample) not in file.answered:
                yield Verdict(item.id, sample, Grade(False, "missing"))


def _read_pieces(path: Path) -> Iterator[list[Answer]]:
    """Answers in pieces of bounded number and length."""
    piece: list[Answer] = []
    num_chars = 0
    for answer in _read_rows(path):
        piece.append(answer)
        num_chars += len(answer.text)
        if len(piece) >= _PIECE_ROWS or num_chars >= _PIECE_CHARS:
            yield piece
            piece, num_chars = [], 0
    if piece:
        yield piece


def _to_grade(item: BenchmarkItem, answer: Answer) -> ToGrade:
    text = split_answer(answer.text, is_cut=answer.is_cut)
    # A thought that never ends was cut off, whoever's limit it was.
    return ToGrade(item=item, answer=text, truncated=answer.is_cut or text is None)


def _shorten(grade: Grade) -> Grade:
    """A verdict as it is told: a program's text is in the answer file already."""
    if grade.extracted is None or len(grade.extracted) <= MAX_CHARS:
        return grade
    return replace(grade, extracted=grade.extracted[:MAX_CHARS])


def score_outcomes(
    items: Sequence[BenchmarkItem], outcomes: Sequence[Outcome], settings: EvaluationSettings
) -> dict[str, Any]:
    """Scores over all items of the benchmark; missing answers count as wrong.

    Lengths are unknown here, so the figures about tokens are left out.
    """
    labels = {item.id: item.labels for item in items}
    with MathGrader(num_workers=settings.num_workers) as grader:
        scores = score_benchmark(outcomes, settings, labels=labels, compare=grader.compare)
    return {k: v for k, v in scores.items() if "token" not in k}


def load_items(recipe: Recipe, name_or_file: str) -> list[BenchmarkItem]:
    """Items of a recipe's benchmark or of a file.

    Raises:
        ConfigError: Neither a benchmark's name nor a file.
        SourceError: The file cannot be read.
    """
    return load_benchmark(recipe, choose_benchmark(recipe, name_or_file))
