"""Gold answers and official tests of benchmark rows, in the layouts in which they are published."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, get_args

from pipeline.benchmark_items import AnswerKind, MathGold, ProgramTests
from pipeline.benchmark_rows import FoundRow, find_text, get_text, get_value
from pipeline.errors import SourceError
from pipeline.settings.benchmarks import ReadingSettings

_KINDS: dict[str, AnswerKind] = {kind: kind for kind in get_args(AnswerKind)}
_KINDS["numerical"] = "numeric"
_OPENING, _CLOSING = "([{", ")]}"
_PROSE = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3,}")
"""A word, not the name of a command."""
_INTEGER = re.compile(r"[+-]?\d+")


def read_gold(row: FoundRow, reading: ReadingSettings) -> MathGold:
    """The gold answer of a row.

    Raises:
        SourceError: A column is missing or holds something else.
    """
    text = _cut_answer(row, reading)
    if reading.answer_type == "integer" and not _INTEGER.fullmatch(text):
        raise SourceError(
            f"{row.where}: field {reading.answer_field!r} should be an integer, found {text!r}",
            hint="correct this row, or `answer_type`",
        )
    is_multiple = bool(reading.multiple_field) and _read_flag(row, reading.multiple_field)
    return MathGold(
        text=text,
        parts=split_answers(text) if is_multiple else (),
        kind=_read_kind(row, reading),
        unit=find_text(row, reading.unit_field) if reading.unit_field else "",
        tolerance=_read_number(row, reading.tolerance_field) if reading.tolerance_field else None,
    )


def split_answers(text: str) -> tuple[str, ...]:
    """The parts of an answer that lists several, without dollar signs; none where it is one.

    Commas inside brackets separate coordinates, not answers. An answer that explains itself
    ("..., where b is any integer") is left whole.
    """
    parts, depth, start = [], 0, 0
    bare = text.replace("$", "")
    for position, sign in enumerate(bare):
        if sign in _OPENING:
            depth += 1
        elif sign in _CLOSING:
            depth -= 1
        elif sign == "," and depth == 0:
            parts.append(bare[start:position].strip())
            start = position + 1
    parts.append(bare[start:].strip())
    if len(parts) < 2 or not all(parts) or any(_PROSE.search(part) for part in parts):
        return ()
    return tuple(parts)


def read_stdin_tests(row: FoundRow, field: str) -> ProgramTests:
    """Tests of a program that reads standard input: a list of {input, output}.

    Raises:
        SourceError: The column is missing or holds something else.
    """
    tests = get_value(row, field)
    if not isinstance(tests, list) or not tests:
        raise SourceError(
            f"{row.where}: field {field!r} should be a list of tests that is not empty",
            hint="write [{'input': ..., 'output': ...}, ...]",
        )
    for position, test in enumerate(tests):
        texts = [test.get(key) for key in ("input", "output")] if isinstance(test, dict) else []
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise SourceError(
                f"{row.where}: {field}[{position}] should hold the texts 'input' and 'output'",
                hint="write {'input': ..., 'output': ...}",
            )
    cases = tuple({"input": test["input"], "output": test["output"]} for test in tests)
    return ProgramTests(kind="stdin", cases=cases)


def read_humaneval(row: FoundRow) -> ProgramTests:
    """HumanEval: a prompt to complete, and ``check(candidate)``.

    Raises:
        SourceError: A column is missing or holds something else.
    """
    return ProgramTests(
        kind="check",
        entry_point=get_text(row, "entry_point"),
        prompt=get_text(row, "prompt"),
        check=get_text(row, "test"),
    )


def read_humaneval_plus(row: FoundRow, *, within_contract: bool) -> ProgramTests:
    """HumanEval+: inputs, whose outputs the canonical solution gives.

    Args:
        row: In EvalPlus's layout.
        within_contract: Inputs that break the contract do not count.

    Raises:
        SourceError: A column is missing or holds something else.
    """
    prompt = get_text(row, "prompt")
    inputs = [*_read_inputs(row, "base_input"), *_read_inputs(row, "plus_input")]
    return ProgramTests(
        kind="reference",
        entry_point=get_text(row, "entry_point"),
        prompt=prompt,
        reference=prompt + get_text(row, "canonical_solution"),
        inputs=json.dumps(inputs, ensure_ascii=False, separators=(",", ":")),
        contract=find_text(row, "contract"),
        within_contract=within_contract,
        atol=_read_number(row, "atol") or 0.0,
    )


def _cut_answer(row: FoundRow, reading: ReadingSettings) -> str:
    value = get_value(row, reading.answer_field)
    # OlympiadBench has a list with one text.
    if isinstance(value, list) and len(value) == 1:
        row = replace(row, values={reading.answer_field: value[0]})
    text = get_text(row, reading.answer_field)
    if reading.answer_after:
        before, found, text = text.rpartition(reading.answer_after)
        if not found or not text.strip():
            shown = before or text
            raise SourceError(
                f"{row.where}: field {reading.answer_field!r} has no answer after "
                f"{reading.answer_after!r}: {shown[-60:]!r}",
                hint="correct this row, or `answer_after`",
            )
    return text.strip()


def _read_kind(row: FoundRow, reading: ReadingSettings) -> AnswerKind:
    if not reading.answer_type_field:
        return reading.answer_type
    stated = get_text(row, reading.answer_type_field)
    kind = _KINDS.get(stated.lower())
    if kind is None:
        raise SourceError(
            f"{row.where}: field {reading.answer_type_field!r} holds the unknown kind {stated!r}",
            hint=f"use one of {', '.join(_KINDS)}",
        )
    return kind


def _read_flag(row: FoundRow, field: str) -> bool:
    value = get_value(row, field)
    if not isinstance(value, bool):
        raise SourceError(
            f"{row.where}: field {field!r} should be true or false, found {value!r}",
            hint="correct this row, or map another column",
        )
    return value


def _read_number(row: FoundRow, field: str) -> float | None:
    """A number, written as such or as text; none where it is null or empty."""
    text = find_text(row, field)
    try:
        return float(text) if text else None
    except ValueError as exc:
        raise SourceError(
            f"{row.where}: field {field!r} should be a number, found {text!r}",
            hint="correct this row, or map another column",
        ) from exc


def _read_inputs(row: FoundRow, field: str) -> list[Any]:
    """Argument lists, as a list or as JSON text."""
    value = get_value(row, field)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as exc:
            raise SourceError(
                f"{row.where}: field {field!r} is not valid JSON ({exc})", hint="correct this row"
            ) from exc
    if not isinstance(value, list) or not all(isinstance(arguments, list) for arguments in value):
        raise SourceError(
            f"{row.where}: field {field!r} should be a list of argument lists",
            hint="pass the file as its publisher released it",
        )
    return value
