"""A source row after its schema is understood, before any rule judged it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import xxhash

from curriculum.sources.parts import RawRow
from curriculum.texts import Text, Trace
from pipeline.records import Domain, Rejected

CodeRule = Literal["strict", "lenient", "none"]
"""``strict``: exactly the checks of OpenCodeReasoning's authors; ``lenient``: instruction-style
code rows, whose answers may hold no program at all; ``none``: not a code row."""


class Origin(NamedTuple):
    """Where a row's texts come from: what :class:`pipeline.records.Provenance` is made of.

    Millions are made and written down once each, which takes a third of a record's time.
    """

    teacher: str | None = None
    source_row: str | None = None
    source_dataset: str | None = None
    source_split: str | None = None
    source_file: str | None = None
    source_position: int | None = None
    synthesis: Mapping[str, Any] | None = None
    """The other fields, of rows that this project made."""


class Candidate(NamedTuple):
    """One row of one source, text untouched."""

    row_id: str
    source: str
    source_revision: str
    source_id: str
    question: str | None
    """What identifies the problem; deduplicated on."""
    user_text: str | None
    """What the user's turn says; trained on. Equal to the question in most sources."""
    response: Text | None
    """The assistant's whole turn with its think tags, as UTF-8 where there is one, see
    :func:`curriculum.texts.to_utf8`."""
    licence: str
    domain: Domain
    difficulty: str | None
    """The source's label."""
    provenance: Origin
    is_verified: bool = False
    code_rule: CodeRule = "none"
    language: str = "python"
    """Programming language that a strict code row's program is in."""
    difficulty_rank: float | None = None
    """From 0 to 100, where the source's numbers have a known range."""
    gold: str | None = None
    """The final answer that the source knows to be right."""
    tests: str | None = None
    """Tests of the program, as JSON text: ``[{"input": …, "output": …}]``."""


class PreparedRow(NamedTuple):
    """A well-formed row: text normalised, reasoning and answer apart."""

    candidate: Candidate
    question: str
    user_text: str
    trace: Trace
    may_fence_thinking: bool = True
    """Whether a code fence may be in the reasoning: nobody looked, or it is."""
    may_hold_scripts: bool = True
    """Whether another script than Latin and Greek may be in the reasoning, likewise."""

    @property
    def thinking(self) -> str:
        """The reasoning."""
        return self.trace.thinking

    @property
    def answer(self) -> str:
        """What follows it."""
        return self.trace.answer


def make_row_id(*parts: Text | None) -> str:
    """A row's key: 128 bits of its parts, 32 hex digits; a text and its UTF-8 are the same part.

    A missing part differs from an empty one, and parts cannot run into each other. XXH3 instead of
    SHA-256, which took a fifth of all the rules' time; nobody gains by making keys collide.
    """
    digest = xxhash.xxh3_128()
    for part in parts:
        if part is None:
            digest.update(b"\0\0\0\0\0\0\0\1\0")
            continue
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update((len(data) + 1).to_bytes(8, "big") + b"\1")
        digest.update(data)
    return digest.hexdigest()


def tell_origin(refusal: Rejected, source: str, raw: RawRow) -> Rejected:
    """A refusal with where its row stands in its source."""
    origin = {"source": source, "source_file": raw.file, "source_position": raw.position}
    return refusal.model_copy(update=origin)


def refuse(row_id: str, stage: str, reason: str, detail: str = "") -> Rejected:
    """A named refusal; the detail is cut to one readable line."""
    line = " ".join(detail[:1000].split())
    return Rejected(row_id=row_id, stage=stage, reason=reason, detail=line[:300])
