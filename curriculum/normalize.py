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
_ASCII_BLANKS = bytes([*range(9, 14), *range(28, 33)])
"""What ``str.strip`` strips; a plain text holds no others."""
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
    response = candidate.response or ""
    if _is_missing(question) or _is_missing(user_text):
        return refuse(candidate.row_id, STAGE, "no_question")
    if not response or response.isspace():
        return refuse(candidate.row_id, STAGE, "no_response")
    num_chars = len(user_text) + len(response)
    if num_chars > max_chars:
        return refuse(
            candidate.row_id, STAGE, "runaway_length", f"{num_chars} characters, limit {max_chars}"
        )
    try:
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


def _is_missing(text: str) -> bool:
    return len(text) < 16 and text.strip().lower() in _NO_QUESTION


def _level(
    candidate: Candidate, question: str, user_text: str, wrote: tuple[str, Survey]
) -> PreparedRow | Rejected:
    response, seen = wrote
    plain = _split_plain(response, seen)
    parts = plain or split_response(normalize_text(response))
    if isinstance(parts, str):
        return refuse(candidate.row_id, STAGE, parts, response[:80])
    utf8 = None
    if plain and candidate.utf8 is not None:
        utf8 = (_cut_thinking(candidate.utf8, seen), parts[1].encode())
    levelled = normalize_text(question)
    turn = levelled if user_text == question else normalize_text(user_text)
    return PreparedRow(
        candidate=candidate,
        question=levelled,
        # One object for equal texts, whose words are then hashed once.
        user_text=levelled if turn == levelled else turn,
        thinking=parts[0],
        answer=parts[1],
        may_fence_thinking=plain is None or NOWHERE < seen.fence < seen.closing,
        # What a plain text may hold outside ASCII is known, and no such letter is among it.
        may_hold_scripts=plain is None,
        utf8=utf8,
    )


def _split_plain(response: str, seen: Survey) -> tuple[str, str] | None:
    """:func:`split_response` of a plain response with its tags in order, or nothing."""
    if not seen.is_plain or seen.has_more_tags or not seen.opening < seen.closing:
        return None
    begin = 0
    if seen.opening != NOWHERE:
        if response[: seen.opening].strip():
            return None
        begin = seen.opening + len(THINK_OPEN)
    answer = _unwrap_answer(response[seen.closing + len(THINK_CLOSE) :].strip())
    return None if answer is None else (_strip_part(response, begin, seen.closing), answer)


def _strip_part(text: str, start: int, end: int) -> str:
    """``text[start:end].strip()``, copied once: a reasoning is fifteen thousand characters."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return text[start:end]


def _cut_thinking(utf8: bytes, seen: Survey) -> bytes:
    """The reasoning that :func:`_split_plain` found, from the response's UTF-8."""
    before, until = seen.bytes_before
    begin = 0 if seen.opening == NOWHERE else before + len(THINK_OPEN)
    while begin < until and utf8[begin] in _ASCII_BLANKS:
        begin += 1
    while begin < until and utf8[until - 1] in _ASCII_BLANKS:
        until -= 1
    return utf8[begin:until]


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
