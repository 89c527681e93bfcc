"""What releases wrap around a problem: chat templates and instructions on how to answer."""

from __future__ import annotations

import re

_DEEPSEEK_USER, _DEEPSEEK_ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
_CHATML = re.compile(r"<\|im_start\|>user\n(.*?)<\|im_end\|>\n<\|im_start\|>assistant\n", re.DOTALL)
_INSTRUCTIONS = (
    r"(?:please )?reason step[ -]by[ -]step,? and put your final answer within \\+boxed\{+\s*\}+",
    r"return your final response within \\+boxed\{+\s*\}+",
    r"please reason step by step",
    r"(?:please )?put your final answer (?:with)?in \\+boxed\{+\s*\}+",
    r"please reason step by step, and put your final program in one ```python code block",
    r"let's think step by step(?: and output the final answer within \\+boxed\{+\s*\}+)?",
)
_LEAD = re.compile(rf"^\s*(?:{'|'.join(_INSTRUCTIONS)})\s*[.:!]*\s+", re.IGNORECASE)
_TAIL = re.compile(rf"\s+(?:{'|'.join(_INSTRUCTIONS)})\s*[.:!]*\s*$", re.IGNORECASE)
_END_CHARS = 300
"""Characters at each end that an instruction stands in."""
_MAY_INSTRUCT = ("step", "boxed", "Step", "STEP")


def strip_chat_template(prompt: str) -> str | None:
    """The user's turn of a prompt that was rendered for a model, or ``None`` if it is none.

    Two forms are known: DeepSeek's, whose instruction stands before the user's turn, and ChatML.
    An opening think tag at the end belongs to the answer, whose reasoning then begins without one.
    """
    _, mark, rest = prompt.partition(_DEEPSEEK_USER)
    if mark:
        user, mark, after = rest.rpartition(_DEEPSEEK_ASSISTANT)
        if not mark or after.strip() not in {"", "<think>"} or _DEEPSEEK_USER in rest:
            return None
        return user.strip()
    turns = _CHATML.findall(prompt)
    return turns[0].strip() if len(turns) == 1 else None


def strip_instructions(text: str) -> str:
    """A problem without the sentence that says how to answer, at its beginning or its end."""
    text = text.strip()
    ends = text if len(text) <= 2 * _END_CHARS else f"{text[:_END_CHARS]}\n{text[-_END_CHARS:]}"
    for word in _MAY_INSTRUCT:
        if word in ends:
            return _TAIL.sub("", _LEAD.sub("", text)).strip()
    return text
