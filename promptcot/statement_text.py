"""Reading a statement as text: without formulas, code and quotes, in sentences, quick to search."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

_MAX_MATH = 400
"""Characters between two dollar signs that can be one formula; beyond that they are prices."""

_DISPLAY = re.compile(
    # Each form stops at the next opening of its own, so that unclosed ones cost no second look.
    r"\$\$[^$]*\$\$|\\\[(?:[^\\]|\\\\|\\(?![\[\]\\]))*\\\]"
    r"|\\\((?:[^\\]|\\\\|\\(?![()\\]))*\\\)"
    r"|\\begin\{([a-z]+\*?)\}(?:[^\\]|\\(?!begin\{\1\}|end\{\1\}))*\\end\{\1\}"
)
_DISPLAY_MARKS = ("$$", "\\[", "\\(", "\\begin")
_PROSE_AGAIN = re.compile(r"[.?!]\s+[A-Z]|\n\n")
"""Between two dollar signs: the end of a sentence, so they do not enclose a formula."""
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_DRAWING = re.compile(r"\[asy\].*?(?:\[/asy\]|\Z)", re.DOTALL)
_MACRO = re.compile(r"\\[A-Za-z]+|[{}]")
_QUOTED = re.compile(r"[\"“][^\"“”]{0,300}[\"”]|``[^'`]{0,300}''")
_SENTENCE_END = re.compile(r"(?<=[.?!])[\"”')\]*]*\s+")
_PARAGRAPH_END = re.compile(r"\n\s*\n")
_NOT_WORD = re.compile(r"\W+")
_PLAIN_WORD = re.compile(r"[^\W\d_]{2,}")
_FOLDED_TEXTS = 16
"""Texts whose folded form is kept: a statement passes all checks before the next one comes, and
several threads look at statements at once."""


@lru_cache(maxsize=_FOLDED_TEXTS)
def fold(text: str) -> str:
    """Text in one case, each run of blanks as one space: where literal words are looked for."""
    return " ".join(text.casefold().split())


class Wording:
    """A pattern without regard to case, and literals that its matches hold.

    Of each group of literals (between commas) a match holds at least one, in the form that
    :func:`fold` gives it. Looking for them takes a hundredth of the time of a search, and most
    texts hold none.
    """

    def __init__(self, pattern: str, *groups: str, flags: int = 0) -> None:
        self.pattern = re.compile(pattern, re.IGNORECASE | flags)
        self.groups = [tuple(group.split(",")) for group in groups]

    def may_match(self, text: str) -> bool:
        """Whether the text holds what every match holds."""
        folded = fold(text)
        for group in self.groups:
            for literal in group:
                if literal in folded:
                    break
            else:
                return False
        return True

    def search(self, text: str) -> re.Match[str] | None:
        """The pattern's first match."""
        return self.pattern.search(text) if self.may_match(text) else None


def first_match(wordings: Sequence[Wording], text: str) -> str | None:
    """What the first wording that is found matches."""
    for wording in wordings:
        if (match := wording.search(text)) is not None:
            return " ".join(match[0].split())
    return None


def strip_formulas(text: str) -> str:
    """Prose alone: formulas, code and drawings become a space."""
    text = _replace_formulas(strip_code(strip_drawings(text)), lambda formula: " ")
    return _MACRO.sub(" ", text) if "\\" in text or "{" in text or "}" in text else text


@lru_cache(maxsize=_FOLDED_TEXTS)
def fold_formulas(text: str) -> str:
    """Each formula as one word, so that its symbols do not count as repeated ones."""
    text = strip_code(strip_drawings(text))
    return _replace_formulas(text, lambda formula: f" m{_NOT_WORD.sub('_', formula)} ")


def _replace_formulas(text: str, replace: Callable[[str], str]) -> str:
    if any(mark in text for mark in _DISPLAY_MARKS):
        text = _DISPLAY.sub(lambda match: replace(match[0]), text)
    return _replace_inline(text, replace) if "$" in text else text


def _replace_inline(text: str, replace: Callable[[str], str]) -> str:
    """Formulas between single dollar signs, in which no sentence ends."""
    first, *parts = text.split("$")
    done = [first]
    at = 0
    while at < len(parts):
        part = parts[at]
        is_closed = at + 1 < len(parts)
        if is_closed and 0 < len(part) <= _MAX_MATH and not _PROSE_AGAIN.search(part):
            done += (replace(f"${part}$"), parts[at + 1])
            at += 2
        else:
            done += ("$", part)
            at += 1
    return "".join(done)


def strip_drawings(text: str) -> str:
    """Text without drawings in the Asymptote language."""
    return _DRAWING.sub(" ", text) if "[asy]" in text else text


def strip_code(text: str) -> str:
    """Text without code, so that a program's words are not taken for the author's."""
    return _CODE.sub(" ", text) if "`" in text else text


def strip_quotes(text: str, *, by: str = " ") -> str:
    """Text without what is said between quotation marks, with something else in its place."""
    return _QUOTED.sub(by, text) if '"' in text or "“" in text or "``" in text else text


def split_sentences(text: str) -> list[str]:
    """Sentences and paragraphs."""
    parts = (part for lines in _PARAGRAPH_END.split(text) for part in _SENTENCE_END.split(lines))
    return [part.strip() for part in parts if part.strip()]


def plain_words(text: str) -> list[str]:
    """Words of two letters or more."""
    return _PLAIN_WORD.findall(text)
