"""When two questions are the same text: spelling levelled, nothing else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from xxhash import xxh3_128_hexdigest

_INSTRUCTIONS = (
    (
        re.compile(r"return your final response within \\boxed\{+\}+\.?", re.IGNORECASE),
        "inal re",
    ),
    (
        re.compile(
            r"(please )?(think|reason) step by step,? and put your final (answer|program) "
            r"(with)?in (\\boxed\{+\}+|one ```python code block)\.?",
            re.IGNORECASE,
        ),
        "put your ",
    ),
)
_SPELLINGS = (
    (re.compile(r"\\[dt]frac"), r"\\frac", "frac"),
    (re.compile(r"\\(left|right|bigl?|bigr?|displaystyle)(?![a-zA-Z])"), "", "\\"),
    (re.compile(r"\\[()\[\]]"), "", "\\"),
    (re.compile(r"\\(c|l)?dots(?![a-zA-Z])"), "...", "dots"),
    (re.compile(r"\\(le|ge|ne)q?(?![a-zA-Z])"), r"\\\1", "\\"),
    (re.compile(r"\\[,;:! ]|\\quad(?![a-zA-Z])"), "", "\\"),
    (re.compile(r"~"), "", "~"),
    (re.compile(r"\\(text|mathrm|textrm|mbox)(?=\{)"), "", "\\"),
    (re.compile(r"\$"), "", "$"),
    (re.compile(r"([_^])\{(\w)\}"), r"\1\2", "{"),
    (re.compile(r"\{(\w+)\}"), r"\1", "{"),
    # "2 3" and "23" stay apart.
    (re.compile(r"(?<=\d)\s+(?=\d)"), "\x00", ""),
)
"""Pattern, what stands for it, and a text without which it cannot match: looking for that first
makes levelling four times as fast."""


def normalize_question(text: str) -> str:
    """Spelling that equal questions share: no case, spacing, LaTeX variants or instructions."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    lower = text.lower()
    for pattern, needed in _INSTRUCTIONS:
        if needed in lower:
            text = pattern.sub("", text)
    # Case is folded after the patterns: folding turns \DeltaX into nothing that they know.
    for pattern, replacement, needed in _SPELLINGS:
        if needed in text:
            text = pattern.sub(replacement, text)
    return "".join(text.split()).casefold().rstrip(".?")


def question_key(text: str) -> str:
    """128-bit hash of the normalised question."""
    return _hash(normalize_question(text).encode("utf-8", "surrogatepass"))


def question_keys(texts: Sequence[str]) -> list[str]:
    """:func:`question_key` of many questions, ten times as fast."""
    from pipeline.kernels.questions import level_questions

    keys = [""] * len(texts)
    plain = [place for place, text in enumerate(texts) if text.isascii()]
    # Both stand in few texts: asked of all together first.
    if _may_instruct("".join(texts[place] for place in plain)):
        plain = [place for place in plain if not _may_instruct(texts[place])]
    data = np.frombuffer("".join(texts[place] for place in plain).encode(), np.uint8).copy()
    ends = np.cumsum([len(texts[place]) for place in plain], dtype=np.int64)
    spans = np.stack([np.concatenate([ends[:1] * 0, ends[:-1]]), ends], axis=1)
    level_questions(data, spans)
    levelled = data.tobytes()
    for place, (start, end) in zip(plain, spans.tolist(), strict=True):
        keys[place] = _hash(levelled[start:end])
    for place, text in enumerate(texts):
        if not keys[place]:
            keys[place] = question_key(text)
    return keys


def _may_instruct(text: str) -> bool:
    """Whether an instruction can stand in a text."""
    lower = text.lower()
    return any(needed in lower for _, needed in _INSTRUCTIONS)


def _hash(data: bytes) -> str:
    return xxh3_128_hexdigest(data)
