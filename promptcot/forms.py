r"""Regular expressions that an engine enforces while it generates, for teachers of any size.

Length is bounded by sentences, not characters: with the embedded engine a bound such as
``[^\n]{40,300}`` takes minutes to compile and slows every token, a few repeated groups cost
nothing. A sentence that never ends reaches the token limit and is rejected as truncated.
"""

from __future__ import annotations

from pipeline.records import Domain
from promptcot.engines.protocol import Constraint

_RATING = "(Perfect|Acceptable|Bad)"
_REST = r"[^.?!\n]+"
_SENTENCE = rf"[A-Z]{_REST}\."


def _regex(value: str) -> Constraint:
    return Constraint(kind="regex", value=value)


def problem_form(domain: Domain) -> Constraint:
    """``Rationale: …`` and ``Problem: …``, one paragraph each.

    A maths problem ends with one question, a programming task with what is read and printed.
    """
    rationale = rf"Rationale: {_SENTENCE}( {_SENTENCE})?"
    facts = rf"{_SENTENCE}( {_SENTENCE})?( {_SENTENCE})?"
    if domain == "math":
        ending = rf"(What is|How many|Find) {_REST}\?"
    else:
        ending = rf"Read {_REST}\. Print {_REST}\."
    return _regex(rf"{rationale}\nProblem: {facts} {ending}")


def judge_form(headings: tuple[str, ...]) -> Constraint:
    """One rating a line for each heading."""
    return _regex("\n".join(f"{heading}: {_RATING}" for heading in headings))


def solution_form(domain: Domain) -> Constraint:
    """``Reasoning: …``, then ``Answer: <number>`` (maths) or a fenced program (code)."""
    if domain == "math":
        number = r"-?[0-9]{1,6}(\.[0-9]{1,4}|/[1-9][0-9]{0,3})?"
        return _regex(rf"Reasoning: [A-Z][^\n]+(\n[^\n]+)?(\n[^\n]+)?(\n[^\n]+)?\nAnswer: {number}")
    return _regex(rf"Reasoning: {_SENTENCE}( {_SENTENCE})?\n```python\n([^`\n]+\n)+```")


def test_form() -> Constraint:
    r"""``Input: …`` and ``Output: …`` on one line each; ``\n`` stands for a new line."""
    return _regex(r"Input: [^\n]+\nOutput: [^\n]+")
