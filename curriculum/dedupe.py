"""Exact duplicates: the same question in another spelling, and which of its rows survives.

The survivor is the same whatever order rows arrive in: source priority (the phase's order), then
verified before unverified, then the shorter row, then the smaller id.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from xxhash import xxh3_128_hexdigest

STAGE = "dedupe"


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
