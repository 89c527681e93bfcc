"""What a problem statement must not be; each defect has a name and shows what gave it away."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.records import Domain
from pipeline.settings.synthesis import ProblemSettings
from promptcot.parsing import Defect, ProblemText

_MIN_RATIONALE_CHARS = 20

_ELSEWHERE = re.compile(
    r"\b(?:figure|diagram|picture|image|graph|table|chart|drawing)s?\s+"
    r"(?:below|above|shown|provided|attached)\b"
    r"|\b(?:shown|depicted|illustrated|pictured|given)\s+(?:below|above|in\s+the\s+"
    r"(?:figure|diagram|picture|image|drawing))\b"
    r"|\b(?:in|see|from|to)\s+the\s+(?:figure|diagram|picture|image|drawing)\b"
    r"|\bsee\s+(?:figure|fig\.)|\[asy\]|!\["
    r"|\b(?:previous|preceding|last|above)\s+"
    r"(?:problem|part|exercise|question|example|answer|task)\b",
    re.IGNORECASE,
)
_PROOF = re.compile(
    r"\b(?:prove|disprove|show that|demonstrate that|justify|give a proof)\b", re.IGNORECASE
)
_ASKS_VALUE = re.compile(
    r"\b(?:find|compute|determine|calculate|evaluate|solve|simplify|express|how many|how much"
    r"|what (?:is|are|was|were))\b",
    re.IGNORECASE,
)
_ASKS_PROGRAM = re.compile(
    r"\b(?:write|print|output|return|read|implement|compute|find|determine|count|calculate|sort"
    r"|simulate|check|decide)\b",
    re.IGNORECASE,
)
_PARTS = (
    re.compile(r"\(a\).*\(b\)", re.DOTALL | re.IGNORECASE),
    re.compile(r"\(i\).*\(ii\)", re.DOTALL | re.IGNORECASE),
    re.compile(r"^\s*a[).].*^\s*b[).]", re.DOTALL | re.MULTILINE | re.IGNORECASE),
    re.compile(r"\bpart\s+(?:a|1|i)\b.*\bpart\s+(?:b|2|ii)\b", re.DOTALL | re.IGNORECASE),
)
_ANSWER = re.compile(
    r"\\boxed|^\s*(?:answer|solution|explanation)\s*:|\b(?:the|final|correct) answer is\b"
    r"|\bsolution\s*:|\banswer\s*:",
    re.MULTILINE | re.IGNORECASE,
)
_FOREIGN_SCRIPT = re.compile(r"[^\W\d_\u0000-\u024f\u0370-\u03ff\u1e00-\u1eff\u2100-\u214f]")
_COMMON_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can each for from given has have if in is it its let more of on "
        "one or read print such than that the then there to two what which with find how many",
    )
)


@dataclass(frozen=True, slots=True)
class StatementContext:
    """What a statement is held against."""

    domain: Domain
    settings: ProblemSettings
    examples: Sequence[str]
    """Statements that the prompt showed."""


Check = Callable[[str, StatementContext], str | None]


def check_problem(problem: ProblemText, context: StatementContext) -> Defect | None:
    """The first defect of a parsed problem, or none.

    Reasons: ``too_short``, ``too_long``, ``not_english``, ``repetitive``, ``not_self_contained``,
    ``answer_in_statement``, ``multi_part``, ``proof_only``, ``asks_nothing``, ``copies_example``.
    """
    if len(problem.rationale) < _MIN_RATIONALE_CHARS:
        return Defect("too_short", f"rationale of {len(problem.rationale)} characters")
    if loop := _find_repetition(problem.rationale, context):
        return Defect("repetitive", f"rationale: {loop}")
    for reason, check in _CHECKS:
        if (detail := check(problem.statement, context)) is not None:
            return Defect(reason, detail)
    return None


def _find_too_short(text: str, context: StatementContext) -> str | None:
    return f"{len(text)} characters" if len(text) < context.settings.min_statement_chars else None


def _find_too_long(text: str, context: StatementContext) -> str | None:
    return f"{len(text)} characters" if len(text) > context.settings.max_statement_chars else None


def _find_foreign(text: str, context: StatementContext) -> str | None:
    foreign = _FOREIGN_SCRIPT.findall(text)
    if len(foreign) > 0.1 * max(1, len(text)):
        return "letters of another script: " + "".join(foreign[:12])
    words = re.findall(r"[a-zà-ÿ]+", text.lower())
    known = sum(1 for word in words if word in _COMMON_WORDS)
    if len(words) >= 8 and known < 0.1 * len(words):
        return f"{known} of {len(words)} words are common English ones"
    return None


def find_loop(text: str, *, min_words: int = 24, min_distinct: float = 0.6) -> str | None:
    """The sign of a text that runs in a circle, or none.

    A sentence said three times, one word five times in a row, or few distinct word triples.
    """
    sentences = Counter(
        s.strip().lower() for s in re.split(r"[.?!\n]+", text) if len(s.split()) >= 4
    )
    if sentences and (most := sentences.most_common(1)[0])[1] >= 3:
        return f"said {most[1]} times: {most[0][:60]}"
    if (run := re.search(r"\b(\w+)(?:\W+\1\b){4,}", text, re.IGNORECASE)) is not None:
        return f"five times in a row: {run[1]}"
    words = text.lower().split()
    if len(words) < min_words:
        return None
    triples = list(zip(words, words[1:], words[2:], strict=False))
    share = len(set(triples)) / len(triples)
    return f"only {share:.0%} of its word triples are distinct" if share < min_distinct else None


def _find_repetition(text: str, context: StatementContext) -> str | None:
    return find_loop(text)


def _find_reference(text: str, context: StatementContext) -> str | None:
    match = _ELSEWHERE.search(text)
    return f"refers to something not given: {match[0]}" if match else None


def _find_answer(text: str, context: StatementContext) -> str | None:
    match = _ANSWER.search(text)
    return f"holds: {match[0].strip()}" if match else None


def _find_parts(text: str, context: StatementContext) -> str | None:
    if any(pattern.search(text) for pattern in _PARTS):
        return "lettered parts"
    if context.domain == "math" and (count := len(re.findall(r"\?(?=\s|$)", text))) > 1:
        return f"{count} questions"
    return None


def _find_proof(text: str, context: StatementContext) -> str | None:
    if context.domain != "math" or (match := _PROOF.search(text)) is None:
        return None
    others = [s for s in re.split(r"(?<=[.?!])\s+", text) if not _PROOF.search(s)]
    asks = any("?" in s or _ASKS_VALUE.search(s) for s in others)
    return None if asks else f"wants a proof only: {match[0]}"


def _find_no_question(text: str, context: StatementContext) -> str | None:
    if context.domain == "math":
        asks = "?" in text or _ASKS_VALUE.search(text) is not None
    else:
        asks = "?" in text or _ASKS_PROGRAM.search(text) is not None
    return None if asks else "no question and no instruction"


def _find_copy(text: str, context: StatementContext) -> str | None:
    own = _shingles(text)
    for example in context.examples:
        shared = len(own & _shingles(example))
        if own and shared / len(own) > 0.5:
            return f"{shared} of {len(own)} word runs are the example's"
    return None


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return frozenset(zip(words, words[1:], words[2:], words[3:], strict=False))


_CHECKS: tuple[tuple[str, Check], ...] = (
    ("too_short", _find_too_short),
    ("too_long", _find_too_long),
    ("not_english", _find_foreign),
    ("repetitive", _find_repetition),
    ("not_self_contained", _find_reference),
    ("answer_in_statement", _find_answer),
    ("multi_part", _find_parts),
    ("proof_only", _find_proof),
    ("asks_nothing", _find_no_question),
    ("copies_example", _find_copy),
)
