"""Read a judge's reply and recompute its verdict; whatever is unclear fails.

The original searched the reply for the word "perfect", so "not perfect", "imperfect" and even an
empty reply passed. Here each criterion must be rated exactly once, in its own line, by a rating
alone or a rating and a reason, and the verdict follows from the ratings by rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.records import FinishReason, Rating
from pipeline.student import THINK_CLOSE, THINK_OPEN
from promptcot.parsing import Defect

CRITERIA: dict[str, str] = {
    "Format": "format",
    "Factual Accuracy": "factual_accuracy",
    "Difficulty Alignment": "difficulty_alignment",
    "Concept Coverage": "concept_coverage",
    "Solvability": "solvability",
}
"""Heading in the reply → field of the judgement."""

VERDICT = "Final Judgement"
"""Heading of the verdict in the reply."""

_RATING = r"(?:perfect|acceptable|bad)"
# A reason needs a separator, and must not open with a rating itself ("Perfect - Bad").
_VALUE = re.compile(
    rf"\**\s*(?P<rating>{_RATING})\**\.?(?:\s*(?:-|–|—|:|;|\(|\.\s)(?!\W*{_RATING}\b).*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Ratings:
    """Five ratings by field name, and the verdict the judge stated, if any."""

    by_field: Mapping[str, Rating]
    stated: Rating | None

    @property
    def verdict(self) -> Rating:
        """The verdict that follows from the ratings."""
        return recompute_verdict(self.by_field)


def recompute_verdict(ratings: Mapping[str, Rating]) -> Rating:
    """``bad`` if anything is; ``perfect`` if accuracy and solvability are, and two of the rest."""
    if Rating.BAD in ratings.values():
        return Rating.BAD
    must = (ratings["factual_accuracy"], ratings["solvability"])
    others = [ratings[f] for f in ("format", "difficulty_alignment", "concept_coverage")]
    if all(r is Rating.PERFECT for r in must) and others.count(Rating.PERFECT) >= 2:
        return Rating.PERFECT
    return Rating.ACCEPTABLE


def parse_ratings(text: str, finish_reason: FinishReason) -> Ratings | Defect:
    """The five ratings of a reply.

    Reasons: ``judge_truncated``, ``judge_failed``, ``judge_empty``, ``judge_duplicated`` (a
    criterion or the verdict stands twice), ``judge_incomplete`` (one is missing) and
    ``judge_unparsable`` (one has no clear rating).
    """
    if finish_reason != "stop":
        reason = "judge_truncated" if finish_reason == "length" else "judge_failed"
        return Defect(reason, f"the reply ended with {finish_reason}")
    if THINK_CLOSE in text:
        text = text.rpartition(THINK_CLOSE)[2]
    if not text.strip() or THINK_OPEN in text:
        return Defect("judge_empty", "the reply holds no ratings")
    ratings = {}
    for heading, field in CRITERIA.items():
        value = _read_line(text, heading)
        if isinstance(value, Defect):
            return value
        ratings[field] = value
    stated = _read_line(text, VERDICT)
    if isinstance(stated, Defect):
        # The verdict is recomputed anyway, so a missing one is no loss; an unclear one is.
        return Ratings(ratings, None) if stated.reason == "judge_incomplete" else stated
    return Ratings(ratings, stated)


def _read_line(text: str, heading: str) -> Rating | Defect:
    """The rating in the one line that opens with a heading."""
    pattern = rf"^[\s*#>\-\d.]*{re.escape(heading)}\**\s*:(?P<value>.*)$"
    found = re.findall(pattern, text, flags=re.MULTILINE | re.IGNORECASE)
    if len(found) != 1:
        reason = "judge_duplicated" if found else "judge_incomplete"
        return Defect(reason, f"{len(found)} lines open with {heading}:")
    match = _VALUE.fullmatch(found[0].strip())
    if match is None:
        return Defect("judge_unparsable", f"{heading}: {found[0].strip()[:80]!r}")
    return Rating(match["rating"].lower())


def describe_ratings(votes: Sequence[Ratings]) -> str:
    """All votes in one line, for the detail of a rejected row."""
    return "; ".join(
        ", ".join(f"{field} {rating}" for field, rating in vote.by_field.items())
        + f" → {vote.verdict}"
        + (f" (stated {vote.stated})" if vote.stated not in (None, vote.verdict) else "")
        for vote in votes
    )
