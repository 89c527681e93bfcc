"""open-r1/OpenR1-Math-220k: NuminaMath problems with several traces each, each checked by machine.

Its configs differ in columns' types, so that reading both as one fails elsewhere; only what is
needed is read here. The first complete trace that math-verify found right is taken, else the first
that the judge model found right; rows without any are refused by name.
"""

from __future__ import annotations

from typing import Any

from curriculum.candidates import Candidate, Origin, make_row_id, refuse
from curriculum.sources.parts import Columns, RawRow
from curriculum.sources.templates import strip_instructions
from curriculum.texts import to_utf8
from pipeline.records import Rejected
from pipeline.settings.sources import SourceSettings

REQUIRED = ("problem", "answer", "generations", "is_reasoning_complete")
COLUMNS: Columns = {
    "problem": "text",
    "answer": "text",
    "source": "text",
    "uuid": "text",
    "problem_type": "text",
    "generations": "turns",
    "is_reasoning_complete": "turns",
    "correctness_math_verify": "turns",
    "correctness_llama": "turns",
}
_CHECKS = ("correctness_math_verify", "correctness_llama")


def parse_row(raw: RawRow, source: SourceSettings) -> Candidate | Rejected:
    """Understand one row: its first trace that some check found right."""
    row = raw.values
    place = choose_generation(row)
    if place is None:
        row_id = make_row_id(source.kind, row["problem"], row["uuid"])
        count = len(row["generations"] or [])
        return refuse(row_id, "parse", "no_correct_generation", f"none of {count} traces")
    response = to_utf8(row["generations"][place])
    return Candidate(
        row_id=make_row_id(source.kind, row["problem"], response),
        source=source.name,
        source_revision=raw.revision,
        source_id=row["uuid"] or "",
        question=strip_instructions(row["problem"] or ""),
        user_text=row["problem"],
        response=response,
        licence=source.licence,
        domain="math",
        difficulty=None,
        provenance=Origin(
            teacher="DeepSeek-R1",
            source_row=str(place),
            source_dataset=row["source"],
            source_file=raw.file,
            source_position=raw.position,
        ),
        is_verified=True,
        gold=row["answer"],
    )


def choose_generation(row: dict[str, Any]) -> int | None:
    """Place of the trace to take, or ``None``."""
    generations, complete = row["generations"] or [], row["is_reasoning_complete"] or []
    for check in _CHECKS:
        for place, (text, ends, right) in enumerate(
            zip(generations, complete, row[check] or [], strict=False)
        ):
            if isinstance(text, str) and ends is True and right is True:
                return place
    return None
