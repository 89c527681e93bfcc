"""The domain of a row whose source does not say it, from what its texts hold.

A boxed answer means maths and a fenced program means code. Both beat the words of the question,
because a word problem may speak of programs and a programming task of triangles. Where the answer
holds neither, weighted signs in the question are added up: code asks for input, output, functions
and names languages; maths has formulas and asks for a value.
"""

from __future__ import annotations

import re

from pipeline.domain_names import DOMAIN_SPELLINGS
from pipeline.records import Domain

DOMAIN_NAMES: dict[str, Domain] = {
    **DOMAIN_SPELLINGS,
    "science": "other",
    "biology": "other",
    "physics": "other",
    "chemistry": "other",
    "puzzle": "other",
}
"""Usual names of domains in sources."""

_QUESTION_CHARS = 4000
"""Longer questions show what they are by their beginning."""
_FENCED_PROGRAM = re.compile(r"```[a-zA-Z+#]")
_FLAGS = re.IGNORECASE

_CONTEST = re.compile(
    r"\b(?:standard (?:input|output)|std(?:in|out)|(?:sample|example) (?:input|output)|"
    r"(?:input|output) format|time limit|memory limit|test cases?)\b|"
    r"^\W*(?:input|output|constraints|examples?)\W*$|"
    r"\b(?:first|second|next|only|last|each|single) (?:\w+ ){0,3}?lines? (?:\w+ ){0,4}?"
    r"(?:contain|consist|describe|give|has|have|will)|"
    r"\b(?:print|output) (?:a|an|one|the|two|in|on|yes|no|\W?-1|\"|'|`)|"
    r"^\s*def \w+\(|^class \w+[:(]|^\s*#include",
    re.IGNORECASE | re.MULTILINE,
)
"""How programming contests and function stubs state a task; no maths problem speaks so."""

# (weight, pattern): how much one of these speaks for the domain; counted once each.
_CODE_SIGNS = [
    (3, r"```|^\s*(?:def|class|import|from|public|#include|function|SELECT)\b.*"),
    (3, r"\b(?:std(?:in|out)|standard (?:input|output)|test cases?|time limit|memory limit)\b"),
    (
        3,
        r"\b(?:python|javascript|java|typescript|c\+\+|sql|html|css|php|ruby|rust|golang|bash|"
        r"django|react|kotlin|swift|regex|json|api|numpy|pandas)\b|\bC#",
    ),
    (2, r"\b(?:array|string|linked list|binary tree|subarray|substring|subsequence)s?\b"),
    (2, r"\b(?:code|program|script|algorithm|compile|debug|refactor|implement)(?:s|ing|ed)?\b"),
    (1, r"\b(?:function|method|class|object|variable|loop|database|server|parameter)s?\b"),
    (1, r"\b(?:return|print)s?\b|\b[a-z]+_[a-z]+\b|\b\w+\(\w*\)|\b[a-z]+[A-Z]\w+\("),
    (1, r"\bquer(?:y|ies)\b"),
]
_MATH_SIGNS = [
    (3, r"\\(?:frac|sqrt|sum|angle|boxed|cdot|overline|triangle|begin\{|equiv|binom|pi)\b"),
    (2, r"\$[^$]{1,200}\$|\\\(|\\\["),
    (2, r"\b(?:prove|compute|evaluate|simplify|factor|expand)\b"),
    (
        2,
        r"\bfind (?:all|the (?:value|sum|number|smallest|largest|greatest|least|area|minimum|"
        r"maximum|remainder|product|length|probability|ratio))",
    ),
    (2, r"\bhow (?:many|much|far|long|old)\b"),
    (
        2,
        r"\bwhat (?:is|are|was) the (?:value|sum|product|remainder|area|probability|number|"
        r"smallest|largest|greatest|least|ratio|perimeter|length|average|total|difference)",
    ),
    (
        2,
        r"\b(?:triangle|polynomial|integers?|real numbers?|equation|perimeter|probability|"
        r"remainder|circle|radius|prime|divisible|perpendicular|quadratic|geometric|arithmetic|"
        r"derivative|integral|matrix|inequality|percent(?:age)?)\b",
    ),
    (
        2,
        r"\b(?:calculate|determine|solve|find|express|how|"
        r"what (?:fraction|percent|time|value|is))\b",
    ),
    (
        1,
        r"\b(?:given that|suppose|let|such that|satisf\w+|surface|volume|angle|sequence|digits?)\b",
    ),
    (1, r"\d\s*[-+*/=<>^×÷]\s*\d|\d+%|\bx\s*[=+^]|\$\s?\d|[∠°²√π≤≥∑]"),
    (
        1,
        r"\b(?:each|total|twice|times|half|cost|price|per|more than|less than|average|speed|"
        r"rate)\b",
    ),
    (1, r"\d\D*\d\D*\d"),
]
_COMPILED: dict[Domain, list[tuple[int, re.Pattern[str]]]] = {
    "code": [(weight, re.compile(text, _FLAGS | re.MULTILINE)) for weight, text in _CODE_SIGNS],
    "math": [(weight, re.compile(text, _FLAGS)) for weight, text in _MATH_SIGNS],
}
_LEAST = 3
"""Weaker signs than this make a question of neither domain."""


def infer_domain(question: str, answer: str = "") -> Domain:
    """Domain of a row by what its texts hold.

    Args:
        question: The problem.
        answer: What follows the reasoning; empty if unknown.
    """
    if "\\boxed" in answer:
        return "math"
    if "```" in answer and _FENCED_PROGRAM.search(answer):
        return "code"
    if "\\boxed" in question:
        return "math"
    text = question[:_QUESTION_CHARS]
    if _CONTEST.search(text):
        return "code"
    code = sum(weight for weight, pattern in _COMPILED["code"] if pattern.search(text))
    maths, enough = 0, max(code, _LEAST)
    for weight, pattern in _COMPILED["math"]:
        if pattern.search(text):
            maths += weight
            if maths >= enough:
                return "math"
    return "code" if code >= _LEAST else "other"


def read_domain(label: str | None) -> Domain | None:
    """The domain that a source's own word means, or ``None`` if the word is not known."""
    return DOMAIN_NAMES.get((label or "").strip().lower())
