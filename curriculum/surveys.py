"""What long texts hold, many texts at once: most have nothing that a rule has to look for.

A response is fifteen thousand characters; each question asked of it alone ("is there a carriage
return?", "where is the closing tag?") reads all of them. One compiled pass answers all questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from curriculum.texts import Split, Text, to_utf8

NOWHERE = -1


class Survey(NamedTuple):
    """What one text holds; places are in bytes of its UTF-8."""

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
    num_chars: int = 0
    """Its length."""
    split: Split | None = None
    """Reasoning and answer of a plain text whose tags leave no question open."""


UNKNOWN = Survey()
"""Of a text that nobody looked at."""
_BEHIND = bytes(64)
"""What the kernels may read behind the last text."""
_NUM_FOUND = 13


def survey(texts: Sequence[Text | None]) -> list[Survey]:
    """What each text, or its UTF-8, holds; :data:`UNKNOWN` for none, and for one that has none."""
    from curriculum.text_kernels import survey_texts

    pieces = [_encode(text) for text in texts]
    sizes = np.array([len(piece) for piece in pieces], np.int64)
    ends = 1 + np.cumsum(sizes)
    found = np.zeros((len(texts), _NUM_FOUND), np.int64)
    data = b"".join([b"\n", *pieces, _BEHIND])
    survey_texts(np.frombuffer(data, np.uint8), np.stack([ends - sizes, ends], axis=1), found)
    pairs = zip(pieces, found.tolist(), strict=True)
    return [_read(data, numbers) if piece else UNKNOWN for piece, numbers in pairs]


def _read(data: bytes, found: list[int]) -> Survey:
    plain, marks, opening, closing, fence, more, num_chars, is_split = found[:8]
    split = None
    if is_split:
        begin, end, answer, last, thinking_chars = found[8:]
        split = Split(data, begin, end, answer, last, thinking_chars)
    return Survey(bool(plain), bool(marks), opening, closing, fence, bool(more), num_chars, split)


def _encode(text: Text | None) -> bytes | memoryview:
    utf8 = to_utf8(text)
    # Half a surrogate pair has none: normalising refuses it by name.
    return b"" if utf8 is None or isinstance(utf8, str) else utf8
