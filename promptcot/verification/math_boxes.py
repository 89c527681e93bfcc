r"""Find the final answer in what follows the thinking: the last ``\boxed{...}``, or the last few.

Nothing else is looked for: no "the answer is", no last number. The text is read once, whatever it
holds, so that a hostile one costs no more than its length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.benchmark_items import MathGold
from promptcot.verification.math_text import MAX_CHARS

_TOKEN = re.compile(r"\\{1,2}(?:boxed|fbox)\s{0,8}\{|\\[\s\S]|[{}]")
_CONNECTOR = re.compile(
    r"(?:\s|[$,;:.&]|\\[()\[\],;:!]|\\q?quad\b|\\text\{\s*(?:and|or)\s*\}|\\(?:text|mathrm)\{\s*,?\s*\}"
    r"|\b(?:and|or)\b|\b[A-Za-z](?:_\{?\w{1,3}\}?)?\s*=)*"
)
_MAX_CONNECTOR = 60
_MAX_GAP = 100
"""Between the boxes of an item that asks for several answers."""
_MAX_BOXES = 60
"""Of one answer."""


@dataclass(frozen=True, slots=True)
class Box:
    """One box, as places in its text: nested boxes would be long texts many times over."""

    start: int
    content_start: int
    content_end: int
    end: int

    def read(self, text: str) -> str:
        """Its content, without spaces around it."""
        return text[self.content_start : self.content_end].strip()


def extract_boxed(text: str) -> str | None:
    r"""Content of the last ``\boxed{...}`` whose braces are balanced, or none.

    Args:
        text: The answer alone, after the thinking.
    """
    boxes = find_boxes(text)
    return (boxes[-1].read(text) or None) if boxes else None


def extract_answer(text: str, gold: MathGold) -> str | None:
    r"""The answer within the boxes: the last one, and those that it continues.

    ``\boxed{1}$ and $\boxed{3}`` is one answer of two values. Where several answers are asked for,
    a few words may stand between the boxes; a last box that holds a list is the whole answer.

    Args:
        text: The answer alone, after the thinking.
        gold: What the item asks for.
    """
    boxes = find_boxes(text)
    last = boxes[-1].read(text) if boxes else ""
    if not last:
        return None
    is_multiple = len(gold.parts) > 1
    if is_multiple and _is_list(last):
        return last
    following, contents = boxes[-1], [last]
    for box in reversed(boxes[-_MAX_BOXES:-1]):
        gap = text[box.end : following.start]
        if box.end > following.start or not _continues(gap, is_multiple):
            break
        contents.append(box.read(text))
        following = box
    return ", ".join(dict.fromkeys(content for content in reversed(contents) if content))


def _is_list(content: str) -> bool:
    """Whether a comma or a semicolon stands outside all brackets, or a set is written out."""
    depth = 0
    for sign in content[:MAX_CHARS]:
        depth += (sign in "([{") - (sign in ")]}")
        if sign in ",;" and depth == 0:
            return True
    return content.lstrip().startswith("\\{")


def _continues(gap: str, is_multiple: bool) -> bool:
    """Whether what stands between two boxes makes one answer of them."""
    if is_multiple and len(gap) <= _MAX_GAP:
        return True
    return len(gap) <= _MAX_CONNECTOR and _CONNECTOR.fullmatch(gap) is not None and "." not in gap


def find_boxes(text: str) -> Sequence[Box]:
    r"""All boxes with balanced braces, in the order in which they begin."""
    found: list[Box] = []
    stack: list[tuple[int, int] | None] = []
    for token in _TOKEN.finditer(text):
        piece = token[0]
        if piece == "{":
            stack.append(None)
        elif piece == "}":
            opened = stack.pop() if stack else None
            if opened is not None:
                found.append(Box(*opened, token.start(), token.end()))
        elif piece.endswith("{") and "box" in piece:
            stack.append((token.start(), token.end()))
    return sorted(found, key=lambda box: box.start)
