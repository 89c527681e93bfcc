"""Take replies apart strictly: every defect has a name, and nothing is guessed.

Two forms exist for each kind of reply (see ``Form`` in the settings). A parser returns the parts or
the reason why there are none.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from pipeline.records import FinishReason
from pipeline.settings.synthesis import Form
from pipeline.student import THINK_CLOSE, THINK_OPEN


@dataclass(frozen=True, slots=True)
class Defect:
    """Why a reply was refused."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class ProblemText:
    """The two parts of a problem reply."""

    rationale: str
    statement: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The two parts of a solution reply."""

    thinking: str
    answer: str


@dataclass(frozen=True, slots=True)
class ProgramTest:
    """One test of a program that reads standard input."""

    input: str
    output: str


_LABEL = re.compile(
    r"\A[*_#\s]*(?:problem|question|task)(?:\s+statement)?[*_]*\s*:[*_]*\s*", re.IGNORECASE
)
_HEADINGS = ("Rationale", "Problem")


def parse_problem(text: str, finish_reason: FinishReason, form: Form) -> ProblemText | Defect:
    """Rationale and statement of a reply.

    Reasons: ``truncated``, ``failed``, ``empty``, ``missing_rationale``, ``missing_problem``,
    ``two_rationales``, ``two_problems``.
    """
    found = _sections(text, finish_reason, form, names=_HEADINGS)
    if isinstance(found, Defect):
        return found
    rationale, statement = found
    # A label that the model repeats inside the section is no part of the statement.
    statement = _LABEL.sub("", statement)
    for name, part in (("rationale", rationale), ("problem", statement)):
        if not part:
            return Defect("empty", f"the {name} is empty")
    return ProblemText(rationale=rationale, statement=statement)


def parse_rationale(text: str, finish_reason: FinishReason, form: Form) -> str | Defect:
    """The rationale of a reply that holds nothing else.

    Reasons: ``truncated``, ``failed``, ``empty``, ``missing_rationale``, ``two_rationales``.
    """
    found = _sections(text, finish_reason, form, names=_HEADINGS[:1])
    if isinstance(found, Defect):
        return found
    return found[0] or Defect("empty", "the rationale is empty")


def _sections(
    text: str, finish_reason: FinishReason, form: Form, *, names: tuple[str, ...]
) -> list[str] | Defect:
    if (cut := _cut_off(finish_reason)) is not None:
        return cut
    text = _after_thinking(text)
    if not text.strip():
        return Defect("empty", "the reply holds nothing")
    return _marked_sections(text, names) if form == "free" else _headed_sections(text, names)


def _cut_off(finish_reason: FinishReason) -> Defect | None:
    if finish_reason == "length":
        return Defect("truncated", "the reply reached its token limit")
    if finish_reason == "error":
        return Defect("failed", "the teacher reported an error for this request")
    return None


def _after_thinking(text: str) -> str:
    """What follows a reasoning model's thoughts; nothing while they are not closed."""
    _, separator, tail = text.rpartition(THINK_CLOSE)
    if separator:
        return tail
    return "" if THINK_OPEN in text else text


def _marked_sections(text: str, names: tuple[str, ...]) -> list[str] | Defect:
    """Sections between ``<!-- BEGIN X -->`` and ``<!-- END X -->``, each exactly once."""
    parts = []
    position = 0
    for name in names:
        begins, ends = (
            list(re.finditer(rf"<!--\s*{mark}\s+{name}\s*-->", text, re.IGNORECASE))
            for mark in ("BEGIN", "END")
        )
        if (most := max(len(begins), len(ends))) > 1:
            return Defect(f"two_{name.lower()}s", f"{most} {name} markers")
        if not (begins and ends and position <= begins[0].start() < ends[0].start()):
            return Defect(
                f"missing_{name.lower()}",
                f"no <!-- BEGIN {name.upper()} --> … <!-- END {name.upper()} --> in this order",
            )
        parts.append(text[begins[0].end() : ends[0].start()].strip())
        position = ends[0].end()
    return parts


def _headed_sections(text: str, names: tuple[str, ...]) -> list[str] | Defect:
    """``Rationale: …`` up to a line that opens with ``Problem: …``, up to the end."""
    starts = []
    for heading in names:
        found = list(re.finditer(rf"^{heading}:", text, flags=re.MULTILINE | re.IGNORECASE))
        if len(found) > 1:
            return Defect(f"two_{heading.lower()}s", f"{len(found)} lines open with {heading}:")
        if not found:
            return Defect(f"missing_{heading.lower()}", f"no line opens with {heading}:")
        starts.append(found[0])
    # What stands before the first heading may be the second one.
    if text[: starts[0].start()].strip():
        return Defect("missing_rationale", "the reply does not open with Rationale:")
    ends = [start.start() for start in starts[1:]] + [len(text)]
    return [text[start.end() : end].strip() for start, end in zip(starts, ends, strict=True)]


def parse_solution(text: str, finish_reason: FinishReason, form: Form) -> Reply | Defect:
    """Thinking and answer of a reply.

    ``free``: exactly one ``</think>``, text on both sides; the opening tag may be missing, because
    the chat templates of several reasoning models prefill it. ``constrained``: ``Reasoning: …`` up
    to a last line ``Answer: …`` (maths) or a fenced program (code).

    Reasons: ``truncated``, ``failed``, ``no_thinking``, ``unclosed_think``, ``two_think``,
    ``empty_answer``.
    """
    if form == "free" and THINK_OPEN in text and THINK_CLOSE not in text:
        return Defect("unclosed_think", "thinking never ends")
    if (cut := _cut_off(finish_reason)) is not None:
        return cut
    if not text.strip():
        return Defect("no_thinking", "the reply holds nothing")
    return _split_thinking(text) if form == "free" else _split_headed(text)


def _split_thinking(text: str) -> Reply | Defect:
    if text.count(THINK_CLOSE) > 1 or text.count(THINK_OPEN) > 1:
        return Defect("two_think", "more than one thinking section")
    head, separator, answer = text.partition(THINK_CLOSE)
    if not separator:
        return Defect("no_thinking", "no thinking section")
    before, opening, thinking = head.rpartition(THINK_OPEN)
    if before.strip():
        return Defect("no_thinking", "text stands before the thinking section")
    return _filled(thinking if opening else head, answer)


_DECODER = json.JSONDecoder()
_FENCED = re.compile(r"```(?:python)?\n(?P<program>.*?)\n?```", flags=re.DOTALL)


def _split_headed(text: str) -> Reply | Defect:
    match = re.match(r"\s*Reasoning:(?P<body>.*)\Z", text, flags=re.DOTALL)
    if match is None:
        return Defect("no_thinking", "the reply does not open with Reasoning:")
    body = match["body"]
    if (fence := _FENCED.search(body)) is not None:
        if body[fence.end() :].strip():
            return Defect("empty_answer", "text follows the program")
        return _filled(body[: fence.start()], f"```python\n{fence['program']}\n```")
    answers = list(re.finditer(r"^Answer:", body, flags=re.MULTILINE))
    if len(answers) != 1:
        return Defect("empty_answer", f"{len(answers)} lines open with Answer:")
    answer = body[answers[0].end() :].strip()
    if not answer:
        return Defect("empty_answer", "nothing after Answer:")
    boxed = f"The final answer is $\\boxed{{{answer}}}$."
    return _filled(body[: answers[0].start()], boxed)


def _filled(thinking: str, answer: str) -> Reply | Defect:
    if not thinking.strip():
        return Defect("no_thinking", "the thinking section is empty")
    if not answer.strip():
        return Defect("empty_answer", "nothing follows the thinking section")
    return Reply(thinking=thinking.strip(), answer=answer.strip())


def parse_test(text: str, finish_reason: FinishReason, form: Form) -> ProgramTest | Defect:
    r"""One test of a program.

    ``free``: the reply's last ``{"input": …, "output": …}`` object whose output is not blank.
    ``constrained``: lines ``Input: …`` and ``Output: …`` in which ``\n`` stands for a new line.

    Reasons: ``truncated``, ``failed``, ``no_test``.
    """
    if (cut := _cut_off(finish_reason)) is not None:
        return cut
    if form == "constrained":
        match = re.fullmatch(r"\s*Input: ([^\n]+)\nOutput: ([^\n]+)\s*", text)
        if match is None:
            return Defect("no_test", "no Input: and Output: lines")
        first, second = (part.strip().replace("\\n", "\n") for part in match.groups())
        return ProgramTest(input=first + "\n", output=second + "\n")
    body = _after_thinking(text)
    for found in reversed(list(re.finditer(r"\{", body))):
        if (test := _decode_test(body, found.start())) is not None:
            return test
    return Defect("no_test", 'no {"input": …, "output": …} object')


def _decode_test(text: str, position: int) -> ProgramTest | None:
    try:
        value, _ = _DECODER.raw_decode(text, position)
    except (ValueError, RecursionError):  # no JSON, a number of 5,000 digits, endless brackets
        return None
    if not isinstance(value, dict) or set(value) != {"input", "output"}:
        return None
    if not all(isinstance(part, str) for part in value.values()) or not value["output"].strip():
        return None
    return ProgramTest(input=value["input"], output=value["output"])
