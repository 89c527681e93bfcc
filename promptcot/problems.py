"""From a combination of concepts to a rationale and a problem (PromptCoT 1.0, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pipeline.hashing import content_hash, derive_seed, file_sha256
from pipeline.manifest import InputRef, Version
from pipeline.records import ConceptCombination, Domain, Problem, Rejected, Seed
from pipeline.settings.base import determining
from pipeline.settings.synthesis import Form
from pipeline.stages import Batch, BatchResult, run_stage, split_batches
from promptcot.bank import Bank, build_bank, load_bank, nearest_seeds
from promptcot.cards import render_card
from promptcot.engines.protocol import Answer, Request
from promptcot.forms import problem_form
from promptcot.parsing import Defect, parse_problem
from promptcot.prompting import numbered, one_line, render_prompt
from promptcot.run_context import SynthesisRun, count_tokens, input_of
from promptcot.statement_checks import StatementContext, check_problem

STAGE = "problems"
_DOMAIN_NAMES: dict[Domain, str] = {"math": "mathematics", "code": "programming", "other": "other"}
_DOMAIN_RULES: dict[Domain, str] = {
    "math": "ask for a value, not for a proof,",
    "code": "say what the program reads from standard input and what it prints,",
    "other": "be clear,",
}


def describe_domain(domain: Domain) -> str:
    """A domain's name inside a prompt."""
    return _DOMAIN_NAMES[domain]


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
    """
    settings = run.settings.problems
    rows = [ConceptCombination.model_validate(row) for row in combinations.rows()]
    bank_path = run.recipe.file(run.settings.bank)
    stage = run.stage(
        STAGE,
        record=Problem,
        settings={"problems": determining(settings)},
        inputs=[
            input_of(combinations, "combinations"),
            InputRef(name="bank", version=file_sha256(bank_path)),
        ],
        teachers=[settings.teacher],
    )
    seeds = load_bank(bank_path)
    banks = {domain: build_bank(seeds, domain) for domain in {row.domain for row in rows}}
    batches = split_batches(rows, run.settings.batch_size, key=lambda row: row.id)
    return run_stage(stage, batches, partial(_make_batch, run, banks), card=render_card)


def _make_batch(run: SynthesisRun, banks: dict[Domain, Bank], batch: Batch) -> BatchResult:
    """Ask for every combination; ask again, up to the number of attempts, where one was refused."""
    settings = run.settings.problems
    form = run.resolve_form(settings.form, settings.teacher)
    teacher = run.teacher(settings.teacher)
    accepted: dict[str, Problem] = {}
    defects: dict[str, Defect] = {}
    answers: list[Answer] = []
    pending: list[ConceptCombination] = list(batch.rows)
    for attempt in range(settings.attempts):
        asked = [_ask(run, banks[row.domain], row, form=form, attempt=attempt) for row in pending]
        replies = teacher.answer_all([entry.request for entry in asked], STAGE)
        answers += replies
        for entry, reply in zip(asked, replies, strict=True):
            result = _read(run, entry, reply, form=form, teacher=teacher.capabilities.model)
            if isinstance(result, Defect):
                defects[entry.combination.id] = result
            else:
                accepted[entry.combination.id] = result
        pending = [row for row in pending if row.id not in accepted]
        if not pending:
            break
    return BatchResult(
        num_in=len(batch.rows),
        rows=[accepted[row.id] for row in batch.rows if row.id in accepted],
        rejected=[
            Rejected(row_id=row.id, stage=STAGE, reason=d.reason, detail=d.detail)
            for row in pending
            for d in [defects[row.id]]
        ],
        tokens=count_tokens(answers),
    )


def _ask(
    run: SynthesisRun, bank: Bank, row: ConceptCombination, *, form: Form, attempt: int
) -> _Asked:
    settings = run.settings.problems
    order = [derive_seed(run.root_seed, "examples", row.id, str(i)) for i in range(len(bank.seeds))]
    examples = tuple(nearest_seeds(bank, row.concepts, settings.num_examples, tie_break=order))
    if form == "constrained":
        messages = render_prompt(
            f"problem_constrained_{row.domain}",
            examples=_plain_examples(examples),
            concepts=", ".join(row.concepts),
        )
    else:
        messages = render_prompt(
            "problem_free",
            domain=describe_domain(row.domain),
            domain_rule=_DOMAIN_RULES[row.domain],
            examples=_marked_examples(examples),
            concepts=numbered(row.concepts),
            level=row.level,
        )
    request = Request(
        messages=messages,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=settings.max_tokens,
        seed=derive_seed(run.root_seed, STAGE, row.id, str(attempt)),
        constraint=problem_form(row.domain) if form == "constrained" else None,
    )
    return _Asked(row, examples, request)


def _plain_examples(seeds: tuple[Seed, ...]) -> str:
    return "\n\n".join(
        f"Example\nRationale: {one_line(seed.rationale or '')}\n"
        f"Problem: {one_line(seed.problem or '')}"
        for seed in seeds
    )


def _marked_examples(seeds: tuple[Seed, ...]) -> str:
    return "\n\n".join(
        f"Example ({seed.level}; {', '.join(seed.concepts)}):\n"
        f"<!-- BEGIN RATIONALE -->\n{seed.rationale}\n<!-- END RATIONALE -->\n"
        f"<!-- BEGIN PROBLEM -->\n{seed.problem}\n<!-- END PROBLEM -->"
        for seed in seeds
    )


def _read(
    run: SynthesisRun, asked: _Asked, answer: Answer, *, form: Form, teacher: str
) -> Problem | Defect:
    row = asked.combination
    parsed = parse_problem(answer.text, answer.finish_reason, form)
    if isinstance(parsed, Defect):
        return parsed
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
