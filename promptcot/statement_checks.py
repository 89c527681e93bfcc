"""What a problem statement must not be; each defect has a name and shows what gave it away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pipeline.records import Domain
from pipeline.settings.synthesis import ProblemSettings
from promptcot.parsing import Defect, ProblemText
from promptcot.statement_language import (
    find_foreign,
    find_loop,
    find_repeat,
    share_of,
    shingles,
)
from promptcot.statement_outside import find_chatter, find_injection, find_reference
from promptcot.statement_tasks import (
    find_answer,
    find_no_question,
    find_parts,
    find_proof,
    find_unfinished,
)

_MIN_RATIONALE_CHARS = 20
_MAX_COPIED = 0.5
"""Share of a statement's runs of four words that may be an example's."""


@dataclass(frozen=True, slots=True)
class StatementContext:
    """What a statement is held against."""

    domain: Domain
    settings: ProblemSettings
    examples: Sequence[str]
    """Statements that the prompt showed."""


Check = Callable[[str, StatementContext], str | None]
Finder = Callable[[str, Domain], str | None]


def check_problem(problem: ProblemText, context: StatementContext) -> Defect | None:
    """The first defect of a parsed problem, or none.

    Reasons: those of :func:`check_rationale` and :func:`check_statement`.
    """
    return check_rationale(problem.rationale) or check_statement(problem.statement, context)


def check_rationale(rationale: str) -> Defect | None:
    """The first defect of a rationale alone.

    Reasons: ``too_short``, ``not_english``, ``repetitive``, ``injection``.
    """
    if len(rationale) < _MIN_RATIONALE_CHARS:
        return Defect("too_short", f"rationale of {len(rationale)} characters")
    for reason, detail in (
        ("not_english", find_foreign(rationale)),
        ("repetitive", find_loop(rationale)),
        ("injection", find_injection(rationale, "other")),
    ):
        if detail is not None:
            return Defect(reason, f"rationale: {detail}")
    return None


def check_statement(statement: str, context: StatementContext) -> Defect | None:
    """The first defect of a statement, or none.

    Reasons: ``too_short``, ``too_long``, ``not_english``, ``repetitive``, ``injection``,
    ``addresses_reader``, ``unfinished``, ``not_self_contained``, ``answer_in_statement``,
    ``multi_part``, ``proof_only``, ``asks_nothing``, ``copies_example``.
    """
    for reason, check in CHECKS:
        if (detail := check(statement, context)) is not None:
            return Defect(reason, detail)
    return None


def _find_too_short(text: str, context: StatementContext) -> str | None:
    return f"{len(text)} characters" if len(text) < context.settings.min_statement_chars else None


def _find_too_long(text: str, context: StatementContext) -> str | None:
    return f"{len(text)} characters" if len(text) > context.settings.max_statement_chars else None


def _find_repetition(text: str, context: StatementContext) -> str | None:
    """Notes to the examples of a task in code repeat whole sentences rightly."""
    if (loop := find_loop(text)) is not None:
        return loop
    return find_repeat(text) if context.domain != "code" else None


# The few examples of a bank come in many prompts.
_shingles_of_example = lru_cache(maxsize=64)(shingles)


def _find_copy(text: str, context: StatementContext) -> str | None:
    own = shingles(text) if context.examples else frozenset()
    for example in context.examples:
        if (share := share_of(own, _shingles_of_example(example))) > _MAX_COPIED:
            return f"{share:.0%} of its runs of four words are an example's"
    return None


def _of_text(find: Callable[[str], str | None]) -> Check:
    return lambda text, context: find(text)


def _of_domain(find: Finder) -> Check:
    return lambda text, context: find(text, context.domain)


CHECKS: tuple[tuple[str, Check], ...] = (
    ("too_short", _find_too_short),
    ("too_long", _find_too_long),
    ("not_english", _of_text(find_foreign)),
    ("repetitive", _find_repetition),
    ("injection", _of_domain(find_injection)),
    ("addresses_reader", _of_domain(find_chatter)),
    ("unfinished", _of_domain(find_unfinished)),
    ("not_self_contained", _of_domain(find_reference)),
    ("answer_in_statement", _of_domain(find_answer)),
    ("multi_part", _of_domain(find_parts)),
    ("proof_only", _of_domain(find_proof)),
    ("asks_nothing", _of_domain(find_no_question)),
    ("copies_example", _find_copy),
)
"""Reasons and what finds them, in the order in which a statement is looked at."""
