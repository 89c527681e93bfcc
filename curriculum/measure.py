"""Exact token counts with the student's own tokenizer, and the length limit that never cuts."""

from __future__ import annotations

from dataclasses import dataclass

from curriculum.candidates import PreparedRow, refuse
from pipeline.records import Message, Rejected, TrainingRow
from pipeline.student import assistant_turn, encode_example, user_turn

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


def make_messages(row: PreparedRow) -> tuple[list[Message], list[Message]]:
    """Prompt and completion turns, in the one dialect."""
    prompt = [Message(role="user", content=user_turn(row.user_text, row.candidate.domain))]
    completion = [Message(role="assistant", content=assistant_turn(row.thinking, row.answer))]
    return prompt, completion


def measure_row(row: PreparedRow, max_tokens: int | None) -> Size | Rejected:
    """Count a row's tokens; over the limit it is refused whole."""
    try:
        encoded = encode_example(*make_messages(row))
    except ValueError as exc:
        return refuse(row.candidate.row_id, STAGE, "ambiguous_token_boundary", str(exc))
    size = Size(encoded.num_prompt_tokens, encoded.num_completion_tokens)
    if max_tokens is not None and size.num_tokens > max_tokens:
        return refuse(
            row.candidate.row_id,
            STAGE,
            "over_max_tokens",
            f"{size.num_tokens} tokens, limit {max_tokens}",
        )
    return size


def make_training_row(row: PreparedRow, size: Size, licence: str) -> TrainingRow:
    """The row as it is published."""
    prompt, completion = make_messages(row)
    candidate = row.candidate
    return TrainingRow(
        id=candidate.row_id,
        prompt=prompt,
        completion=completion,
        question=row.question,
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


def histogram_of(sizes: list[int]) -> list[dict[str, int | None]]:
    """Rows per fixed bin: ``{"up_to": 64, "rows": 3}``; ``up_to`` is null in the open bin."""
    counts = [0] * (len(HISTOGRAM_BINS) + 1)
    for size in sizes:
        counts[sum(size > bound for bound in HISTOGRAM_BINS)] += 1
    bounds: list[int | None] = [*HISTOGRAM_BINS, None]
    return [{"up_to": bound, "rows": count} for bound, count in zip(bounds, counts, strict=True)]
