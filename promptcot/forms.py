"""Regular expressions that an engine enforces while it generates, for teachers of any size.

Bounds follow from the token limit: a form that cannot end in time would only produce cut replies.
"""

from __future__ import annotations

from pipeline.records import Domain
from promptcot.engines.protocol import Constraint

_CHARS_PER_TOKEN = 3
"""Low on purpose (English has four to five), so that a form at its bounds still ends in time."""

_RATING = "(Perfect|Acceptable|Bad)"


def _regex(value: str) -> Constraint:
    return Constraint(kind="regex", value=value)


def problem_form(max_tokens: int) -> Constraint:
    """``Rationale: …`` and ``Problem: …``, one paragraph each, two thirds for the problem."""
    chars = max_tokens * _CHARS_PER_TOKEN
    return _regex(
        rf"Rationale: [A-Z][^\n]{{30,{chars // 3}}}\.\n"
        rf"Problem: [A-Z][^\n]{{40,{chars * 2 // 3}}}[?.]"
    )


def judge_form(headings: tuple[str, ...]) -> Constraint:
    """One rating a line for each heading."""
    return _regex("\n".join(f"{heading}: {_RATING}" for heading in headings))


def solution_form(domain: Domain, max_tokens: int) -> Constraint:
    """``Reasoning: …``, then ``Answer: <number>`` (maths) or a fenced program (code)."""
    chars = max_tokens * _CHARS_PER_TOKEN
    if domain == "math":
        number = r"-?[0-9]{1,6}(\.[0-9]{1,4}|/[1-9][0-9]{0,3})?"
        return _regex(rf"Reasoning: [A-Z][^\n]{{30,{chars * 3 // 4}}}\.\nAnswer: {number}")
    return _regex(
        rf"Reasoning: [A-Z][^\n]{{30,{chars // 3}}}\.\n```python\n([^`\n]{{0,70}}\n){{2,24}}```"
    )


def test_form() -> Constraint:
    r"""``Input: …`` and ``Output: …`` on one line each; ``\n`` stands for a new line."""
    return _regex(r"Input: [^\n]{1,80}\nOutput: [^\n]{1,60}")
