"""Rows of a dataset as token ids: exactly those of :func:`pipeline.student.encode_example`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
Texts = tuple[str, str]
"""A rendered prompt and what follows it."""
Ids = tuple[UInt16s, int]
"""All ids of a document, and how many of the first carry no loss."""
Encode = Callable[[Sequence[Texts | None]], list[Ids | None]]
"""None stands for a row that has no form, before and after."""

_BOS, _EOS = np.array([BOS_ID], np.uint16), np.array([EOS_ID], np.uint16)


@dataclass(frozen=True, slots=True)
class Document:
    """One row's ids; the first ``num_prompt`` carry no loss."""

    row: int
    """Its place in the shard."""
    input_ids: UInt16s
    num_prompt: int


def encode_rows(
    rows: Sequence[dict[str, Any]], first: int, *, source: str, encode: Encode
) -> list[Document | None]:
    """Encode rows of a shard together; None where the student's format has no form for a row.

    Args:
        rows: With :data:`COLUMNS`.
        first: Place of the first row in its shard.
        source: The shard's path, for messages.
        encode: How ids are made; all ways make the same ones.

    Raises:
        SourceError: A row is not in the training schema, or the dataset's own token counts are
            not those of this tokenizer and format.
    """
    texts = [_render(row, f"{source}, row {first + number}") for number, row in enumerate(rows)]
    documents: list[Document | None] = []
    for number, ids in enumerate(encode(texts)):
        if ids is None:
            documents.append(None)
            continue
        document = Document(first + number, *ids)
        _require_counts(document, rows[number], source)
        documents.append(document)
    return documents


def encode_by_reference(texts: Sequence[Texts | None]) -> list[Ids | None]:
    """Ids by the tokenizer, all texts in one call; nothing has to be compiled first."""
    known = [pair for pair in texts if pair is not None]
    own = iter(processor().encode([prompt for prompt, _ in known], num_threads=1))
    joint = iter(processor().encode(["".join(pair) for pair in known], num_threads=1))
    encoded: list[Ids | None] = []
    for pair in texts:
        if pair is None:
            encoded.append(None)
            continue
        prompt_ids, ids = next(own), next(joint)
        is_prefix = ids[: len(prompt_ids)] == prompt_ids
        whole = np.array([BOS_ID, *ids, EOS_ID], np.uint16)
        encoded.append((whole, len(prompt_ids) + 1) if is_prefix else None)
    return encoded


def encode_by_chunks(texts: Sequence[Texts | None]) -> list[Ids | None]:
    """The same ids, many times faster; see :mod:`trainer.data.chunk_encoder`."""
    from trainer.data.chunk_encoder import SPECIAL, chunk_encoder

    # A prompt ends with a line break, which no token reaches across.
    quick = [pair for pair in texts if pair is not None and SPECIAL not in "".join(pair)]
    flat = [text for pair in quick for text in pair]
    parts = iter(chunk_encoder().encode(flat, follow=[False, True] * len(quick)))
    encoded: list[Ids | None] = []
    for pair in texts:
        if pair is None or SPECIAL in "".join(pair):
            encoded += encode_by_reference([pair])
            continue
        prompt, completion = next(parts), next(parts)
        whole = np.concatenate([_BOS, prompt, completion, _EOS])
        encoded.append((whole, len(prompt) + 1))
    return encoded


def _render(row: dict[str, Any], place: str) -> Texts | None:
    """A row's prompt and completion, or None if the format has no form for it."""
    try:
        turns = [Message.model_validate(turn) for turn in row["prompt"] or ()]
        answer = [Message.model_validate(turn) for turn in row["completion"] or ()]
    except ValidationError as exc:
        raise SourceError(
            f"{place} ({row['id']}) is not in the training schema: "
            f"{exc.errors(include_url=False)[0]['msg']}",
            hint="build the dataset with curriculum.build",
        ) from exc
    try:
        return render_prompt(turns), render_completion(answer)
    except ValueError:
        return None


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
