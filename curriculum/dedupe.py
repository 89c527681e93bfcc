"""Exact duplicates: the same question in another spelling, and which of its rows survives.

The survivor is the same whatever order rows arrive in: source priority (the phase's order), then
verified before unverified, then the shorter row, then the smaller id.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from xxhash import xxh3_128_hexdigest

STAGE = "dedupe"

_INSTRUCTIONS = (
    re.compile(r"return your final response within \\boxed\{+\}+\.?", re.IGNORECASE),
    re.compile(
        r"(please )?(think|reason) step by step,? and put your final (answer|program) (with)?in "
        r"(\\boxed\{+\}+|one ```python code block)\.?",
        re.IGNORECASE,
    ),
)
_SPELLINGS = (
    (re.compile(r"\\[dt]frac"), r"\\frac"),
    (re.compile(r"\\(left|right|bigl?|bigr?|displaystyle)(?![a-zA-Z])"), ""),
    (re.compile(r"\\[()\[\]]"), ""),
    (re.compile(r"\\(c|l)?dots(?![a-zA-Z])"), "..."),
    (re.compile(r"\\(le|ge|ne)q?(?![a-zA-Z])"), r"\\\1"),
    (re.compile(r"\\[,;:! ]|\\quad(?![a-zA-Z])|~"), ""),
    (re.compile(r"\\(text|mathrm|textrm|mbox)(?=\{)"), ""),
    (re.compile(r"\$"), ""),
    (re.compile(r"([_^])\{(\w)\}"), r"\1\2"),
    (re.compile(r"\{(\w+)\}"), r"\1"),
    # "2 3" and "23" stay apart.
    (re.compile(r"(?<=\d)\s+(?=\d)"), "\x00"),
    (re.compile(r"\s+"), ""),
)


def normalize_question(text: str) -> str:
    """Spelling that equal questions share: no case, spacing, LaTeX variants or instructions."""
    text = unicodedata.normalize("NFKC", text)
    for pattern in _INSTRUCTIONS:
        text = pattern.sub("", text)
    # Case is folded after the patterns: folding turns \DeltaX into nothing that they know.
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return text.casefold().rstrip(".?")


def question_key(text: str) -> str:
    """128-bit hash of the normalised question."""
    return xxh3_128_hexdigest(normalize_question(text).encode("utf-8", "surrogatepass"))


def trace_key(thinking: str, answer: str) -> str:
    """64 bits of a trace's content: the same trace twice is one trace."""
    text = f"{thinking}\x1f{answer}"
    return xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))[:16]


@dataclass(frozen=True, slots=True)
class Entry:
    """The small key of one row that deduplication needs."""

    position: int
    """Row number over the whole phase."""
    row_id: str
    question: str
    """Hash of the normalised question."""
    trace: str
    priority: int
    """Place of the row's source in the phase; smaller wins."""
    is_verified: bool
    num_tokens: int

    @property
    def rank(self) -> tuple[int, bool, int, str, str, int]:
        """Smaller survives. The position only parts rows that are equal in everything."""
        return (
            self.priority,
            not self.is_verified,
            self.num_tokens,
            self.row_id,
            self.trace,
            self.position,
        )


@dataclass(frozen=True, slots=True)
class RemovedPair:
    """A removed row and the row that stands for it."""

    removed: Entry
    kept: Entry
    reason: str
    """``duplicate_trace``: question and trace are the same; ``duplicate_question``: more traces
    of one question than the recipe allows."""


def remove_duplicates(entries: Iterable[Entry], traces_per_question: int) -> list[RemovedPair]:
    """Pairs (removed, kept) that leave at most so many different traces per question."""
    removed = []
    ordered = sorted(entries, key=lambda entry: (entry.question, entry.rank))
    for _, group in groupby(ordered, key=lambda entry: entry.question):
        kept: dict[str, Entry] = {}
        for entry in group:
            if entry.trace in kept:
                removed.append(RemovedPair(entry, kept[entry.trace], "duplicate_trace"))
            elif len(kept) >= traces_per_question:
                best = next(iter(kept.values()))
                removed.append(RemovedPair(entry, best, "duplicate_question"))
            else:
                kept[entry.trace] = entry
    return removed
