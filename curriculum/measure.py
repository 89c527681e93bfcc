"""Exact token counts with the student's own tokenizer, and the length limit that never cuts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from curriculum.candidates import PreparedRow, refuse
from curriculum.texts import Text, Trace, Utf8
from pipeline.records import Domain, Rejected
from pipeline.student import (
    TURN_CLOSE,
    TURN_OPEN,
    assistant_turn,
    render_question,
    user_turn,
)
from pipeline.token_counts import TextSpan, token_counter

STAGE = "measure"
_PYTHON = re.compile(r"^[ \t]*```(?:python3?|py)\s*$", re.IGNORECASE | re.MULTILINE)
HISTOGRAM_BINS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 20_480, 32_768)
"""Upper bounds of the token histogram; the last bin is open."""


class Size(NamedTuple):
    """Tokens of one row; the completion includes the closing ``</s>``."""

    num_prompt_tokens: int
    num_completion_tokens: int

    @property
    def num_tokens(self) -> int:
        """Tokens the trainer sees."""
        return self.num_prompt_tokens + self.num_completion_tokens


class Measured(NamedTuple):
    """A well-formed row as it is trained on, and its size."""

    row: PreparedRow
    prompt: bytes
    """The user's turn."""
    completion: tuple[Utf8, ...]
    """The assistant's turn, in pieces."""
    size: Size


def measure_rows(rows: Sequence[PreparedRow]) -> list[Measured | Rejected]:
    """Count the tokens of many rows together, which is several times faster than one by one."""
    turns = [user_turn(row.user_text, _domain_asked(row)) for row in rows]
    pairs = [_assistant_turn(row.trace) for row in rows]
    prompts = [render_question(turn) for turn in turns]
    counts = token_counter().count_examples(prompts, [counted for _, counted in pairs])
    measured: list[Measured | Rejected] = []
    for number, (row, turn, (completion, _)) in enumerate(zip(rows, turns, pairs, strict=True)):
        if counts.is_ambiguous[number]:
            detail = "the prompt's tokens change when the completion follows"
            measured.append(refuse(row.candidate.row_id, STAGE, "ambiguous_token_boundary", detail))
            continue
        size = Size(
            int(counts.num_prompt_tokens[number]), int(counts.num_completion_tokens[number])
        )
        measured.append(Measured(row, turn.encode(), completion, size))
    return measured


def _assistant_turn(trace: Trace) -> tuple[tuple[Utf8, ...], tuple[Text | TextSpan, ...]]:
    """The pieces of the assistant's turn, and those of what is counted of it.

    That is what follows the prompt, which ends with the opening tag, see
    :func:`pipeline.student.render_completion`.
    """
    split = trace.split
    if split is None:
        turn = memoryview(assistant_turn(trace.thinking, trace.answer).encode())
        return (turn,), (turn[len(TURN_OPEN) :],)
    data, begin, end, answer, last, _ = split
    counted = (TextSpan(data, begin, end), TURN_CLOSE, TextSpan(data, answer, last))
    return (TURN_OPEN, trace.thinking_utf8, TURN_CLOSE, trace.answer_utf8), counted


def _domain_asked(row: PreparedRow) -> Domain:
    """The domain whose form of an answer the user's turn asks for.

    Code in another language than Python, or none, is not what "one ```python code block" asks for.
    """
    is_other_code = row.candidate.code_rule == "lenient" and not _holds_python(row.answer)
    return "other" if is_other_code else row.candidate.domain


def _holds_python(answer: str) -> bool:
    """Whether a fence says that Python follows; the lines before the first fence say nothing."""
    fence = answer.find("```")
    return fence >= 0 and bool(_PYTHON.search(answer, answer.rfind("\n", 0, fence) + 1))
