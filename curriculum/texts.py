"""Long texts as files hold them: UTF-8 in shared memory, made into ``str`` where a rule must.

A reasoning is fifteen thousand characters, and most rows need no rule that reads all of them.
Decoding, cutting, encoding and joining it took a fourteenth of a build (measured); so a row carries
places in the memory that its slice was joined into, and what asks for the text pays for it.
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline.student import THINK_CLOSE

Utf8 = bytes | memoryview
Text = str | bytes | memoryview
"""A text, or its UTF-8."""

_MOST_BYTES = 4
"""Of one character."""
_ANSWER_BYTES = 4096
"""Most answers are shorter."""
_CLOSING = THINK_CLOSE.encode()


class Split(NamedTuple):
    """Where reasoning and answer stand in a response, blanks at their ends left out."""

    data: bytes
    """UTF-8 of many responses."""
    thinking_start: int
    thinking_end: int
    answer_start: int
    answer_end: int
    num_thinking_chars: int


class Trace:
    """Reasoning and answer of a row, as text and as UTF-8; one is made of the other."""

    __slots__ = ("_answer", "_split", "_thinking")

    def __init__(self, split: Split | None, thinking: str | None, answer: str | None) -> None:
        self._split, self._thinking, self._answer = split, thinking, answer

    @classmethod
    def of_texts(cls, thinking: str, answer: str) -> Trace:
        """A trace of two texts."""
        return cls(None, thinking, answer)

    @classmethod
    def of_split(cls, split: Split) -> Trace:
        """A trace that stands in shared memory, which it keeps."""
        return cls(split, None, None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Trace.of_texts({self.thinking!r}, {self.answer!r})"

    def _key(self) -> tuple[str, str]:
        return self.thinking, self.answer

    @property
    def split(self) -> Split | None:
        """Where the two stand, if it is known."""
        return self._split

    @property
    def thinking(self) -> str:
        """The reasoning."""
        if self._thinking is None:
            self._thinking = str(self.thinking_utf8, "utf-8")
        return self._thinking

    @property
    def answer(self) -> str:
        """What follows it."""
        if self._answer is None:
            self._answer = str(self.answer_utf8, "utf-8")
        return self._answer

    @property
    def thinking_utf8(self) -> Utf8:
        """The reasoning as UTF-8."""
        split = self._split
        if split is None:
            return self.thinking.encode()
        return memoryview(split.data)[split.thinking_start : split.thinking_end]

    @property
    def answer_utf8(self) -> Utf8:
        """The answer as UTF-8."""
        split = self._split
        if split is None:
            return self.answer.encode()
        return memoryview(split.data)[split.answer_start : split.answer_end]

    @property
    def num_thinking_chars(self) -> int:
        """Length of the reasoning."""
        split = self._split
        return len(self.thinking) if split is None else split.num_thinking_chars

    def head(self, chars: int) -> str:
        """The reasoning's first characters."""
        if self._thinking is not None or self._split is None:
            return self.thinking[:chars]
        head = self.thinking_utf8[: _MOST_BYTES * chars]
        # The last character may be cut, but never one of those that are wanted.
        return str(head, "utf-8", "ignore")[:chars]

    def tail(self, chars: int) -> str:
        """The reasoning's last characters."""
        if chars <= 0:
            return ""
        if self._thinking is not None or self._split is None:
            return self.thinking[-chars:]
        tail = self.thinking_utf8[-_MOST_BYTES * chars :]
        return str(tail, "utf-8", "ignore")[-chars:]


def to_text(text: Text | None) -> str | None:
    """A text of its UTF-8; a text and nothing as they are."""
    return text if text is None or isinstance(text, str) else str(text, "utf-8")


def to_utf8(text: Text | None) -> Text | None:
    """A text's UTF-8; itself if there is none: nothing, or half a surrogate pair in it."""
    if not isinstance(text, str):
        return text
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text


def after_thinking(response: Text | None) -> str:
    """What follows the last closing tag, blanks included; all of it, where no tag stands."""
    if response is None or isinstance(response, str):
        return (response or "").rpartition(THINK_CLOSE)[2]
    for size in (_ANSWER_BYTES, len(response)):
        tail = bytes(response[-size:])
        place = tail.rfind(_CLOSING)
        if place >= 0:
            return tail[place + len(_CLOSING) :].decode()
    return str(response, "utf-8")
