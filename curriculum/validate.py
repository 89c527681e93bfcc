"""What makes a row well formed: every refusal has a name, and nothing is judged by taste.

The code rules are those that OpenCodeReasoning's authors applied (a fence after the reasoning,
none inside it, and it parses); correctness is not tested here.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable

from curriculum.candidates import PreparedRow, refuse
from pipeline.records import Rejected
from pipeline.settings.validation import ValidationSettings

STAGE = "validate"

_FENCE = re.compile(r"^[ \t]*```([^\n`]*)$", re.MULTILINE)
_PYTHON_NAMES = frozenset({"python", "python3", "py"})
_TAIL_WORDS = 400
_MIN_WORDS_FOR_REPETITION = 60
_NGRAM = 4

Check = Callable[[PreparedRow, ValidationSettings], tuple[str, str] | None]
"""Returns (reason, detail) of a refusal, or ``None``."""


def validate_row(row: PreparedRow, settings: ValidationSettings) -> Rejected | None:
    """The first rule that a row breaks, or ``None``."""
    for check in _CHECKS:
        found = check(row, settings)
        if found is not None:
            return refuse(row.candidate.row_id, STAGE, *found)
    return None


def check_lengths(row: PreparedRow, settings: ValidationSettings) -> tuple[str, str] | None:
    """Texts that are too short to be a question, a reasoning or an answer."""
    if len(row.question) < settings.min_question_chars:
        return "question_too_short", repr(row.question)
    if not row.answer:
        return "empty_answer", "nothing follows </think>"
    if len(row.thinking) < settings.min_thinking_chars:
        return "thinking_too_short", f"{len(row.thinking)} characters"
    return None


def check_language(row: PreparedRow, settings: ValidationSettings) -> tuple[str, str] | None:
    """Question or reasoning in another script than Latin (and the Greek of formulas)."""
    for name, text in (("question", row.question), ("thinking", row.thinking)):
        letters = [c for c in text[:4000] if c.isalpha()]
        foreign = sum(1 for c in letters if ord(c) > 0x3FF and not 0x1D400 <= ord(c) <= 0x1D7FF)
        if letters and foreign / len(letters) > settings.max_foreign_share:
            return "foreign_language", f"{foreign} of {len(letters)} letters of the {name}"
    return None


def check_repetition(row: PreparedRow, settings: ValidationSettings) -> tuple[str, str] | None:
    """A text that ends in a loop: few distinct word 4-grams among its last 400 words."""
    for name, text in (("thinking", row.thinking), ("answer", row.answer)):
        words = text.split()[-_TAIL_WORDS:]
        if len(words) < _MIN_WORDS_FOR_REPETITION:
            continue
        grams = [tuple(words[i : i + _NGRAM]) for i in range(len(words) - _NGRAM + 1)]
        share = len(set(grams)) / len(grams)
        if share < settings.min_distinct_ngrams:
            return "degenerate_repetition", f"{share:.0%} distinct 4-grams at the {name}'s end"
    return None


def check_code(row: PreparedRow, _: ValidationSettings) -> tuple[str, str] | None:
    """Fences: closed, outside the reasoning, and Python that parses."""
    rule = row.candidate.code_rule
    if rule == "none":
        return None
    if rule == "strict" and "```" in row.thinking:
        return "fence_in_thinking", "a code fence inside the reasoning"
    marks = list(_FENCE.finditer(row.answer))
    if len(marks) % 2:
        return "cut_off_answer", "a code fence is not closed"
    programs = [
        row.answer[start.end() : end.start()]
        for start, end in zip(marks[::2], marks[1::2], strict=True)
        if start.group(1).strip().lower() in _PYTHON_NAMES
    ]
    if rule == "strict" and not programs:
        return "no_code", "no ```python block in the answer"
    for program in programs:
        error = _parse_error(program)
        # Instruction-style rows show fragments and other dialects on purpose.
        if error and rule == "strict":
            return "code_does_not_parse", error
    return None


def _parse_error(program: str) -> str | None:
    """Why Python refuses a program, or ``None``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        return f"{type(exc).__name__}: {exc}"
    return None


def check_math(row: PreparedRow, _: ValidationSettings) -> tuple[str, str] | None:
    """A boxed final answer with its braces closed."""
    if row.candidate.domain != "math":
        return None
    start = row.answer.rfind("\\boxed{")
    if start < 0:
        return "no_boxed_answer", row.answer[-80:]
    content = _braced(row.answer, start + len("\\boxed"))
    if content is None:
        return "cut_off_answer", "\\boxed{ is not closed"
    if not content.strip():
        return "empty_answer", "\\boxed{} holds nothing"
    return None


def _braced(text: str, start: int) -> str | None:
    """Content of the brace group that opens at ``start``, or ``None`` when it never closes."""
    depth = 0
    for position in range(start, len(text)):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : position]
    return None


_CHECKS: tuple[Check, ...] = (
    check_lengths,
    check_language,
    check_repetition,
    check_code,
    check_math,
)
