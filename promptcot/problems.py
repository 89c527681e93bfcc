"""From a combination of concepts to a rationale and a problem (PromptCoT 1.0, section 3).

Two modes: ``prompted`` asks an instruct model with few-shot seed triples; ``generator`` asks a
model that was fine-tuned on triples with exactly the prompt of its training set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from pipeline.hashing import content_hash, derive_seed
from pipeline.manifest import Version
from pipeline.records import ConceptCombination, Domain, Message, Problem, Seed
from pipeline.settings.base import determining
from pipeline.settings.synthesis import Form
from pipeline.stages import Batch, BatchResult, run_stage
from promptcot.bank import open_bank
from promptcot.cards import render_card
from promptcot.engines.protocol import Answer, Request
from promptcot.few_shot import ExampleIndex
from promptcot.forms import problem_form
from promptcot.parsing import Defect, parse_problem
from promptcot.prompting import numbered, one_line, render_prompt
from promptcot.run_context import SynthesisRun, count_tokens, input_of, refuse_reply
from promptcot.statement_checks import StatementContext, check_problem
from promptcot.triple_text import DOMAIN_NAMES, problem_part, rationale_part, triple_prompt

STAGE = "problems"
_DOMAIN_RULES: dict[Domain, str] = {
    "math": "ask for a value, not for a proof,",
    "code": "say what the program reads from standard input and what it prints,",
    "other": "be clear,",
}

Indexes = Mapping[Domain, ExampleIndex]


def describe_domain(domain: Domain) -> str:
    """A domain's name inside a prompt."""
    return DOMAIN_NAMES[domain]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A combination with what its prompt showed."""

    combination: ConceptCombination
    examples: tuple[Seed, ...]
    request: Request


def run_problems(run: SynthesisRun, combinations: Version) -> Version:
    """Ask for a rationale and problem per combination; keep those without a named defect.

    Raises:
        TooManyRejected: Too few problems were acceptable.
        TeacherError: The teacher cannot be used.
        SourceError: The bank is missing or malformed (``prompted`` only).
    """
    settings = run.settings.problems
    inputs = [input_of(combinations, "combinations")]
    indexes: dict[Domain, ExampleIndex] = {}
    if settings.mode == "prompted":
        # A generator saw its seeds in training: its problems do not change with today's bank.
        bank = open_bank(run)
        inputs.append(bank.input)
        indexes = {domain: ExampleIndex(bank.seeds(domain)) for domain in run.settings.domains}
    stage = run.stage(
        STAGE,
        record=Problem,
        settings={"problems": determining(settings)},
        inputs=inputs,
        teachers=[settings.teacher],
    )
    batches = run.stream(combinations, ConceptCombination, key=lambda row: row.id)
    return run_stage(stage, batches, partial(_make_batch, run, indexes), card=render_card)


def _make_batch(run: SynthesisRun, indexes: Indexes, batch: Batch) -> BatchResult:
    """Ask for every combination; ask again, up to the number of attempts, where one was refused."""
    settings = run.settings.problems
    is_prompted = settings.mode == "prompted"
    form = run.resolve_form(settings.form, settings.teacher) if is_prompted else "free"
    teacher = run.teacher(settings.teacher)
    accepted: dict[str, Problem] = {}
    defects: dict[str, tuple[Defect, Answer]] = {}
    answers: list[Answer] = []
    pending: list[ConceptCombination] = list(batch.rows)
    for attempt in range(settings.attempts):
        asked = [
            _ask(run, indexes, row, form=form, attempt=attempt)
            if is_prompted
            else _ask_generator(run, row, attempt)
            for row in pending
        ]
        replies = teacher.answer_all([entry.request for entry in asked], STAGE)
        answers += replies
        for entry, reply in zip(asked, replies, strict=True):
            result = _read(run, entry, reply, form=form, teacher=teacher.capabilities.model)
            if isinstance(result, Defect):
                defects[entry.combination.id] = (result, reply)
            else:
                accepted[entry.combination.id] = result
        pending = [row for row in pending if row.id not in accepted]
        if not pending:
            break
    return BatchResult(
        num_in=len(batch.rows),
        rows=[accepted[row.id] for row in batch.rows if row.id in accepted],
        rejected=[refuse_reply(row.id, STAGE, *defects[row.id]) for row in pending],
        tokens=count_tokens(answers),
    )


def _ask(
    run: SynthesisRun, indexes: Indexes, row: ConceptCombination, *, form: Form, attempt: int
) -> _Asked:
    """Few-shot: what never changes comes first and the combination last, for prefix caches."""
    settings = run.settings.problems
    examples: tuple[Seed, ...] = ()
    if (index := indexes.get(row.domain)) is not None:
        seed = derive_seed(run.root_seed, "examples", row.id)
        examples = index.nearest(row.concepts, settings.num_examples, seed=seed)
    if form == "constrained":
        messages = render_prompt(
            f"problem_constrained_{row.domain}",
            examples="\n\n".join(map(_show_plain, examples)),
            # Names of real banks hold commas.
            concepts="; ".join(row.concepts),
        )
    else:
        messages = render_prompt(
            "problem_free",
            domain=describe_domain(row.domain),
            domain_rule=_DOMAIN_RULES[row.domain],
            examples="\n\n".join(map(_show_marked, examples)),
            concepts=numbered(row.concepts),
            level=row.level,
        )
    constraint = problem_form(row.domain) if form == "constrained" else None
    request = _request(run, messages, row, attempt=attempt)
    return _Asked(row, examples, replace(request, constraint=constraint))


def _ask_generator(run: SynthesisRun, row: ConceptCombination, attempt: int) -> _Asked:
    prompt = triple_prompt(row.concepts, row.level, row.domain)
    request = _request(run, (Message(role="user", content=prompt),), row, attempt=attempt)
    return _Asked(row, (), replace(request, template="none"))


def _request(
    run: SynthesisRun, messages: tuple[Message, ...], row: ConceptCombination, *, attempt: int
) -> Request:
    settings = run.settings.problems
    return Request(
        messages=messages,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=settings.max_tokens,
        seed=derive_seed(run.root_seed, STAGE, row.id, str(attempt)),
    )


def _show_plain(seed: Seed) -> str:
    lines = ["Example"]
    if seed.rationale:
        lines.append(f"Rationale: {one_line(seed.rationale)}")
    return "\n".join([*lines, f"Problem: {one_line(seed.problem or '')}"])


def _show_marked(seed: Seed) -> str:
    """A seed in the form of a reply; one without a rationale says that it is only a part."""
    note = "" if seed.rationale else ", the problem alone"
    rationale = rationale_part(seed.rationale) if seed.rationale else ""
    return (
        f"Example ({seed.level}; {', '.join(seed.concepts)}{note}):\n"
        f"{rationale}{problem_part(seed.problem or '')}"
    )


def _read(
    run: SynthesisRun, asked: _Asked, answer: Answer, *, form: Form, teacher: str
) -> Problem | Defect:
    row = asked.combination
    parsed = parse_problem(answer.text, answer.finish_reason, form)
    if isinstance(parsed, Defect):
        # An engine says why it has no answer; that is worth more than that it has none.
        return Defect(parsed.reason, answer.detail) if answer.detail else parsed
    context = StatementContext(
        domain=row.domain,
        settings=run.settings.problems,
        examples=[seed.problem for seed in asked.examples if seed.problem],
    )
    if (defect := check_problem(parsed, context)) is not None:
        return defect
    content = {
        "combination": row.id,
        "rationale": parsed.rationale,
        "statement": parsed.statement,
    }
    return Problem(
        id=content_hash(content),
        combination_id=row.id,
        concepts=row.concepts,
        level=row.level,
        domain=row.domain,
        rationale=parsed.rationale,
        statement=parsed.statement,
        teacher=teacher,
        prompt_hash=asked.request.prompt_hash,
        seed=asked.request.seed,
    )
