"""What makes a row well formed: every refusal has a name, and nothing is judged by taste.

The code rules are those that OpenCodeReasoning's authors applied (a fence after the reasoning,
none inside it, and it parses); correctness is tested elsewhere (:mod:`curriculum.gold`). A row is
ten thousand characters of plain ASCII on average, so rules look at ends and samples, and ask first
whether they have work at all.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator

from curriculum.candidates import PreparedRow, refuse
from curriculum.languages import find_foreign_language
from curriculum.question_hashes import braced
from curriculum.quick_looks import LEAST_WORDS, NGRAM, SUSPECT, TAIL_CHARS, TAIL_WORDS, Look
from pipeline.records import Rejected
from pipeline.settings.validation import ValidationSettings

STAGE = "validate"

_LANGUAGE_NAMES = {
    "python": frozenset({"python", "python3", "py"}),
    "cpp": frozenset({"cpp", "c++", "cc", "cxx"}),
}
_LINK = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_PIECE_CHARS, _SPAN_CHARS, _MAX_PIECES = 120, 12_000, 4
"""A reasoning whose last 120 characters stand four times in its last 12,000 runs in a circle."""

Check = Callable[[PreparedRow, ValidationSettings], tuple[str, str] | None]
"""Returns (reason, detail) of a refusal, or ``None``."""


def validate_row(
    row: PreparedRow, settings: ValidationSettings, look: Look = SUSPECT
) -> Rejected | None:
    """The first rule that a row breaks, or ``None``.

    Args:
        row: The row.
        settings: Limits.
        look: What the row may break, see :func:`curriculum.quick_looks.look_at`.
    """
    for check in _CHECKS:
        if check is check_language and not look.may_be_foreign:
            continue
        if (
            check is check_repetition
            and not look.may_repeat
            and not (settings.looks_for_loops and ends_in_circle(row))
        ):
            continue
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
    if row.trace.num_thinking_chars < settings.min_thinking_chars:
        return "thinking_too_short", f"{row.trace.num_thinking_chars} characters"
    return None


def check_language(row: PreparedRow, settings: ValidationSettings) -> tuple[str, str] | None:
    """Question or reasoning in another language than English."""
    if not settings.looks_for_languages:
        return None
    for name, text in (("question", row.question), ("thinking", row.thinking)):
        found = find_foreign_language(text, settings.max_foreign_share)
        if found is not None:
            return "foreign_language", f"{found} of the {name}"
    return None


def check_spam(row: PreparedRow, settings: ValidationSettings) -> tuple[str, str] | None:
    """A question or an answer that is little more than links."""
    if settings.max_link_share >= 1:
        return None
    for name, text in (("question", row.question), ("answer", row.answer)):
        # A colon is found several times as fast as a word, and most texts hold neither link.
        if ("://" not in text or "http" not in text) and "www." not in text:
            continue
        share = sum(len(match.group()) for match in _LINK.finditer(text)) / len(text)
        if share > settings.max_link_share:
            return "spam", f"{share:.0%} of the {name} is links"
    return None


def check_repetition(row: PreparedRow, settings: ValidationSettings) -> tuple[str, str] | None:
    """A text that ends in a loop: few distinct word 4-grams at its end, or its end many times."""
    if not settings.looks_for_loops:
        return None
    for name, text in (("thinking", row.thinking), ("answer", row.answer)):
        words = text[-TAIL_CHARS:].split()[-TAIL_WORDS:]
        if len(words) >= LEAST_WORDS:
            share = distinct_share(words, settings.min_distinct_ngrams)
            if share < settings.min_distinct_ngrams:
                detail = f"{share:.0%} distinct 4-grams at the {name}'s end"
                return "degenerate_repetition", detail
    times = ends_in_circle(row)
    if times:
        return "degenerate_repetition", f"the thinking's end stands there {times} times"
    return None


def ends_in_circle(row: PreparedRow) -> int:
    """How often a reasoning's end stands near its end, or 0 if not too often."""
    end = row.trace.tail(_SPAN_CHARS)
    if len(end) < _PIECE_CHARS:
        return 0
    times = end.count(end[-_PIECE_CHARS:])
    return times if times >= _MAX_PIECES else 0


def distinct_share(words: list[str], enough: float) -> float:
    """Share of distinct 4-grams among a text's words, or any number above ``enough``.

    Every distinct word but three begins a 4-gram that no other word begins, so that many different
    words settle it without making the 4-grams.
    """
    num_grams = len(words) - NGRAM + 1
    at_least = (len(set(words)) - NGRAM + 1) / num_grams
    if at_least > enough:
        return at_least
    grams = zip(words, words[1:], words[2:], words[3:], strict=False)
    return len(set(grams)) / num_grams


def check_code(row: PreparedRow, settings: ValidationSettings) -> tuple[str, str] | None:
    """Fences: closed, outside the reasoning, and Python that parses."""
    rule = row.candidate.code_rule
    if rule == "none":
        return None
    if rule == "strict" and row.may_fence_thinking and "```" in row.thinking:
        return "fence_in_thinking", "a code fence inside the reasoning"
    blocks = read_blocks(row.answer)
    if blocks is None:
        return "cut_off_answer", "a code fence is not closed"
    if rule == "lenient":
        # Instruction-style rows show fragments and other dialects on purpose.
        return None
    language = row.candidate.language
    names = _LANGUAGE_NAMES.get(language, frozenset({language}))
    programs = [text for label, text in blocks if label in names]
    if not programs:
        return "no_code", f"no ```{language} block in the answer"
    if language == "python" and settings.check_syntax:
        for program in programs:
            error = find_syntax_error(program)
            if error:
                return "code_does_not_parse", error
    return None


def read_blocks(text: str) -> list[tuple[str, str]] | None:
    """(label, text) of the fenced blocks, or ``None`` when one is not closed."""
    if "```" not in text:
        return []
    marks = list(_find_fences(text))
    if len(marks) % 2:
        return None
    return [
        (start[2].strip().lower(), text[start[1] : end[0]])
        for start, end in zip(marks[::2], marks[1::2], strict=True)
    ]


def _find_fences(text: str) -> Iterator[tuple[int, int, str]]:
    """Lines that open or close a block: where each begins and ends, and the label."""
    at = text.find("```")
    while at >= 0:
        start, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
        end = len(text) if end < 0 else end
        label = text[at + 3 : end]
        if "`" not in label and not text[start:at].strip(" \t"):
            yield start, end, label
        at = text.find("```", end)


def find_syntax_error(program: str) -> str | None:
    """Why Python refuses a program, or ``None``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            # A fifth faster than ast.parse, whose tree nobody needs, and stricter: it also refuses
            # a return outside of functions.
            compile(program, "answer", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as exc:
        return f"{type(exc).__name__}: {exc}"
    return None


def check_math(row: PreparedRow, _: ValidationSettings) -> tuple[str, str] | None:
    """A boxed final answer with its braces closed."""
    if row.candidate.domain != "math":
        return None
    start = row.answer.rfind("\\boxed{")
    if start < 0:
        return "no_boxed_answer", row.answer[-80:]
    content = braced(row.answer, start + len("\\boxed"))
    if content is None:
        return "cut_off_answer", "\\boxed{ is not closed"
    if not content.strip():
        return "empty_answer", "\\boxed{} holds nothing"
    return None


_CHECKS: tuple[Check, ...] = (
    check_lengths,
    check_language,
    check_spam,
    check_repetition,
    check_code,
    check_math,
)
