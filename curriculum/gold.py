"""Hold answers against what a source knows: a gold answer in maths, tests of a program.

Only rows whose source has one are looked at. A right answer makes its row verified, a wrong one is
refused, and what nobody can compare stays as it is. Programs are run only where the recipe asks
for it, in the sandbox of :mod:`promptcot.verification`.
"""

from __future__ import annotations

import atexit
import json
import re
from collections.abc import Sequence
from functools import cache
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

_NUMBER_IN_BOLD = re.compile(r"\\(?:textbf|mathbf)\{\s*\(?(\d+)\)?[\s.]*\}")
"""How forums set a contest's numeric answer: ``\\textbf{(051) }`` is 51."""

Outcome = PreparedRow | Rejected


def check_answers(rows: Sequence[Outcome], settings: ValidationSettings) -> list[Outcome]:
    """The rows, in order, with what the checks made of them.

    Raises:
        SandboxError: A grader does not start.
    """
    checked = list(rows)
    if settings.check_gold:
        _check_maths(checked)
    if settings.run_tests:
        _check_programs(checked, settings.test_timeout_s)
    return checked


def _check_maths(rows: list[Outcome]) -> None:
    pairs: dict[int, tuple[str, str]] = {}
    for place, row in enumerate(rows):
        if isinstance(row, PreparedRow) and row.candidate.gold and row.candidate.domain == "math":
            pair = read_pair(row)
            if pair is not None:
                pairs[place] = pair
    if not pairs:
        return
    for place, verdict in zip(pairs, _math_grader().compare(list(pairs.values())), strict=True):
        row = rows[place]
        if isinstance(row, PreparedRow):
            rows[place] = _judge_answer(row, pairs[place], verdict)


def _check_programs(rows: list[Outcome], timeout_s: float) -> None:
    from promptcot.verification.code_tests import extract_python

    programs = {}
    for place, row in enumerate(rows):
        if isinstance(row, PreparedRow) and row.candidate.tests:
            source = extract_python(row.answer)
            if source is not None:
                programs[place] = (source, json.loads(row.candidate.tests))
    if not programs:
        return
    results = _code_grader(timeout_s).grade(list(programs.values()))
    for place, result in zip(programs, results, strict=True):
        row = rows[place]
        if isinstance(row, PreparedRow):
            detail = f"{result.reason}: {result.detail}"
            refused = refuse(row.candidate.row_id, STAGE, "tests_failed", detail)
            rows[place] = _verified(row) if result.passed else refused


# One of each for the life of a process: starting one takes a second.
@cache
def _math_grader() -> MathGrader:
    from promptcot.verification.math_answers import MathGrader

    grader = MathGrader(num_workers=1)
    atexit.register(grader.close)
    return grader


@cache
def _code_grader(timeout_s: float) -> CodeGrader:
    from promptcot.verification.code_tests import CodeGrader

    grader = CodeGrader(timeout_s=timeout_s, num_workers=1)
    atexit.register(grader.close)
    return grader


def read_pair(row: PreparedRow) -> tuple[str, str] | None:
    """The gold answer and the row's own, or ``None`` where there are not both."""
    from promptcot.verification.math_boxes import extract_boxed

    gold = read_gold(row.candidate.gold or "")
    found = extract_boxed(row.answer)
    return None if gold is None or found is None else (gold, found)


def read_gold(text: str) -> str | None:
    """The final answer in a source's gold text: boxed, behind ``####``, or the text itself."""
    from promptcot.verification.math_boxes import extract_boxed

    if "\\boxed" in text:
        boxed = extract_boxed(text)
        numbered = _NUMBER_IN_BOLD.fullmatch(boxed or "")
        return numbered[1] if numbered else boxed
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
    return row._replace(candidate=row.candidate._replace(is_verified=True))
