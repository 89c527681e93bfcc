"""Ask a teacher how a given problem could have been designed, and read what it says.

PromptCoT wants two things of a rationale: who follows it arrives at the problem (it makes
``p(x | z, c)`` large), and it can be thought of from concepts and level alone (``p(z | c)``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.hashing import content_hash
from pipeline.records import Rejected, Seed, Triple
from pipeline.settings.synthesis import Form, ProblemSettings
from promptcot.engines.protocol import Answer, Request
from promptcot.forms import rationale_form
from promptcot.parsing import Defect, parse_rationale
from promptcot.prompting import numbered, one_line, render_prompt
from promptcot.statement_checks import StatementContext, check_rationale, check_statement
from promptcot.statement_language import share_of, shingles
from promptcot.triple_text import (
    DOMAIN_NAMES,
    holds_marker,
    rationale_part,
    triple_completion,
    triple_prompt,
)

_MAX_QUOTED = 0.6
"""Share of a problem's runs of four words that its rationale may hold: more is a copy."""
_MIN_QUOTED = 12
"""Runs of four words below which a problem is too short to tell a quotation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How rationales are drawn."""

    form: Form
    temperature: float
    top_p: float
    max_tokens: int


def seed_id(seed: Seed) -> str:
    """What names a seed in batches, among the rejected and in its triple."""
    return f"{seed.source}:{seed.source_id}" if seed.source_id else problem_key(seed)


def problem_key(seed: Seed) -> str:
    """What is equal for two seeds that ask for the same triple."""
    return content_hash([seed.domain, seed.level, seed.concepts, seed.problem])


def refuse_seed(seed: Seed, stage: str, *, settings: ProblemSettings | None) -> Rejected | None:
    """Why no triple can be made from a seed, or none.

    Args:
        seed: The seed.
        stage: Names the stage in what is returned.
        settings: Limits of a statement; without them any problem is taken.
    """
    if not seed.problem:
        defect: Defect | None = Defect("no_problem", "the seed holds concepts only")
    elif holds_marker(seed.problem) or holds_marker(seed.rationale or ""):
        defect = Defect("holds_marker", "its text holds a mark of the triple's form")
    elif settings is None:
        defect = None
    else:
        context = StatementContext(domain=seed.domain, settings=settings, examples=())
        defect = check_statement(seed.problem, context)
    if defect is None:
        return None
    return Rejected(row_id=seed_id(seed), stage=stage, reason=defect.reason, detail=defect.detail)


def ask_rationale(
    seed: Seed, examples: Sequence[Seed], sampling: Sampling, *, draw_seed: int
) -> Request:
    """The request for a rationale of a seed's problem; the problem stands last."""
    if sampling.form == "constrained":
        messages = render_prompt(
            "rationale_constrained",
            examples="\n\n".join(map(_show_plain, examples)),
            concepts=", ".join(seed.concepts),
            problem=one_line(seed.problem or ""),
        )
    else:
        messages = render_prompt(
            "rationale_free",
            domain=DOMAIN_NAMES[seed.domain],
            examples="\n\n".join(map(_show_marked, examples)),
            concepts=numbered(seed.concepts),
            level=seed.level,
            problem=seed.problem or "",
        )
    return Request(
        messages=messages,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=draw_seed,
        constraint=rationale_form() if sampling.form == "constrained" else None,
    )


def _show_plain(seed: Seed) -> str:
    return (
        f"Ideas: {', '.join(seed.concepts)}\n\nProblem: {one_line(seed.problem or '')}\n\n"
        f"Rationale: {one_line(seed.rationale or '')}"
    )


def _show_marked(seed: Seed) -> str:
    return (
        f"Example\nFoundational concepts:\n{numbered(seed.concepts)}\n\n"
        f"Difficulty level: {seed.level}\n\nProblem:\n{seed.problem}\n\n"
        f"{rationale_part(seed.rationale or '')}"
    )


def read_rationale(seed: Seed, answer: Answer, form: Form) -> str | Defect:
    """The rationale of a reply, or why it is none.

    Reasons: those of :func:`parse_rationale` and :func:`check_rationale`, ``holds_marker`` and
    ``quotes_problem``: a rationale that contains its problem leads nowhere else.
    """
    parsed = parse_rationale(answer.text, answer.finish_reason, form)
    if isinstance(parsed, Defect):
        return Defect(parsed.reason, answer.detail) if answer.detail else parsed
    if holds_marker(parsed):
        return Defect("holds_marker", "it holds a mark of the triple's form")
    if (defect := check_rationale(parsed)) is not None:
        return defect
    own = shingles(seed.problem or "")
    if len(own) >= _MIN_QUOTED and (share := share_of(own, shingles(parsed))) > _MAX_QUOTED:
        return Defect("quotes_problem", f"it holds {share:.0%} of the problem's words in order")
    return parsed


def make_triple(
    seed: Seed, rationale: str, *, teacher: str, request: Request | None = None
) -> Triple:
    """A triple as a generator is trained on it."""
    problem = seed.problem or ""
    return Triple(
        prompt=triple_prompt(seed.concepts, seed.level, seed.domain),
        completion=triple_completion(rationale, problem),
        concepts=seed.concepts,
        level=seed.level,
        domain=seed.domain,
        rationale=rationale,
        problem=problem,
        source=seed.source,
        source_id=seed.source_id,
        licence=seed.licence,
        teacher=teacher,
        prompt_hash=request.prompt_hash if request else "",
        seed=request.seed if request else 0,
    )


def seed_of(triple: Triple) -> Seed:
    """A triple as a seed with a rationale: what few-shot examples are made from."""
    return Seed(
        concepts=triple.concepts,
        domain=triple.domain,
        level=triple.level,
        problem=triple.problem,
        rationale=triple.rationale,
        source=triple.source,
        source_id=triple.source_id,
        licence=triple.licence,
    )
