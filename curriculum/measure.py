"""Exact token counts with the student's own tokenizer, and the length limit that never cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curriculum.candidates import PreparedRow, refuse
from pipeline.records import Message, Rejected, TrainingRow
from pipeline.student import assistant_turn, render_completion, render_prompt, user_turn
from pipeline.token_counts import token_counter

STAGE = "measure"
HISTOGRAM_BINS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 20_480, 32_768)
"""Upper bounds of the token histogram; the last bin is open."""


@dataclass(frozen=True, slots=True)
class Size:
    """Tokens of one row; the completion includes the closing ``</s>``."""

    num_prompt_tokens: int
    num_completion_tokens: int

    @property
    def num_tokens(self) -> int:
        """Tokens the trainer sees."""
        return self.num_prompt_tokens + self.num_completion_tokens


@dataclass(frozen=True, slots=True)
class Measured:
    """A well-formed row as it is trained on, and its size."""

    row: PreparedRow
    prompt: list[Message]
    completion: list[Message]
    size: Size


def make_messages(row: PreparedRow) -> tuple[list[Message], list[Message]]:
    """Prompt and completion turns, in the one dialect."""
    prompt = [Message(role="user", content=user_turn(row.user_text, row.candidate.domain))]
    completion = [Message(role="assistant", content=assistant_turn(row.thinking, row.answer))]
    return prompt, completion


def measure_rows(rows: Sequence[PreparedRow]) -> list[Measured | Rejected]:
    """Count the tokens of many rows together, which is several times faster than one by one."""
    turns = [make_messages(row) for row in rows]
    counts = token_counter().count_examples(
        [render_prompt(prompt) for prompt, _ in turns],
        [render_completion(completion) for _, completion in turns],
    )
    measured: list[Measured | Rejected] = []
    for number, (row, (prompt, completion)) in enumerate(zip(rows, turns, strict=True)):
        if counts.is_ambiguous[number]:
            detail = "the prompt's tokens change when the completion follows"
            measured.append(refuse(row.candidate.row_id, STAGE, "ambiguous_token_boundary", detail))
            continue
        size = Size(
            int(counts.num_prompt_tokens[number]), int(counts.num_completion_tokens[number])
        )
        measured.append(Measured(row, prompt, completion, size))
    return measured


def make_training_row(measured: Measured, licence: str) -> TrainingRow:
    """The row as it is published."""
    candidate, size = measured.row.candidate, measured.size
    return TrainingRow(
        id=candidate.row_id,
        prompt=measured.prompt,
        completion=measured.completion,
        question=measured.row.question,
        source=candidate.source,
        source_revision=candidate.source_revision,
        source_id=candidate.source_id,
        licence=licence,
        domain=candidate.domain,
        difficulty=candidate.difficulty,
        num_prompt_tokens=size.num_prompt_tokens,
        num_completion_tokens=size.num_completion_tokens,
        num_tokens=size.num_tokens,
        provenance=candidate.provenance,
    )
