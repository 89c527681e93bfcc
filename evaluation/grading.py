"""Grade answers: only what follows the thinking counts, and nothing is guessed from it.

A thought that never ends has no answer, and is reported as cut off where a limit ended it. There is
no fall-back to the last number of a text: it rewards rambling. Maths wants a box, code wants a
Python block. An answer of more than :data:`MAX_ANSWER_CHARS` characters is refused unread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from evaluation.code_grading import ProgramGrader
from pipeline.benchmark_items import BenchmarkItem, MathGold, ProgramTests
from pipeline.settings.evaluation import EvaluationSettings
from pipeline.student import THINK_CLOSE, THINK_OPEN
from promptcot.verification.code_tests import extract_python
from promptcot.verification.math_answers import MathGrader
from promptcot.verification.math_boxes import extract_answer
from promptcot.verification.math_text import MAX_CHARS

MAX_ANSWER_CHARS = 1_000_000
"""Of what follows the thinking; the paper's limit of 65,536 tokens is some 250,000 characters."""


@dataclass(frozen=True, slots=True)
class Grade:
    """The verdict on one answer."""

    correct: bool
    reason: str
    """``correct``, ``wrong``, ``truncated``, ``no_answer``, ``no_code``, ``too_long`` or what
    happened to a program."""
    extracted: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToGrade:
    """One answer and what it answers."""

    item: BenchmarkItem
    answer: str | None
    """The text after the thinking; none when the thought never ended."""
    truncated: bool = False
    """Whether a token limit ended the text."""


def split_completion(text: str) -> tuple[str, str | None]:
    """Thinking and answer of a text that continues a prefilled ``<think>``.

    The answer is none when the thought, or a later one, never ends.
    """
    thinking, closed, answer = text.partition(THINK_CLOSE)
    return thinking.strip(), _drop_thoughts(answer) if closed else None


def split_answer(text: str, *, is_cut: bool = False) -> str | None:
    """The part of any model's answer that follows its thinking.

    A text without think tags is all answer; one that opens a thought and never ends it has none.

    Args:
        text: As the model wrote it.
        is_cut: Whether a token limit ended it, and it is not known that it is no thought. Chat
            templates of reasoning models open the thought in the prompt, so that a thought which
            was cut off shows no tag: such a text without tags has no answer.
    """
    before, closed, answer = text.partition(THINK_CLOSE)
    if closed:
        return _drop_thoughts(answer)
    return None if is_cut or THINK_OPEN in before else text.strip()


def _drop_thoughts(answer: str) -> str | None:
    """An answer without the thoughts that interrupt it; none when the last of them never ends."""
    pieces, position = [], 0
    while (opened := answer.find(THINK_OPEN, position)) >= 0:
        pieces.append(answer[position:opened])
        closed = answer.find(THINK_CLOSE, opened)
        if closed < 0:
            return None
        position = closed + len(THINK_CLOSE)
    return "".join([*pieces, answer[position:]]).strip()


class AnswerGrader:
    """Grades answers of both domains; its processes start on first need.

    Raises:
        SandboxError: Programs are to be graded and cannot be executed safely here.
    """

    def __init__(self, settings: EvaluationSettings, *, has_code: bool) -> None:
        self._math = MathGrader(num_workers=settings.num_workers)
        self._code: ProgramGrader | None = None
        if has_code:
            self._code = ProgramGrader(
                timeout_s=settings.code_timeout_s,
                memory_limit_mib=settings.memory_limit_mib,
                num_workers=settings.num_workers,
                allow_unsandboxed=settings.allow_unsandboxed_code,
            )

    def __enter__(self) -> AnswerGrader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._math.close()
        if self._code is not None:
            self._code.close()

    def grade(self, answers: Sequence[ToGrade]) -> list[Grade]:
        """Verdicts on answers, in their order."""
        grades: dict[int, Grade] = {}
        math: list[tuple[int, ToGrade]] = []
        code: list[tuple[int, ToGrade]] = []
        for number, entry in enumerate(answers):
            if entry.answer is not None and len(entry.answer) > MAX_ANSWER_CHARS:
                grades[number] = Grade(
                    False, "too_long", detail=f"{len(entry.answer):,} characters after the thinking"
                )
            else:
                (math if entry.item.domain == "math" else code).append((number, entry))
        grades.update(self._grade_math(math))
        grades.update(self._grade_code(code))
        return [grades[number] for number in range(len(answers))]

    def _grade_math(self, answers: Sequence[tuple[int, ToGrade]]) -> dict[int, Grade]:
        grades, found = {}, {}
        for number, entry in answers:
            gold = _gold(entry.item)
            answer = extract_answer(entry.answer or "", gold)
            if answer is None:
                grades[number] = Grade(False, "truncated" if entry.truncated else "no_answer")
            else:
                found[number] = (gold, answer)
        verdicts = self._math.compare(list(found.values()))
        for (number, (_, answer)), equal in zip(found.items(), verdicts, strict=True):
            detail = _UNDECIDED if equal is None else ""
            reason = "correct" if equal else "wrong"
            grades[number] = Grade(equal is True, reason, answer[:MAX_CHARS], detail)
        return grades

    def _grade_code(self, answers: Sequence[tuple[int, ToGrade]]) -> dict[int, Grade]:
        grades, programs = {}, {}
        for number, entry in answers:
            text = entry.answer or ""
            program = extract_python(text) or extract_python(text, labels=("",))
            if program is None:
                grades[number] = Grade(False, "truncated" if entry.truncated else "no_code")
            else:
                programs[number] = (program, _tests(entry.item))
        results = self._code.grade(list(programs.values())) if self._code is not None else []
        for (number, (program, _)), result in zip(programs.items(), results, strict=True):
            reason = "correct" if result.passed else result.reason
            grades[number] = Grade(result.passed, reason, program, result.detail)
        return grades


_UNDECIDED = "could not be compared with the gold answer within the limits"


def _gold(item: BenchmarkItem) -> MathGold:
    if item.gold is None:
        raise ValueError(f"item {item.id!r} of benchmark {item.benchmark!r} has no gold answer")
    return item.gold


def _tests(item: BenchmarkItem) -> ProgramTests:
    if item.tests is None:
        raise ValueError(f"item {item.id!r} of benchmark {item.benchmark!r} has no tests")
    return item.tests
