"""One form for all texts: Unicode NFC, plain line ends, and one dialect of think tags.

Meaning is never repaired: a missing opening tag is supplied, because its place is certain (some
generators put it into the prompt), while everything ambiguous is refused by name. A row is ten
thousand characters of plain ASCII on average, so each rule first asks whether it has work at all.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np

from curriculum.candidates import Candidate, PreparedRow, refuse
from curriculum.surveys import NOWHERE, UNKNOWN, Survey
from curriculum.text_kernels import has_blank_ends
from curriculum.texts import Trace, to_text
from pipeline.records import Rejected
from pipeline.student import THINK_CLOSE, THINK_OPEN

STAGE = "normalize"

_DIALECTS = (
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<Thought>", "</Thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
)
"""Tags of other models' reasoning; they count only where they open the response."""
_ANSWER_TAGS = (
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<answer>", "</answer>"),
    ("<Output>", "</Output>"),
    ("<solution>", "</solution>"),
)
_INVISIBLE = "\x00\u00ad\u200b\u2060\ufeff"
_BLANKS_AT_LINE_END = re.compile(r"(?<![ \t])[ \t]+\n")
_CHAT_MARKS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜end▁of▁sentence｜>",
)
_NO_QUESTION = frozenset({"", "-", "n/a", "none", "null"})


def normalize_text(text: str) -> str:
    """NFC, Unix line ends, no zero-width characters, NULs or trailing blanks.

    Raises:
        UnicodeEncodeError: The text holds half a surrogate pair, which no file can store.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        if "\x00" in text:
            text = text.replace("\x00", "")
        return _strip_lines(text).strip()
    text.encode("utf-8")
    for character in _INVISIBLE:
        if character in text:
            text = text.replace(character, "")
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def _strip_lines(text: str) -> str:
    """ASCII text without blanks at the ends of lines; most texts have none."""
    if not has_blank_ends(np.frombuffer(text.encode("ascii"), np.uint8)):
        return text
    for _ in range(2):
        text = text.replace(" \n", "\n")
    if " \n" in text or "\t\n" in text:
        text = _BLANKS_AT_LINE_END.sub("\n", text)
    return text


def normalize_row(
    candidate: Candidate, max_chars: int, seen: Survey = UNKNOWN
) -> PreparedRow | Rejected:
    """Clean a candidate's texts and part its reasoning from its answer.

    Args:
        candidate: The row as its source has it.
        max_chars: Longer rows are run-aways; they are refused before any other work.
        seen: What the response holds, as far as anybody looked.
    """
    question, user_text = candidate.question or "", candidate.user_text or ""
    # A text that was split is neither empty nor looked at again.
    response = None if seen.split else to_text(candidate.response) or ""
    if _is_missing(question) or _is_missing(user_text):
        return refuse(candidate.row_id, STAGE, "no_question")
    if response is not None and (not response or response.isspace()):
        return refuse(candidate.row_id, STAGE, "no_response")
    num_chars = len(user_text) + (seen.num_chars if response is None else len(response))
    if num_chars > max_chars:
        return refuse(
            candidate.row_id, STAGE, "runaway_length", f"{num_chars} characters, limit {max_chars}"
        )
    try:
        _require_unicode(candidate)
        row = _level(candidate, question, user_text, (response, seen))
    except UnicodeEncodeError as exc:
        return refuse(candidate.row_id, STAGE, "broken_unicode", exc.reason)
    if isinstance(row, Rejected):
        return row
    if THINK_OPEN in row.user_text or THINK_CLOSE in row.user_text:
        return refuse(candidate.row_id, STAGE, "think_tags_in_question")
    # Dropping invisible characters may join a mark that the text did not hold as it came.
    is_clear = seen.is_plain and not seen.may_hold_marks
    wrote = () if is_clear else (row.thinking, row.answer)
    for text in (row.user_text, *wrote):
        mark = find_chat_mark(text)
        if mark:
            return refuse(candidate.row_id, STAGE, "chat_marks_in_text", f"holds {mark}")
    return row


def _require_unicode(candidate: Candidate) -> None:
    """Hold labels to what a file can store, as texts are.

    Raises:
        UnicodeEncodeError: One holds half a surrogate pair, which JSON may.
    """
    origin, source_id = candidate.provenance, candidate.source_id
    told = (origin.teacher, origin.source_row, origin.source_dataset, origin.source_split)
    for label in (source_id, candidate.licence, candidate.difficulty, origin.source_file, *told):
        if label is not None and not label.isascii():
            label.encode()


def _is_missing(text: str) -> bool:
    return len(text) < 16 and text.strip().lower() in _NO_QUESTION


def _level(
    candidate: Candidate, question: str, user_text: str, wrote: tuple[str | None, Survey]
) -> PreparedRow | Rejected:
    response, seen = wrote
    if seen.split is not None:
        trace = Trace.of_split(seen.split)
    else:
        text = response or ""
        parts = split_response(normalize_text(text))
        if isinstance(parts, str):
            return refuse(candidate.row_id, STAGE, parts, text[:80])
        trace = Trace.of_texts(*parts)
    levelled = normalize_text(question)
    turn = levelled if user_text == question else normalize_text(user_text)
    return PreparedRow(
        candidate=candidate,
        question=levelled,
        # One object for equal texts, whose words are then hashed once.
        user_text=levelled if turn == levelled else turn,
        trace=trace,
        may_fence_thinking=seen.split is None or NOWHERE < seen.fence < seen.closing,
        # What a plain text may hold outside ASCII is known, and no such letter is among it.
        may_hold_scripts=seen.split is None,
    )


def find_chat_mark(text: str) -> str | None:
    """A mark of some chat format, which would end or open turns in the middle of one."""
    # One character is found ten times faster than two.
    if ("|" not in text or "<|" not in text) and (text.isascii() or "<｜" not in text):
        return None
    return next((mark for mark in _CHAT_MARKS if mark in text), None)


def split_response(text: str) -> tuple[str, str] | str:
    """Reasoning and answer of an assistant turn, or the name of what is wrong with its tags."""
    close = text.find(THINK_CLOSE)
    if close < 0 and THINK_OPEN not in text:
        text = _translate_dialect(text)
        close = text.find(THINK_CLOSE)
    opening = text.find(THINK_OPEN)
    if close < 0:
        return "think_not_closed" if opening >= 0 else "no_thinking"
    begin, end = opening + len(THINK_OPEN) if opening >= 0 else 0, close + len(THINK_CLOSE)
    if text.find(THINK_CLOSE, end) >= 0 or (opening >= 0 and text.find(THINK_OPEN, begin) >= 0):
        return "repeated_think_tags"
    if opening > close:
        return "think_tags_out_of_order"
    if opening > 0 and text[:opening].strip():
        return "text_before_thinking"
    thinking, answer = text[begin:close], text[end:]
    unwrapped = _unwrap_answer(answer.strip())
    if unwrapped is None:
        return "answer_not_closed"
    return thinking.strip(), unwrapped


def _translate_dialect(text: str) -> str:
    start = text.lstrip()
    for opening, closing in _DIALECTS:
        if start.startswith(opening) or (opening not in text and closing in text):
            return text.replace(opening, THINK_OPEN).replace(closing, THINK_CLOSE)
    return text


def _unwrap_answer(answer: str) -> str | None:
    """An answer without the tags around it, or ``None`` when they open and never close."""
    for opening, closing in _ANSWER_TAGS:
        if answer.startswith(opening):
            inner = answer[len(opening) :]
            return inner[: -len(closing)].strip() if inner.endswith(closing) else None
    return answer
