"""Benchmark items: the curriculum keeps them out of training data, evaluation asks them.

Inputs: JSONL, JSONL.gz or Parquet whose columns are mapped by ``[[benchmarks]]``. A file that is
not what the recipe says stops the run: a wrong benchmark makes every score and every
decontamination meaningless.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.benchmark_items import BenchmarkItem, MathGold, ProgramTests
from pipeline.contamination import BenchmarkIndex, ItemText
from pipeline.errors import GateRefused, SourceError
from pipeline.hashing import file_sha256
from pipeline.manifest import InputRef
from pipeline.settings.benchmarks import BenchmarkSettings
from pipeline.settings.recipe import Recipe
from pipeline.store import read_rows


def benchmark_path(recipe: Recipe, settings: BenchmarkSettings) -> Path:
    """The benchmark's file, checked against the recorded hash when the recipe has one.

    Raises:
        SourceError: The file is missing.
        GateRefused: Its content is not what the recipe was written for.
    """
    path = recipe.file(settings.path)
    if not path.is_file():
        raise SourceError(
            f"benchmark {settings.name!r}: file not found: {path}",
            hint="check its `path` in the recipe (relative to the recipe's folder)",
        )
    if settings.sha256 is not None and (found := file_sha256(path)) != settings.sha256:
        raise GateRefused(
            f"benchmark {settings.name!r}: {path} has sha256 {found}, "
            f"the recipe expects {settings.sha256}",
            hint="restore the original file, or correct `sha256` if you meant to change it",
        )
    return path


def load_benchmark(recipe: Recipe, settings: BenchmarkSettings) -> list[BenchmarkItem]:
    """Read all items of one benchmark, in file order.

    Raises:
        SourceError: The file is missing, unreadable, empty, lacks a column, holds a value of the
            wrong kind or an id twice, or has another number of items than the recipe says.
        GateRefused: The file's sha256 is not the recorded one.
    """
    path = benchmark_path(recipe, settings)
    items = [
        _read_item(settings, f"benchmark {settings.name!r}: {path}, row {number}", number, row)
        # The whole file first: damage at its end matters more than a column that is not mapped.
        for number, row in enumerate(list(_read_file(path)), start=1)
    ]
    if not items:
        raise SourceError(
            f"benchmark {settings.name!r}: {path} has no rows", hint="pass a file with items"
        )
    _require_unique(settings, path, items)
    if settings.expected_items is not None and len(items) != settings.expected_items:
        raise SourceError(
            f"benchmark {settings.name!r}: {path} has {len(items)} items, "
            f"the recipe expects {settings.expected_items}",
            hint="pass the complete file, or correct `expected_items`",
        )
    return items


def load_benchmark_items(recipe: Recipe) -> list[ItemText]:
    """The items of all ``[[benchmarks]]`` of a recipe, as decontamination sees them.

    Raises:
        SourceError: A benchmark's file cannot be read.
    """
    return [
        ItemText(item.benchmark, item.id, item.question, item.domain)
        for settings in recipe.settings.benchmarks
        for item in load_benchmark(recipe, settings)
    ]


def load_benchmark_index(recipe: Recipe, stored: Path | None = None) -> BenchmarkIndex:
    """The items of all ``[[benchmarks]]`` of a recipe, ready to be searched for.

    Args:
        recipe: Names the files.
        stored: Tables that an index of the same recipe stored.

    Raises:
        SourceError: A benchmark's file cannot be read.
    """
    items = load_benchmark_items(recipe)
    return BenchmarkIndex(items, recipe.settings.curriculum.decontamination, stored)


def benchmark_inputs(recipe: Recipe) -> list[InputRef]:
    """The benchmarks' files as inputs of a stage that decontaminates.

    Raises:
        SourceError: A file is missing.
        GateRefused: A file's content is not what the recipe was written for.
    """
    return [
        InputRef(
            name=f"benchmark:{settings.name}", version=file_sha256(benchmark_path(recipe, settings))
        )
        for settings in recipe.settings.benchmarks
    ]


def _require_unique(settings: BenchmarkSettings, path: Path, items: list[BenchmarkItem]) -> None:
    first_rows: dict[str, int] = {}
    for number, item in enumerate(items, start=1):
        first = first_rows.setdefault(item.id, number)
        if first != number:
            raise SourceError(
                f"benchmark {settings.name!r}: {path}, row {number}: {settings.id_field} "
                f"{item.id!r} was used by row {first} already",
                hint="give every item its own id",
            )


def _read_file(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        return read_rows(path)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return read_json_lines(path)
    raise SourceError(
        f"{path}: benchmarks are read from .jsonl, .jsonl.gz or .parquet",
        hint="convert the file, or correct its `path`",
    )


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the objects of a JSONL file, gzip-compressed when its name ends in ``.gz``.

    Raises:
        SourceError: The file is missing or damaged, or a line is not a JSON object.
    """
    if not path.is_file():
        raise SourceError(f"file not found: {path}", hint="check the path")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as handle:
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    yield _parse_line(path, number, line)
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as exc:
        raise SourceError(
            f"{path}: cannot be read ({exc})", hint="download this file again; it is damaged"
        ) from exc


def _parse_line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as exc:
        raise SourceError(
            f"{path}, line {number}: not valid JSON ({exc})", hint="correct that line"
        ) from exc
    if not isinstance(value, dict):
        raise SourceError(
            f"{path}, line {number}: expected a JSON object, found {type(value).__name__}",
            hint="write one object per line",
        )
    return value


def _read_item(
    settings: BenchmarkSettings, where: str, number: int, row: dict[str, Any]
) -> BenchmarkItem:
    question = _cut_wrapper(settings, where, _text(where, row, settings.question_field)).strip()
    if settings.strip_suffix:
        question = question.removesuffix(settings.strip_suffix.strip()).strip()
    if not question:
        raise SourceError(
            f"{where}: field {settings.question_field!r} holds no question",
            hint="remove the row or correct `question_field` and what is cut from it",
        )
    gold: MathGold | None = None
    tests: ProgramTests | None = None
    if settings.is_scored and settings.domain == "math":
        gold = MathGold(text=_text(where, row, settings.answer_field))
    elif settings.is_scored:
        cases = _read_tests(where, row, settings.tests_field)
        tests = ProgramTests(kind="stdin", cases=cases)
    return BenchmarkItem(
        id=_text(where, row, settings.id_field) if settings.id_field else f"{number:05d}",
        benchmark=settings.name,
        domain=settings.domain,
        question=question,
        gold=gold,
        tests=tests,
    )


def _cut_wrapper(settings: BenchmarkSettings, where: str, text: str) -> str:
    """The text between the wrapper's two ends; a row without them is not what the recipe says."""
    start, end = 0, len(text)
    if settings.question_after:
        found = text.find(settings.question_after)
        if found < 0:
            raise SourceError(
                f"{where}: field {settings.question_field!r} does not hold "
                f"{settings.question_after!r}",
                hint="correct `question_after`",
            )
        start = found + len(settings.question_after)
    if settings.question_until:
        ends = [text.find(marker, start) for marker in settings.question_until]
        if not (present := [position for position in ends if position >= 0]):
            raise SourceError(
                f"{where}: field {settings.question_field!r} holds none of "
                f"{', '.join(map(repr, settings.question_until))}",
                hint="correct `question_until`",
            )
        end = min(present)
    return text[start:end]


def _value(where: str, row: dict[str, Any], field: str) -> Any:
    if field not in row:
        raise SourceError(
            f"{where}: no field {field!r}; it has {', '.join(sorted(row)) or 'none'}",
            hint="map the columns with id_field, question_field, answer_field and tests_field",
        )
    return row[field]


def _text(where: str, row: dict[str, Any], field: str) -> str:
    value = _value(where, row, field)
    # Ids and answers are often written as numbers.
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise SourceError(
            f"{where}: field {field!r} should be a text that is not empty, found {value!r}",
            hint="correct this row, or map another column",
        )
    return value


def _read_tests(where: str, row: dict[str, Any], field: str) -> tuple[dict[str, str], ...]:
    tests = _value(where, row, field)
    if not isinstance(tests, list) or not tests:
        raise SourceError(
            f"{where}: field {field!r} should be a list of tests that is not empty",
            hint="write [{'input': ..., 'output': ...}, ...]",
        )
    for position, test in enumerate(tests):
        texts = [test.get(key) for key in ("input", "output")] if isinstance(test, dict) else []
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise SourceError(
                f"{where}: {field}[{position}] should hold the texts 'input' and 'output'",
                hint="write {'input': ..., 'output': ...}",
            )
    return tuple({"input": test["input"], "output": test["output"]} for test in tests)
