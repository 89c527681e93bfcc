"""Hold answers against what a source knows: a gold answer in maths, tests of a program.

Only rows whose source has one are looked at. A right answer makes its row verified, a wrong one is
refused, and what nobody can compare stays as it is. Programs are run only where the recipe asks
for it, in the sandbox of :mod:`promptcot.verification`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from curriculum.candidates import PreparedRow, refuse
from curriculum.validate import STAGE
from pipeline.records import Rejected
from pipeline.settings.validation import ValidationSettings

if TYPE_CHECKING:
    from promptcot.verification.code_tests import CodeGrader
    from promptcot.verification.math_answers import MathGrader

_MAX_GOLD_CHARS = 300
"""A longer gold text without a box is a solution, not an answer."""
_HASHES = re.compile(r"####\s*(.+)\s*$")

Outcome = PreparedRow | Rejected


class AnswerChecker:
    """Checks rows of one process; its graders start with the first row that needs them."""

    def __init__(self, settings: ValidationSettings) -> None:
        self._settings = settings
        self._math: MathGrader | None = None
        self._code: CodeGrader | None = None

    def check(self, rows: Sequence[Outcome]) -> list[Outcome]:
        """The rows, in order, with what the checks made of them.

        Raises:
            SandboxError: A grader does not start.
        """
        checked = list(rows)
        if self._settings.check_gold:
            self._check_answers(checked)
        if self._settings.run_tests:
            self._check_programs(checked)
        return checked

    def _check_answers(self, rows: list[Outcome]) -> None:
        pairs: dict[int, tuple[str, str]] = {}
        for place, row in enumerate(rows):
            if isinstance(row, PreparedRow) and row.candidate.gold and _is_math(row):
                pair = read_pair(row)
                if pair is not None:
                    pairs[place] = pair
        if not pairs:
            return
        for place, verdict in zip(pairs, self._compare(list(pairs.values())), strict=True):
            row = rows[place]
            if isinstance(row, PreparedRow):
                rows[place] = _judge_answer(row, pairs[place], verdict)

    def _compare(self, pairs: list[tuple[str, str]]) -> list[bool | None]:
        from promptcot.verification.math_answers import MathGrader

        if self._math is None:
            self._math = MathGrader(num_workers=1)
        return self._math.compare(pairs)

    def _check_programs(self, rows: list[Outcome]) -> None:
        from promptcot.verification.code_tests import CodeGrader, extract_python

        programs = {}
        for place, row in enumerate(rows):
            if isinstance(row, PreparedRow) and row.candidate.tests:
                source = extract_python(row.answer)
                if source is not None:
                    programs[place] = (source, json.loads(row.candidate.tests))
        if not programs:
            return
        if self._code is None:
            self._code = CodeGrader(timeout_s=self._settings.test_timeout_s, num_workers=1)
        for place, result in zip(programs, self._code.grade(list(programs.values())), strict=True):
            row = rows[place]
            if isinstance(row, PreparedRow):
                detail = f"{result.reason}: {result.detail}"
                rows[place] = (
                    _verified(row)
                    if result.passed
                    else refuse(row.candidate.row_id, STAGE, "tests_failed", detail)
                )

    def close(self) -> None:
        """End the graders' processes."""
        if self._math is not None:
            self._math.close()
        if self._code is not None:
            self._code.close()


def read_pair(row: PreparedRow) -> tuple[str, str] | None:
    """The gold answer and the row's own, or ``None`` where there are not both."""
    from promptcot.verification.math_answers import extract_boxed

    gold = read_gold(row.candidate.gold or "")
    found = extract_boxed(row.answer)
    return None if gold is None or found is None else (gold, found)


def read_gold(text: str) -> str | None:
    """The final answer in a source's gold text: boxed, behind ``####``, or the text itself."""
    from promptcot.verification.math_answers import extract_boxed

    if "\\boxed" in text:
        return extract_boxed(text)
    marked = _HASHES.search(text)
    if marked:
        return marked.group(1).strip()
    text = text.strip().strip("$").strip()
    return text if 0 < len(text) <= _MAX_GOLD_CHARS else None


def _judge_answer(row: PreparedRow, pair: tuple[str, str], verdict: bool | None) -> Outcome:
    if verdict is None:
        return row
    if verdict:
        return _verified(row)
    gold, found = pair
    detail = f"the source's answer is {gold[:100]!r}, the row's {found[:100]!r}"
    return refuse(row.candidate.row_id, STAGE, "wrong_answer", detail)


def _verified(row: PreparedRow) -> PreparedRow:
    return replace(row, candidate=replace(row.candidate, is_verified=True))


def _is_math(row: PreparedRow) -> bool:
    return row.candidate.domain == "math"
