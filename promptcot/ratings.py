"""Read a judge's reply and recompute its verdict; whatever is unclear fails.

The original searched the reply for the word "perfect", so "not perfect", "imperfect" and even an
empty reply passed. Here each criterion must be rated exactly once, under its own heading, by a
rating alone or a rating and a reason, and the verdict follows from the ratings by rule. How a line
is taken apart stands in :mod:`promptcot.rating_lines`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.records import FinishReason, Rating
from pipeline.student import THINK_CLOSE, THINK_OPEN
from promptcot.parsing import Defect
from promptcot.rating_lines import (
    CRITERIA,
    VERDICT,
    Line,
    Rated,
    read_extra,
    read_line,
    read_value,
    takes_back,
)

__all__ = [
    "CRITERIA",
    "VERDICT",
    "VERDICT_ORDER",
    "Ratings",
    "describe_ratings",
    "holds_ratings",
    "parse_ratings",
    "recompute_verdict",
    "worst_of",
]

VERDICT_ORDER = (Rating.BAD, Rating.ACCEPTABLE, Rating.PERFECT)
"""From worst to best."""
_REASON_CHARS = 400
"""Longest reason that is kept; judges were asked for a few words."""
_JSON = re.compile(r'^[ \t]*[{\[]\s*["{]', re.MULTILINE)


def worst_of(ratings: Sequence[Rating]) -> Rating:
    """The worst of some ratings."""
    return min(ratings, key=VERDICT_ORDER.index)


@dataclass(frozen=True, slots=True)
class Ratings:
    """Five ratings by field name, the verdict the judge stated, if any, and five short reasons."""

    by_field: Mapping[str, Rating]
    stated: Rating | None
    reasons: tuple[str, ...] = ("",) * len(CRITERIA)
    """In the order of the criteria; empty where the judge gave none."""

    @property
    def verdict(self) -> Rating:
        """What follows from the ratings by rule, and never better than what the judge stated."""
        found = recompute_verdict(self.by_field)
        return found if self.stated is None else worst_of((found, self.stated))


def recompute_verdict(ratings: Mapping[str, Rating]) -> Rating:
    """``bad`` if anything is; ``perfect`` if accuracy and solvability are, and two of the rest."""
    if Rating.BAD in ratings.values():
        return Rating.BAD
    must = (ratings["factual_accuracy"], ratings["solvability"])
    others = [ratings[f] for f in ("format", "difficulty_alignment", "concept_coverage")]
    if all(r is Rating.PERFECT for r in must) and others.count(Rating.PERFECT) >= 2:
        return Rating.PERFECT
    return Rating.ACCEPTABLE


def parse_ratings(text: str, finish_reason: FinishReason, detail: str = "") -> Ratings | Defect:
    """The five ratings of a reply.

    Reasons: ``judge_truncated``, ``judge_failed``, ``judge_empty``, ``judge_json`` (JSON instead of
    lines), ``judge_duplicated`` (a criterion or the verdict is rated twice), ``judge_incomplete``
    (one is missing), ``judge_unparsable`` (one has no clear rating, or takes it back) and
    ``judge_extra`` (something else is rated worse than the verdict).

    Args:
        text: The reply.
        finish_reason: How it ended.
        detail: What the engine said about a failure.
    """
    if finish_reason != "stop":
        reason = "judge_truncated" if finish_reason == "length" else "judge_failed"
        return Defect(reason, detail or f"the reply ended with {finish_reason}")
    body = _after_thinking(text)
    if isinstance(body, Defect):
        return body
    if _JSON.search(body):
        return Defect("judge_json", "the reply is JSON; five lines were asked for")
    return _read_sections(_cut_sections(body))


def holds_ratings(text: str) -> bool:
    """Whether a text holds lines that would be read as a rating: no honest problem does."""
    for section in _cut_sections(text)[1:]:
        value = section.value or "".join(section.lines[:1])
        if isinstance(read_value(value), Rated):
            return True
    return False


def _after_thinking(text: str) -> str | Defect:
    """What follows a reasoning model's thoughts.

    Only thoughts at the very beginning count: a tag further down may be quoted from a problem that
    wants to hide what stands before it.
    """
    if text.count(THINK_CLOSE) > 1:
        return Defect("judge_duplicated", "more than one thinking section")
    head, closing, tail = text.partition(THINK_CLOSE)
    body = tail if closing else text
    if not body.strip() or THINK_OPEN in body:
        return Defect("judge_empty", "the reply holds no ratings")
    if closing and head.partition(THINK_OPEN)[0].strip() and THINK_OPEN in head:
        return Defect("judge_unparsable", "text stands before the thinking section")
    return body


@dataclass(slots=True)
class _Section:
    """A heading's value and the lines up to the next heading."""

    heading: str | None
    value: str
    lines: list[str]


def _cut_sections(text: str) -> list[_Section]:
    """The first section has no heading: what stands before all of them."""
    sections = [_Section(None, "", [])]
    for raw in text.splitlines():
        line: Line = read_line(raw)
        if line.heading is not None:
            sections.append(_Section(line.heading, line.value, []))
        elif line.text:
            sections[-1].lines.append(line.text)
    return sections


def _read_sections(sections: Sequence[_Section]) -> Ratings | Defect:
    found: dict[str, Rated] = {}
    for heading in (*CRITERIA, VERDICT):
        own = [section for section in sections if section.heading == heading]
        if not own and heading == VERDICT:
            continue  # it is recomputed anyway, so a missing one is no loss; an unclear one is
        if len(own) != 1:
            reason = "judge_duplicated" if own else "judge_incomplete"
            return Defect(reason, f"{len(own)} lines open with {heading}:")
        rated = _read_section(own[0])
        if isinstance(rated, Defect):
            return Defect(rated.reason, f"{heading}: {rated.detail}")
        found[heading] = rated
    ratings = Ratings(
        by_field={field: found[heading].rating for heading, field in CRITERIA.items()},
        stated=found[VERDICT].rating if VERDICT in found else None,
        reasons=tuple(found[heading].reason[:_REASON_CHARS] for heading in CRITERIA),
    )
    return _check_extras(ratings, sections)


def _read_section(section: _Section) -> Rated | Defect:
    """A rating that stands after its heading, or in the next line."""
    if not section.value and section.lines:
        section.value = section.lines.pop(0)
    lines, value = section.lines, section.value
    rated = read_value(value)
    if isinstance(rated, Defect):
        return rated
    for line in lines:
        extra = read_value(line)
        if isinstance(extra, Rated) and not extra.reason:
            return Defect("judge_duplicated", f"rated again by {line[:80]!r}")
    reason = " ".join([rated.reason, *(_RESTATED.sub("", line) for line in lines)]).strip()
    if takes_back(rated.rating, reason):
        return Defect("judge_unparsable", f"takes its rating back: {reason[:80]!r}")
    return Rated(rated.rating, reason)


_RESTATED = re.compile(r"^\W*(?:reason(?:ing)?|explanation|justification|comment)\W*:\W*", re.I)


def _check_extras(ratings: Ratings, sections: Sequence[_Section]) -> Ratings | Defect:
    """Refuse when the judge rated something else worse than the verdict."""
    verdict = ratings.verdict
    for section in sections:
        for line in section.lines:
            extra = read_extra(line)
            if extra is not None and worst_of((extra, verdict)) is not verdict:
                return Defect("judge_extra", f"also rated: {line[:80]!r}")
    return ratings


def describe_ratings(votes: Sequence[Ratings]) -> str:
    """All votes in one line, for the detail of a rejected row."""
    return "; ".join(
        ", ".join(
            f"{field} {rating}"
            + (f" ({reason})" if reason and rating is not Rating.PERFECT else "")
            for (field, rating), reason in zip(vote.by_field.items(), vote.reasons, strict=True)
        )
        + f" → {vote.verdict}"
        + (f" (stated {vote.stated})" if vote.stated not in (None, vote.verdict) else "")
        for vote in votes
    )
