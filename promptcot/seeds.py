"""Read seed problems from files of any column names.

Input: JSON (a list of objects), JSONL, both also ``.gz``, or Parquet, as ``[[synthesis.seeds]]``
describes. Output: one :class:`SeedProblem` a row, or a :class:`Rejected` that says what is wrong
with it. Rows are streamed; a file that is wrong as a whole is a :class:`SourceError`.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, get_args

from pipeline import console
from pipeline.domain_names import DOMAIN_SPELLINGS
from pipeline.errors import SourceError
from pipeline.records import Domain, Rejected
from pipeline.settings.concepts import SeedField, SeedSourceSettings
from pipeline.settings.recipe import Recipe
from promptcot.seed_files import read_objects

STAGE = "extracted"
"""The stage under whose name unusable rows are counted."""

USUAL_NAMES: Mapping[SeedField, tuple[str, ...]] = {
    "id": ("id", "unique_id", "source_id", "uid", "task_id", "question_id", "problem_id", "idx"),
    "problem": (
        "problem",
        "question",
        "prompt",
        "instruction",
        "statement",
        "problem_statement",
        "forum_post",
        "description",
        "text",
        "input",
    ),
    "solution": ("solution", "solutions", "reference_solution", "worked_solution"),
    "answer": (
        "answer",
        "final_answer",
        "expected_answer",
        "reference_answer",
        "golden_answer",
        "gold_answer",
        "label_answer",
    ),
    "rationale": ("rationale",),
    "concepts": ("concepts", "foundational_concepts", "knowledge_points", "key_concepts"),
    "level": ("level", "difficulty", "difficulty_level"),
    "domain": ("domain",),
}
"""Where a field is looked for when the recipe does not map it; the first that exists wins."""

_PEEKED_ROWS = 64
"""Rows from which columns are chosen; when all of them are unusable, so is the file."""
_MAX_LITERAL_CHARS = 20_000
"""A concept list written as text is not longer than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedProblem:
    """One row of a seed file: a problem, a concept list, or both."""

    source: str
    source_id: str
    problem: str | None
    solution: str | None = None
    answer: str | None = None
    rationale: str | None = None
    concepts: tuple[str, ...] | None = None
    level: str | None = None
    domain: Domain
    licence: str = ""


def read_seed_source(
    recipe: Recipe, settings: SeedSourceSettings
) -> Iterator[SeedProblem | Rejected]:
    """Stream the rows of one ``[[synthesis.seeds]]`` entry.

    Raises:
        SourceError: The file is missing, unreadable or empty, lacks a mapped column, has neither
            problems nor concepts, or none of its first rows is usable.
    """
    path = recipe.file(settings.path)
    objects = read_objects(path)
    if settings.max_rows:
        objects = islice(objects, settings.max_rows)
    first = list(islice(objects, _PEEKED_ROWS))
    if not first:
        raise SourceError(f"{path}: no rows in it", hint="pass a file with seed problems")
    reader = _RowReader(settings, _choose_columns(path, settings, first))
    peeked = [reader.read(number, row) for number, row in enumerate(first, start=1)]
    refused = [row for row in peeked if isinstance(row, Rejected)]
    if len(refused) == len(peeked):
        raise SourceError(
            f"{path}: none of its first {len(peeked)} rows is usable; row 1: "
            f"{refused[0].reason} ({refused[0].detail})",
            hint="map its columns in [[synthesis.seeds]] (columns = {problem = …, concepts = …})",
        )
    rest = (reader.read(number, row) for number, row in enumerate(objects, start=len(first) + 1))
    return chain(peeked, rest)


def _choose_columns(
    path: Path, settings: SeedSourceSettings, rows: list[dict[str, Any]]
) -> dict[SeedField, str]:
    """Our field → the file's column, mapped or found under a usual name."""
    present = dict.fromkeys(name for row in rows for name in row)
    chosen: dict[SeedField, str] = {}
    for field in get_args(SeedField):
        if field in settings.columns:
            column = settings.columns[field]
            if column and column not in present:
                raise SourceError(
                    f"{path}: no column {column!r}, which [[synthesis.seeds]] {settings.name!r} "
                    f"maps to {field!r}; it has {', '.join(present)}",
                    hint="correct `columns` of this source",
                )
        else:
            column = next((name for name in USUAL_NAMES[field] if name in present), "")
        if column:
            chosen[field] = column
    if "problem" not in chosen and "concepts" not in chosen:
        raise SourceError(
            f"{path}: neither problems nor concepts found; it has {', '.join(present)}",
            hint='say where they are, e.g. columns = {problem = "title"}',
        )
    if "domain" not in chosen and settings.domain is None:
        raise SourceError(
            f"{path}: no column tells the domain of its rows",
            hint=f'set domain = "math" or "code" at the seed source {settings.name!r}',
        )
    return chosen


def describe_columns(recipe: Recipe, settings: SeedSourceSettings) -> None:
    """Say in one line which column of a seed file is taken for what.

    Raises:
        SourceError: As :func:`read_seed_source`.
    """
    path = recipe.file(settings.path)
    first = list(islice(read_objects(path), _PEEKED_ROWS))
    chosen = _choose_columns(path, settings, first)
    taken = ", ".join(
        field if field == column else f"{field} from {column!r}" for field, column in chosen.items()
    )
    console.say(f"seeds {settings.name}: {taken}")


class _Unusable(Exception):
    """A value that makes its row unusable."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class _RowReader:
    """Turns a file's rows into seed problems."""

    def __init__(self, settings: SeedSourceSettings, columns: Mapping[SeedField, str]) -> None:
        self._settings = settings
        self._columns = columns

    def read(self, number: int, row: dict[str, Any]) -> SeedProblem | Rejected:
        row_id = f"{number:06d}"
        try:
            row_id = self._text(row, "id") or row_id
            return self._read(row_id, row)
        except _Unusable as exc:
            return Rejected(
                row_id=f"{self._settings.name}/{row_id}",
                stage=STAGE,
                reason=exc.reason,
                detail=f"row {number}: {exc.detail}",
            )

    def _read(self, row_id: str, row: dict[str, Any]) -> SeedProblem:
        seed = SeedProblem(
            source=self._settings.name,
            source_id=row_id,
            problem=self._text(row, "problem"),
            solution=self._first_text(row, "solution"),
            answer=self._first_text(row, "answer"),
            rationale=self._text(row, "rationale"),
            concepts=self._concepts(row),
            level=self._level(row),
            domain=self._domain(row),
            licence=self._settings.licence,
        )
        # Concepts alone will do where the file has no problems at all.
        wanted: SeedField = "problem" if "problem" in self._columns else "concepts"
        if not getattr(seed, wanted):
            column = self._columns[wanted]
            raise _Unusable(f"empty_{wanted}", f"column {column!r} ({wanted}) holds nothing")
        return replace(seed, concepts=seed.concepts or None)

    def _value(self, row: dict[str, Any], field: SeedField) -> Any:
        column = self._columns.get(field)
        return None if column is None else row.get(column)

    def _text(self, row: dict[str, Any], field: SeedField) -> str | None:
        """A text, or a number as text; nothing for null and blanks."""
        value = self._value(row, field)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = _plain_number(value)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if not isinstance(value, str):
            raise _Unusable(
                "wrong_type",
                f"column {self._columns[field]!r} ({field}) should be text, "
                f"found {type(value).__name__}",
            )
        # Half of a surrogate pair cannot be written to any file.
        return value.encode("utf-8", "replace").decode("utf-8").strip()

    def _first_text(self, row: dict[str, Any], field: SeedField) -> str | None:
        """A text, or the first of a list of texts: some files keep several solutions."""
        value = self._value(row, field)
        if isinstance(value, list):
            column = self._columns[field]
            first = next((item for item in value if isinstance(item, str)), None)
            return self._text({**row, column: first}, field)
        return self._text(row, field)

    def _level(self, row: dict[str, Any]) -> str | None:
        level = self._text(row, "level")
        if level is None:
            return self._settings.level
        return self._settings.levels.get(level, level)

    def _domain(self, row: dict[str, Any]) -> Domain:
        value = self._value(row, "domain")
        # Some files hold paths such as "Mathematics -> Algebra", or a list of them.
        first = value[0] if isinstance(value, list) and value else value
        word = first.partition("->")[0].strip().lower() if isinstance(first, str) else ""
        domain = DOMAIN_SPELLINGS.get(word, self._settings.domain)
        if domain is None:
            raise _Unusable(
                "unknown_domain", f"{value!r} is no domain, and the source sets no `domain`"
            )
        return domain

    def _concepts(self, row: dict[str, Any]) -> tuple[str, ...] | None:
        value = self._value(row, "concepts")
        if isinstance(value, str) and value.strip():
            value = _parse_list(value)
        if value is None or value == "":
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise _Unusable(
                "bad_concepts",
                f"column {self._columns['concepts']!r} should be a list of names, found "
                f"{str(self._value(row, 'concepts'))[:80]!r}",
            )
        return tuple(item.strip() for item in value if item.strip())


def _parse_list(text: str) -> Any:
    """A JSON or Python list written as text; anything else stays text."""
    if len(text) > _MAX_LITERAL_CHARS:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # also a number of more than 4,300 digits
        pass
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return list(value) if isinstance(value, list | tuple) else text


def _plain_number(value: float) -> str:
    """5.0 → "5", 4.5 → "4.5"."""
    return str(int(value)) if float(value).is_integer() else str(value)
