"""Rows of a dataset as token ids: exactly those of :func:`pipeline.student.encode_example`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from pipeline.errors import SourceError
from pipeline.records import Message
from pipeline.student import BOS_ID, EOS_ID, processor, render_completion, render_prompt

COLUMNS = ("id", "prompt", "completion", "num_prompt_tokens", "num_completion_tokens")
"""What is read of a row."""

UInt16s = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Document:
    """One row's ids; the first ``num_prompt`` carry no loss."""

    row: int
    """Its place in the shard."""
    input_ids: UInt16s
    num_prompt: int


def encode_rows(rows: Sequence[dict[str, Any]], first: int, source: str) -> list[Document | None]:
    """Encode rows of a shard together; None where the student's format has no form for a row.

    Args:
        rows: With :data:`COLUMNS`.
        first: Place of the first row in its shard.
        source: The shard's path, for messages.

    Raises:
        SourceError: A row is not in the training schema, or the dataset's own token counts are
            not those of this tokenizer and format.
    """
    prompts, texts = [], []
    for number, row in enumerate(rows):
        prompt, text = _render(row, f"{source}, row {first + number}")
        prompts.append(prompt)
        texts.append(text)
    own = processor().encode(prompts, num_threads=1)
    joint = processor().encode(texts, num_threads=1)
    documents: list[Document | None] = []
    for number, row in enumerate(rows):
        prompt_ids, ids = own[number], joint[number]
        if not texts[number] or ids[: len(prompt_ids)] != prompt_ids:
            documents.append(None)
            continue
        document = Document(
            row=first + number,
            input_ids=np.array([BOS_ID, *ids, EOS_ID], np.uint16),
            num_prompt=len(prompt_ids) + 1,
        )
        _require_counts(document, row, source)
        documents.append(document)
    return documents


def _render(row: dict[str, Any], place: str) -> tuple[str, str]:
    """Prompt, and prompt with completion; both empty if the format has no form for the row."""
    try:
        turns = [Message.model_validate(turn) for turn in row["prompt"] or ()]
        answer = [Message.model_validate(turn) for turn in row["completion"] or ()]
    except ValidationError as exc:
        raise SourceError(
            f"{place} ({row['id']}) is not in the training schema: "
            f"{exc.errors(include_url=False)[0]['msg']}",
            hint="build the dataset with curriculum.build",
        ) from exc
    prompt = render_prompt(turns)
    try:
        return prompt, prompt + render_completion(answer)
    except ValueError:
        return "", ""


def _require_counts(document: Document, row: dict[str, Any], source: str) -> None:
    """Ids that the dataset was not counted with would train another text than it was checked for.

    Raises:
        SourceError: The counts differ.
    """
    told = (row["num_prompt_tokens"], row["num_completion_tokens"])
    found = (document.num_prompt, len(document.input_ids) - document.num_prompt)
    if found != told:
        raise SourceError(
            f"{source}, row {document.row} ({row['id']}): the dataset counts {told[0]} prompt and "
            f"{told[1]} completion tokens, the student's tokenizer and format give {found[0]} and "
            f"{found[1]}",
            hint="the dataset was built with another tokenizer or chat format: build it again with "
            "curriculum.build of this version of the project",
        )
