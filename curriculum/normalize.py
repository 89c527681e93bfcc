"""One form for all texts: Unicode NFC, plain line ends, and one dialect of think tags.

Meaning is never repaired: a missing opening tag is supplied, because its place is certain (some
generators put it into the prompt), while everything ambiguous is refused by name.
"""

from __future__ import annotations

import unicodedata

from curriculum.candidates import Candidate, PreparedRow, refuse
from pipeline.records import Rejected
from pipeline.student import THINK_CLOSE, THINK_OPEN

STAGE = "normalize"

_OTHER_DIALECTS = (
    ("<|begin_of_thought|>", THINK_OPEN),
    ("<|end_of_thought|>", THINK_CLOSE),
    ("<|begin_of_solution|>", ""),
    ("<|end_of_solution|>", ""),
)
_INVISIBLE = dict.fromkeys(map(ord, "\x00\u200b\u2060\ufeff"))
_CHAT_MARKS = ("<|im_start|>", "<|im_end|>")


def normalize_text(text: str) -> str:
    """NFC, Unix line ends, no zero-width characters, NULs or trailing blanks."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_INVISIBLE)
    text = unicodedata.normalize("NFC", text)
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def normalize_row(candidate: Candidate, max_chars: int) -> PreparedRow | Rejected:
    """Clean a candidate's texts and part its reasoning from its answer.

    Args:
        candidate: The row as its source has it.
        max_chars: Longer rows are run-aways; they are refused before any other work.
    """
    if not (candidate.question or "").strip() or not (candidate.user_text or "").strip():
        return refuse(candidate.row_id, STAGE, "no_question")
    if not (candidate.response or "").strip():
        return refuse(candidate.row_id, STAGE, "no_response")
    question, user_text = candidate.question or "", candidate.user_text or ""
    response = candidate.response or ""
    num_chars = len(user_text) + len(response)
    if num_chars > max_chars:
        return refuse(
            candidate.row_id, STAGE, "runaway_length", f"{num_chars} characters, limit {max_chars}"
        )
    parts = split_response(normalize_text(response))
    if isinstance(parts, str):
        return refuse(candidate.row_id, STAGE, parts, response[:80])
    row = PreparedRow(
        candidate=candidate,
        question=normalize_text(question),
        user_text=normalize_text(user_text),
        thinking=parts[0],
        answer=parts[1],
    )
    if any(mark in text for mark in _CHAT_MARKS for text in (row.user_text, *parts)):
        return refuse(candidate.row_id, STAGE, "chat_marks_in_text", "holds <|im_start|> or _end")
    return row


def split_response(text: str) -> tuple[str, str] | str:
    """Reasoning and answer of an assistant turn, or the name of what is wrong with its tags."""
    for old, new in _OTHER_DIALECTS:
        text = text.replace(old, new)
    opens, closes = text.count(THINK_OPEN), text.count(THINK_CLOSE)
    if closes == 0:
        return "think_not_closed" if opens else "no_thinking"
    if opens > 1 or closes > 1:
        return "repeated_think_tags"
    before, _, answer = text.partition(THINK_CLOSE)
    if opens == 1:
        lead, separator, thinking = before.partition(THINK_OPEN)
        if not separator:
            return "think_tags_out_of_order"
        if lead.strip():
            return "text_before_thinking"
    else:
        thinking = before
    return thinking.strip(), answer.strip()
