"""One line of a judge's reply: which heading it opens with, and which rating it gives.

Markdown that models add unasked (bold, bullets, numbers, tables, quotes) is taken off; words are
not. A rating is one of three words, alone or followed by a separator and a reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.records import Rating
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
_MARKUP = " \t\u00a0>#*_`\"'“”‘’•·+-–—~"
_NUMBER = re.compile(r"\(?\d{1,2}[.)](?=\D)")
_PATTERNS = {
    # Americans write "judgment".
    heading: re.compile(
        r"[\s_-]+".join(re.escape(word) for word in heading.split()).replace(
            "Judgement", "Judge?ment"
        )
        + r"(?P<close>[*_`\"'”’\]]*)(?P<rest>.*)",
        re.IGNORECASE | re.DOTALL,
    )
    for heading in (*CRITERIA, VERDICT)
}
_COLON = re.compile(r"\s*[:：](?P<value>.*)", re.DOTALL)
_DASH = re.compile(r"\s+[-–—]\s+(?P<value>.*)|\s*[–—]\s*(?P<tight>.*)", re.DOTALL)
_LABEL = re.compile(r"(?:rating|score|verdict|assessment)[*_`]*\s*[:：]\s*", re.IGNORECASE)
_VALUE = re.compile(
    rf"(?P<rating>{_RATING})\b[*_`\"'”’\])>]*(?P<stop>[.!]?)[*_`\"'”’\])>]*(?P<tail>.*)",
    re.IGNORECASE | re.DOTALL,
)
_SEPARATOR = re.compile(
    r"\s*(?:[:：;(]|[–—])\s*|\s+-+>?\s*|-+\s+|(?P<comma>\s*,\s*)|\s+(?=because\b)", re.IGNORECASE
)
# "Perfect - Bad", "Perfect; or rather Acceptable": the reason opens with another rating.
_SECOND = re.compile(
    rf"(?:\W|\b(?:or|and|to|rather|maybe|possibly|bordering|on)\b)*(?P<rating>{_RATING})\b",
    re.IGNORECASE,
)
_MENTIONED = re.compile(rf"\b(?P<rating>{_RATING})\b", re.IGNORECASE)
# "should be Bad.", "on second thought this is Acceptable": with what may stand in between, short
# enough that "should be acceptable to contestants" and "rather easy, nothing bad" are left alone.
_TAKEN_BACK = re.compile(
    r"\b(?:(?:rather|instead|i mean|make (?:it|that)|should (?:really )?be|"
    r"(?:chang|revis|downgrad|lower)\w*(?: \w+){0,2} (?:to|from))(?: rated| a| an| at best)?|"
    r"(?:actually|on (?:second|further) (?:thought|reflection)|correction|wait,|no,)"
    rf"(?:\W+\w+){{0,4}}?)\W+(?P<rating>{_RATING})\b[*_`\"']*\s*(?:[.,;!)]|$)",
    re.IGNORECASE,
)
_EXTRA = re.compile(
    r"(?P<name>[A-Za-z][A-Za-z /&-]{1,40})[*_`\"'”’]*\s*[:：](?P<value>.*)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a reply without its markdown."""

    heading: str | None
    """The criterion (or the verdict) that it opens with, spelt as we spell it."""
    value: str
    """What follows the heading."""
    text: str
    """The whole line."""


@dataclass(frozen=True, slots=True)
class Rated:
    """A rating and why."""

    rating: Rating
    reason: str


def read_line(raw: str) -> Line:
    """Take a line's markdown off and look for a heading."""
    text = _strip_opening(raw)
    if text.startswith("|"):
        text = _join_cells(text)
    for heading, pattern in _PATTERNS.items():
        if (match := pattern.match(text)) is None:
            continue
        rest = match["rest"]
        if not rest.strip():
            return Line(heading, "", text)
        if (found := _COLON.fullmatch(rest)) is not None:
            return Line(heading, found["value"].strip(_MARKUP), text)
        if (found := _DASH.fullmatch(rest)) is not None:
            return Line(heading, (found["value"] or found["tight"] or "").strip(_MARKUP), text)
    return Line(None, "", text)


def _strip_opening(raw: str) -> str:
    text = raw.strip().lstrip(_MARKUP)
    if (number := _NUMBER.match(text)) is not None:
        text = text[number.end() :].lstrip(_MARKUP)
    return text.removeprefix("[") if text[:2] != "[[" else text


def _join_cells(row: str) -> str:
    """A table's row as ``heading: rating - reason``."""
    cells = [cell.strip(_MARKUP) for cell in row.strip().strip("|").split("|")]
    cells[0] = _strip_opening(cells[0])
    head, rating, reason = cells[0], "".join(cells[1:2]), " | ".join(cells[2:]).strip()
    return f"{head}: {rating} - {reason}" if reason else f"{head}: {rating}"


def read_value(value: str) -> Rated | Defect:
    """The rating that a heading's value gives, and its reason."""
    unclear = Defect("judge_unparsable", repr(value[:80]))
    text = value.strip().lstrip(_MARKUP + "[(<")
    text = _LABEL.sub("", text, count=1).lstrip(_MARKUP + "[(<") if _LABEL.match(text) else text
    if (match := _VALUE.fullmatch(text)) is None:
        return unclear
    rating, tail = Rating(match["rating"].lower()), match["tail"]
    if not tail.strip():
        return Rated(rating, "")
    if match["stop"] and tail[0].isspace():
        reason, after_comma = tail.strip(), False
    elif (separator := _SEPARATOR.match(tail)) is not None:
        reason, after_comma = tail[separator.end() :].strip(), separator["comma"] is not None
    else:
        return unclear
    second = _SECOND.match(reason)
    if second is not None and second["rating"].lower() != rating:
        return unclear
    # A comma may go on with anything: "Perfect, or at least not bad".
    others = {found["rating"].lower() for found in _MENTIONED.finditer(reason)} - {str(rating)}
    if (after_comma and others) or re.fullmatch(r"not\W*", reason, re.IGNORECASE):
        return unclear
    return Rated(rating, _tidy(reason))


def _tidy(reason: str) -> str:
    folded = " ".join(reason.split()).lstrip(_MARKUP)
    if folded.endswith(")") and folded.count(")") > folded.count("("):
        folded = folded[:-1]
    return folded.rstrip("*_` ")


def takes_back(rating: Rating, reason: str) -> bool:
    """Whether a reason replaces the rating that it should explain."""
    return any(found["rating"].lower() != rating for found in _TAKEN_BACK.finditer(reason))


def read_extra(line: str) -> Rating | None:
    """The rating of a line that rates something nobody asked for ("Originality: Bad", "Bad")."""
    match = _EXTRA.fullmatch(line)
    rated = read_value(match["value"] if match else line)
    if isinstance(rated, Defect) or (match is None and rated.reason):
        return None
    return rated.rating
