"""What long texts hold, many texts at once: most have nothing that a rule has to look for.

A response is fifteen thousand characters; each question asked of it alone ("is there a carriage
return?", "where is the closing tag?") reads all of them. One compiled pass answers all questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NOWHERE = -1


class Survey(NamedTuple):
    """What one text holds; places are in characters of the text as it came."""

    is_plain: bool = False
    """Whether normalising can only strip both ends; an unsure case is not plain."""
    may_hold_marks: bool = True
    """Whether a chat format's mark may be in it."""
    opening: int = NOWHERE
    """Of the first ``<think>`` of a plain text."""
    closing: int = NOWHERE
    """Of the first ``</think>`` of a plain text."""
    fence: int = NOWHERE
    """Of the first code fence of a plain text."""
    has_more_tags: bool = False
    """Whether a second opening or closing tag is in a plain text."""
    bytes_before: tuple[int, int] = (0, 0)
    """Where opening and closing are in bytes of the text's UTF-8."""


UNKNOWN = Survey()
"""Of a text that nobody looked at."""


def survey(texts: Sequence[str | bytes | None]) -> list[Survey]:
    """What each text, or its UTF-8, holds; :data:`UNKNOWN` for none, and for one that has none."""
    from curriculum.text_kernels import survey_texts

    pieces = [_encode(text) for text in texts]
    sizes = np.array([len(piece) for piece in pieces], np.int64)
    ends = 1 + np.cumsum(sizes)
    found = np.zeros((len(texts), 8), np.int64)
    data = np.frombuffer(b"".join([b"\n", *pieces, bytes(64)]), np.uint8)
    survey_texts(data, np.stack([ends - sizes, ends], axis=1), found)
    return [
        Survey(bool(plain), bool(marks), opening, closing, fence, bool(more), (before, until))
        if piece
        else UNKNOWN
        for piece, (plain, marks, opening, closing, fence, more, before, until) in zip(
            pieces, found.tolist(), strict=True
        )
    ]


def _encode(text: str | bytes | None) -> bytes:
    try:
        return text if isinstance(text, bytes) else (text or "").encode()
    except UnicodeEncodeError:
        # Half a surrogate pair: normalising refuses it by name.
        return b""
