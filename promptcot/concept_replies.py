"""Take a teacher's concepts of one problem apart strictly: every defect has a name.

Two forms: a JSON object, and lines that begin with ``Knowledge Point:`` (the original's retry).
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.matching import tokenize
from pipeline.records import FinishReason
from pipeline.settings.concepts import ConceptSettings
from pipeline.student import THINK_CLOSE, THINK_OPEN
from promptcot.canonical import clean_name, identity
from promptcot.parsing import Defect
from promptcot.statement_language import find_foreign

ReplyForm = Literal["json", "lines"]

_FENCE = re.compile(r"```[a-zA-Z]*\n(.*?)```", flags=re.DOTALL)
_LINE = re.compile(
    # Spaces only, never line feeds: a line without a name must not take the next one for it.
    r"^[ \t]*(?:[-*•]|\(?\d{1,2}[.)])?[ \t]*\**knowledge point[ \t]*(?:\d{1,2}[ \t]*)?\**[ \t]*:\**"
    r"[ \t]*(.*?)\s*$",
    flags=re.IGNORECASE | re.MULTILINE,
)
_LEVEL_LINE = re.compile(r"^\s*\**level\**\s*:\**\s*(.+?)\s*$", flags=re.IGNORECASE | re.MULTILINE)
_NAME = re.compile(r"[^\W\d_]{2}")
_PLACEHOLDER = re.compile(
    r"((your|some|another|unnamed|(the )?(first|second|third|fourth|fifth)) )?"
    r"(foundational )?(concept|knowledge point|topic|name|idea|item|skill)( name)?"
    r"( ?(no\.?|number|#)?[ -]?(\d{1,2}|[a-j]|one|two|three|four|five))?",
    re.IGNORECASE,
)
"""What a small model fills a schema with when it has nothing to say."""
_LEFT_OPEN = re.compile(
    r"\b(a|an|and|are|as|at|between|by|for|from|if|in|into|is|of|on|or|than|that|the|to|when|where"
    r"|which|with)$",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"\b(is|are|was|were)\b", re.IGNORECASE)
_DIGITS = re.compile(r"\d+")
_EATEN_BACKSLASH = re.compile(
    r"[\b\f](?=[a-z])|\t(?=heta|an|imes|ext|au|o\b|riangle)|\r(?=ho|ight)|\n(?=u\b|eq?\b|abla|ot)"
)
"""What JSON makes of LaTeX whose backslash is not doubled: a backspace and ``ar`` of ``\\bar``."""
_ESCAPES = {"\b": "\\b", "\f": "\\f", "\t": "\\t", "\r": "\\r", "\n": "\\n"}
_BACKSLASH = re.compile(r"""\\\\|\\(?!["'/bfnrt]|u[0-9a-fA-F]{4})""")
"""A doubled one, or one that is LaTeX's: neither JSON nor Python has an escape like it."""
_COPIED_WORDS = 6
"""A name that quotes so many words of the problem in a row is about this problem only."""
_NUMBERED_NAMES = 3
"""Names that differ in a number only ("column 1", "column 2", …) are a form filled in."""
_COPIED_NAMES = 3
"""Names shared with the prompt's examples: a small model fills a form with what it was shown,
which would make the examples' topics the most frequent of the bank (seen with 135M parameters)."""
_MAX_LITERAL_CHARS = 20_000


@dataclass(frozen=True, slots=True)
class ConceptReply:
    """What a teacher says about one problem."""

    concepts: tuple[str, ...]
    level: str | None
    """One of the levels it was offered, or none."""


@dataclass(frozen=True, slots=True)
class ReplyContext:
    """What a reply is held against."""

    problem: str
    levels: Sequence[str]
    """Levels that were offered; empty when the seed has one."""
    settings: ConceptSettings
    shown: Sequence[frozenset[str]] = ()
    """Identities of the names in each example that the prompt showed."""


def read_examples(prompt: str) -> tuple[frozenset[str], ...]:
    """Identities of the names that each example of a prompt shows; examples stand a line apart."""
    blocks = (_LINE.findall(block) for block in prompt.split("\n\n"))
    return tuple(frozenset(identity(clean_name(n)) for n in names) for names in blocks if names)


def parse_concepts(
    text: str, finish_reason: FinishReason, form: ReplyForm, context: ReplyContext
) -> ConceptReply | Defect:
    """Concepts and level of a reply.

    Reasons: ``failed``, ``truncated``, ``empty``, ``not_a_list``, ``wrong_count``, ``no_name``,
    ``placeholder``, ``too_long``, ``unfinished``, ``sentence``, ``not_english``, ``repeats``,
    ``copies_problem``, ``copies_example``.
    """
    if finish_reason == "error":
        return Defect("failed", "the teacher reported an error for this request")
    if finish_reason == "length":
        return Defect("truncated", "the reply reached its token limit")
    text = _after_thinking(text)
    if not text.strip():
        return Defect("empty", "the reply holds nothing")
    found = _read_json(text) if form == "json" else _read_lines(text)
    if isinstance(found, Defect):
        return found
    names, level = found
    if (defect := _check_names(names, context)) is not None:
        return defect
    known = {name.casefold(): name for name in context.levels}
    return ConceptReply(
        concepts=tuple(clean_name(name) for name in names),
        level=known.get(level.strip().casefold()) if level else None,
    )


def _after_thinking(text: str) -> str:
    """What follows a reasoning model's thoughts; nothing while they are not closed."""
    head, separator, tail = text.rpartition(THINK_CLOSE)
    if separator:
        return tail
    return "" if THINK_OPEN in head + tail else text


def _read_json(text: str) -> tuple[list[str], str | None] | Defect:
    """The reply's one object or list: the whole text, or its last fenced block."""
    fenced = _FENCE.findall(text)
    value = _literal((fenced[-1] if fenced else text).strip())
    level = None
    if isinstance(value, dict):
        level = value.get("level")
        value = value.get("concepts")
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return Defect("not_a_list", f"no list of names: {text.strip()[:80]!r}")
    value = [_EATEN_BACKSLASH.sub(lambda eaten: _ESCAPES[eaten[0]], name) for name in value]
    return value, level if isinstance(level, str) else None


def _literal(text: str) -> Any:
    if len(text) > _MAX_LITERAL_CHARS:
        return None
    text = _BACKSLASH.sub(r"\\\\", text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # also a number of more than 4,300 digits
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _read_lines(text: str) -> tuple[list[str], str | None] | Defect:
    names = _LINE.findall(text)
    if not names:
        return Defect("not_a_list", f"no line begins with Knowledge Point: {text.strip()[:80]!r}")
    level = _LEVEL_LINE.search(text)
    return names, level[1].strip("*. ") if level else None


def _check_names(names: Sequence[str], context: ReplyContext) -> Defect | None:
    settings = context.settings
    if len(names) != settings.per_seed:
        return Defect("wrong_count", f"{len(names)} concepts instead of {settings.per_seed}")
    problem = f" {' '.join(tokenize(context.problem))} "
    first_of: dict[str, str] = {}
    for name in names:
        cleaned = clean_name(name)
        if (defect := _check_name(name, cleaned, settings.max_concept_chars)) is not None:
            return defect
        first = first_of.setdefault(identity(cleaned), name)
        if first is not name:
            return Defect("repeats", f"{first!r} and {name!r} are one")
        words = tokenize(cleaned)
        if len(words) >= _COPIED_WORDS and f" {' '.join(words)} " in problem:
            return Defect("copies_problem", f"{cleaned[:80]!r} stands in the problem")
    [(form, count)] = Counter(_DIGITS.sub("#", name) for name in first_of).most_common(1)
    if count >= _NUMBERED_NAMES:
        return Defect("placeholder", f"{count} names are {form!r} with a number")
    copied = sum(any(name in example for example in context.shown) for name in first_of)
    if copied >= _COPIED_NAMES:
        return Defect("copies_example", f"{copied} names are those of the prompt's examples")
    return None


def _check_name(name: str, cleaned: str, max_chars: int) -> Defect | None:
    """What is wrong with one name, whatever the others are."""
    if _NAME.search(cleaned) is None:
        return Defect("no_name", f"{name!r} is no name")
    if _PLACEHOLDER.fullmatch(cleaned):
        return Defect("placeholder", f"{cleaned!r} stands for a name")
    if len(cleaned) > max_chars:
        return Defect("too_long", f"{len(cleaned)} characters: {cleaned[:80]!r}")
    if len(cleaned.split()) > 1 and _LEFT_OPEN.search(cleaned):
        return Defect("unfinished", f"{cleaned[:80]!r} breaks off")
    if _CLAUSE.search(cleaned):
        return Defect("sentence", f"{cleaned[:80]!r} says something instead of naming it")
    if (foreign := find_foreign(cleaned)) is not None:
        return Defect("not_english", f"{cleaned[:80]!r}: {foreign}")
    return None
