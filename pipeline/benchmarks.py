"""Benchmarks: the curriculum keeps them out of training data, evaluation asks them.

Inputs: JSONL, JSONL.gz or Parquet whose columns are mapped by ``[[benchmarks]]``. A file that is
not what the recipe says stops the run: a wrong benchmark makes every score and every
decontamination meaningless.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.benchmark_answers import (
    read_gold,
    read_humaneval,
    read_humaneval_plus,
    read_stdin_tests,
)
from pipeline.benchmark_hashes import hash_content, hash_ids, hash_questions, hash_scored
from pipeline.benchmark_items import BenchmarkItem, ProgramTests
from pipeline.benchmark_rows import (
    FoundRow,
    PlacedRow,
    find_text,
    get_text,
    get_value,
    iterate_rows,
)
from pipeline.benchmark_sources import Located, file_content_sha256, locate
from pipeline.errors import GateRefused, SourceError
from pipeline.item_texts import ItemText
from pipeline.livecodebench import is_in_window, iterate_stored, read_stored_tests
from pipeline.manifest import InputRef
from pipeline.settings.benchmarks import BenchmarkSettings, Grader, ReadingSettings
from pipeline.settings.recipe import Recipe

_PLACEHOLDER = re.compile(r"\{(question|starter_code)\}")
_MOST_KEPT = 16
_read_before: dict[Any, tuple[list[BenchmarkItem], str]] = {}
"""Items of files that this process has read, and the hash of their questions; a command asks for
the same ones several times."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """One benchmark's files, and how they are read."""

    settings: BenchmarkSettings
    located: Located
    with_answers: bool

    @property
    def name(self) -> str:
        return f"benchmark {self.settings.name!r}"

    @property
    def files(self) -> str:
        return ", ".join(str(file) for file in self.located.files)


def load_benchmark(recipe: Recipe, settings: BenchmarkSettings) -> list[BenchmarkItem]:
    """All items of one benchmark in file order, with what their answers are graded by.

    Raises:
        ConfigError: It is to come from the hub, and no commit is pinned.
        SourceError: The file is missing, unreadable, empty, lacks a column or the answers, holds a
            value of the wrong kind or an id twice.
        GateRefused: It is not the benchmark that the recipe names: another number of items, or
            another hash.
    """
    return _load(recipe, settings, with_answers=settings.is_scored)


def load_questions(recipe: Recipe, settings: BenchmarkSettings) -> list[BenchmarkItem]:
    """All items of one benchmark; a file with the statements alone will do.

    Raises:
        ConfigError: It is to come from the hub, and no commit is pinned.
        SourceError: As :func:`load_benchmark`.
        GateRefused: As :func:`load_benchmark`.
    """
    return _load(recipe, settings, with_answers=False)


def load_benchmark_items(recipe: Recipe) -> list[ItemText]:
    """The items of all ``[[benchmarks]]`` of a recipe, as decontamination sees them.

    Raises:
        SourceError: A benchmark's file cannot be read.
    """
    return [
        ItemText(item.benchmark, item.id, item.question, item.domain)
        for settings in recipe.settings.benchmarks
        for item in load_questions(recipe, settings)
    ]


def benchmark_inputs(recipe: Recipe) -> list[InputRef]:
    """The benchmarks' questions as inputs of a stage that decontaminates.

    Raises:
        SourceError: A file is missing.
        GateRefused: A file's content is not what the recipe was written for.
    """
    return [
        InputRef(
            name=f"benchmark:{settings.name}",
            version=_find(recipe, settings, with_answers=False)[1],
        )
        for settings in recipe.settings.benchmarks
    ]


def scored_inputs(recipe: Recipe) -> list[InputRef]:
    """The benchmarks with answers, tests and prompts as inputs of an evaluation.

    Raises:
        SourceError: A file is missing.
        GateRefused: A file's content is not what the recipe was written for.
    """
    return [
        InputRef(
            name=f"benchmark:{settings.name}",
            version=hash_scored(load_benchmark(recipe, settings)),
        )
        for settings in recipe.settings.benchmarks
        if settings.is_scored
    ]


def _load(
    recipe: Recipe, settings: BenchmarkSettings, *, with_answers: bool
) -> list[BenchmarkItem]:
    return list(_find(recipe, settings, with_answers=with_answers)[0])


def _find(
    recipe: Recipe, settings: BenchmarkSettings, *, with_answers: bool
) -> tuple[list[BenchmarkItem], str]:
    """The items, which are everybody's, and the hash of their questions."""
    reading = _Reading(
        settings, locate(recipe, settings, questions_only=not with_answers), with_answers
    )
    stamps = [(file, (s := file.stat()).st_size, s.st_mtime_ns) for file in reading.located.files]
    key = (settings.model_dump_json(), reading.located, with_answers, tuple(stamps))
    if key not in _read_before:
        if len(_read_before) >= _MOST_KEPT:
            _read_before.clear()
        items = _read_located(reading)
        _read_before[key] = (items, hash_questions(items))
    return _read_before[key]


def _read_located(reading: _Reading) -> list[BenchmarkItem]:
    """Read and check the items of files that were found."""
    _check_files(reading)
    items = list(_read_items(reading))
    if not items:
        raise SourceError(
            f"{reading.name}: {reading.files} has no rows", hint="pass a file with items"
        )
    _check_items(reading, items)
    return items


def _check_files(reading: _Reading) -> None:
    """Hold files to their recorded hashes."""
    settings, located = reading.settings, reading.located
    expected: dict[Path, str] = {}
    if settings.sha256 and located.origin in ("path", "url") and not located.is_statements:
        expected[located.files[0]] = settings.sha256
    if reading.with_answers:
        known = settings.files_sha256
        expected |= {file: known[file.name] for file in located.files if file.name in known}
    for file, sha256 in expected.items():
        if (found := file_content_sha256(file)) != sha256:
            raise GateRefused(
                f"{reading.name}: {file} has sha256 {found}, the recipe expects {sha256}",
                hint="restore the original file, or correct `sha256` if you meant to change it",
            )


def _check_items(reading: _Reading, items: Sequence[BenchmarkItem]) -> None:
    """Hold the items to their recorded number and hashes."""
    settings = reading.settings
    if settings.expected_items and len(items) != settings.expected_items:
        raise GateRefused(
            f"{reading.name}: {reading.files} has {len(items)} items, "
            f"the recipe expects {settings.expected_items}",
            hint="pass the complete file, or correct `expected_items`",
        )
    if settings.ids_sha256 and (found := hash_ids(items)) != settings.ids_sha256:
        raise GateRefused(
            f"{reading.name}: the ids of {reading.files} have sha256 {found}, "
            f"the recipe expects {settings.ids_sha256}: these are other items",
            hint="pass the original file, or correct `ids_sha256` if you meant to change it",
        )
    if not settings.content_sha256 or not _is_content_known(reading):
        return
    if (found := hash_content(items)) != settings.content_sha256:
        raise GateRefused(
            f"{reading.name}: the items of {reading.files} have content hash {found}, "
            f"the recipe expects {settings.content_sha256}",
            hint="restore the original file, or set `content_sha256` if you meant to change it",
        )


def _is_content_known(reading: _Reading) -> bool:
    """Whether everything that the content hash covers was read: not of statements alone."""
    if reading.located.is_statements:
        return False
    return reading.with_answers or reading.settings.scored_by != "livecodebench"


def _read_items(reading: _Reading) -> Iterator[BenchmarkItem]:
    """Items of all files, in order; those outside the window are left out."""
    layout: ReadingSettings | None = None
    first_places: dict[str, str] = {}
    for file in reading.located.files:
        for found in _iterate_file(reading, file):
            if layout is None:
                layout = _choose_layout(reading, found.values)
            where = f"{reading.name}: {file}, row {found.number}"
            row = FoundRow(found.values, where, found.place)
            if layout.date_field and not is_in_window(reading.settings, _read_day(row, layout)):
                continue
            item_id = get_text(row, layout.id_field) if layout.id_field else f"{found.number:05d}"
            place = f"row {found.number} of {file.name}"
            if (first := first_places.setdefault(item_id, place)) != place:
                field = layout.id_field or "number"
                raise SourceError(
                    f"{where}: {field} {item_id!r} was used by {first} already",
                    hint="give every item its own id",
                )
            yield _read_item(reading, layout, row, item_id=item_id)


def _iterate_file(reading: _Reading, file: Path) -> Iterable[PlacedRow]:
    settings = reading.settings
    if settings.scored_by == "livecodebench" and not reading.located.is_statements:
        return iterate_stored(file, settings, with_tests=reading.with_answers)
    # The whole file first: damage at its end matters more than a column that is not mapped.
    return list(iterate_rows(file))


def _choose_layout(reading: _Reading, values: dict[str, Any]) -> ReadingSettings:
    """The layout whose columns a row has."""
    settings = reading.settings
    if reading.located.is_statements and settings.statements is not None:
        return settings.statements
    # Without answers the file's test columns are not even read.
    hidden = set() if reading.with_answers else {"private_test_cases"}
    fitting = (layout for layout in settings.layouts if layout.columns() - hidden <= values.keys())
    layout = next(fitting, settings)
    if reading.with_answers and layout.resolve_grader(settings.domain) == "none":
        raise SourceError(
            f"{reading.name}: {reading.files} holds the questions alone, and nothing to grade "
            "answers with",
            hint='pass the benchmark\'s whole files by `path`, or set `grader` to "none" to keep '
            "the questions out of training data only",
        )
    return layout


def _read_item(
    reading: _Reading, layout: ReadingSettings, row: FoundRow, *, item_id: str
) -> BenchmarkItem:
    settings = reading.settings
    question = _cut_wrapper(layout, row, get_text(row, layout.question_field)).strip()
    if layout.strip_suffix:
        question = question.removesuffix(layout.strip_suffix.strip()).strip()
    if not question:
        raise SourceError(
            f"{row.where}: field {layout.question_field!r} holds no question",
            hint="remove the row or correct `question_field` and what is cut from it",
        )
    grader = layout.resolve_grader(settings.domain)
    if grader == "livecodebench" and not reading.with_answers:
        grader = "none"
    labels = {label: find_text(row, column) for label, column in layout.label_fields.items()}
    return BenchmarkItem(
        id=item_id,
        benchmark=settings.name,
        domain=settings.domain,
        question=question,
        prompt=_make_prompt(settings, row, question, grader),
        labels={**settings.labels, **labels},
        gold=read_gold(row, layout) if grader == "math" else None,
        tests=_read_tests(settings, layout, row, grader=grader),
    )


def _read_tests(
    settings: BenchmarkSettings, layout: ReadingSettings, row: FoundRow, *, grader: Grader
) -> ProgramTests | None:
    match grader:
        case "stdin":
            tests = read_stdin_tests(row, layout.tests_field)
        case "humaneval":
            tests = read_humaneval(row)
        case "humaneval_plus":
            tests = read_humaneval_plus(row, within_contract=settings.within_contract)
        case "livecodebench":
            tests = read_stored_tests(row, settings)
        case _:
            return None
    return replace(tests, time_limit_s=settings.time_limit_s)


def _make_prompt(settings: BenchmarkSettings, row: FoundRow, question: str, grader: Grader) -> str:
    """The task as the settings put it; empty where that is the question alone."""
    starter = find_text(row, "starter_code") if grader == "livecodebench" else ""
    template = settings.prompt_functional if starter else settings.prompt
    values = {"question": question, "starter_code": starter}
    # In one pass: statements hold braces of their own.
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)


def _read_day(row: FoundRow, layout: ReadingSettings) -> str:
    """An item's day, YYYY-MM-DD."""
    value = get_value(row, layout.date_field)
    if isinstance(value, datetime):
        return value.date().isoformat()
    try:
        return datetime.fromisoformat(str(value)).date().isoformat()
    except ValueError as exc:
        raise SourceError(
            f"{row.where}: field {layout.date_field!r} should be an ISO date, found {value!r}",
            hint="correct this row, or `date_field`",
        ) from exc


def _cut_wrapper(layout: ReadingSettings, row: FoundRow, text: str) -> str:
    """The text between the wrapper's two ends; a row without them is not what the recipe says."""
    start, end = 0, len(text)
    if layout.question_after:
        found = text.find(layout.question_after)
        if found < 0:
            raise SourceError(
                f"{row.where}: field {layout.question_field!r} does not hold "
                f"{layout.question_after!r}",
                hint="correct `question_after`",
            )
        start = found + len(layout.question_after)
    if layout.question_until:
        ends = [text.find(marker, start) for marker in layout.question_until]
        if not (present := [position for position in ends if position >= 0]):
            raise SourceError(
                f"{row.where}: field {layout.question_field!r} holds none of "
                f"{', '.join(map(repr, layout.question_until))}",
                hint="correct `question_until`",
            )
        end = min(present)
    return text[start:end]
