"""Sample long chain-of-thought solutions and keep the well-formed ones."""

from __future__ import annotations

from functools import partial

from pipeline.hashing import content_hash, derive_seed
from pipeline.manifest import Version
from pipeline.records import JudgedProblem, Message, Problem, Rejected, Solution
from pipeline.settings.base import determining
from pipeline.settings.synthesis import Form
from pipeline.stages import Batch, BatchResult, run_stage, split_batches
from pipeline.student import user_turn
from promptcot.cards import render_card
from promptcot.engines.protocol import Answer, Request
from promptcot.forms import solution_form
from promptcot.parsing import Defect, Reply, parse_solution
from promptcot.prompting import one_line, render_prompt
from promptcot.run_context import SynthesisRun, count_tokens, input_of
from promptcot.statement_checks import find_loop
from promptcot.verification.code_tests import extract_python
from promptcot.verification.math_answers import extract_boxed

STAGE = "solutions"


def run_solutions(run: SynthesisRun, judged: Version) -> Version:
    """Sample solutions of every judged problem; rows in are problems times samples.

    Raises:
        TooManyRejected: Too few solutions were well-formed.
        TeacherError: The teacher cannot be used.
    """
    settings = run.settings.solutions
    rows = [JudgedProblem.model_validate(row) for row in judged.rows()]
    stage = run.stage(
        STAGE,
        record=Solution,
        settings={"solutions": determining(settings)},
        inputs=[input_of(judged, "judged")],
        teachers=[settings.teacher],
    )
    batches = split_batches(rows, run.settings.batch_size, key=lambda row: str(row.problem.id))
    return run_stage(stage, batches, partial(_solve_batch, run), card=render_card)


def _solve_batch(run: SynthesisRun, batch: Batch) -> BatchResult:
    settings = run.settings.solutions
    form = run.resolve_form(settings.form, settings.teacher)
    teacher = run.teacher(settings.teacher)
    asked: list[tuple[JudgedProblem, str]] = [
        (row, f"{row.problem.id}-{sample}")
        for row in batch.rows
        for sample in range(settings.samples_per_problem)
    ]
    requests = [_ask(run, row.problem, row_id, form) for row, row_id in asked]
    answers = teacher.answer_all(requests, STAGE)
    kept: list[Solution] = []
    rejected: list[Rejected] = []
    for (row, row_id), request, answer in zip(asked, requests, answers, strict=True):
        reply = read_reply(
            row.problem, answer, form, min_thinking_chars=settings.min_thinking_chars
        )
        if isinstance(reply, Defect):
            rejected.append(
                Rejected(row_id=row_id, stage=STAGE, reason=reply.reason, detail=reply.detail)
            )
        else:
            model = teacher.capabilities.model
            kept.append(_solution(row, reply, request=request, answer=answer, model=model))
    return BatchResult(
        num_in=len(asked), rows=kept, rejected=rejected, tokens=count_tokens(answers)
    )


def _ask(run: SynthesisRun, problem: Problem, row_id: str, form: Form) -> Request:
    settings = run.settings.solutions
    if form == "constrained":
        name = f"solution_constrained_{problem.domain}"
        messages = render_prompt(name, statement=one_line(problem.statement))
    else:
        # The student's own prompt: what it is trained on is what the teacher was asked.
        messages = (Message(role="user", content=user_turn(problem.statement, problem.domain)),)
    return Request(
        messages=messages,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=settings.max_tokens,
        seed=derive_seed(run.root_seed, STAGE, row_id),
        constraint=solution_form(problem.domain) if form == "constrained" else None,
    )


def read_reply(
    problem: Problem, answer: Answer, form: Form, *, min_thinking_chars: int
) -> Reply | Defect:
    """Thinking and answer of a reply that is fit to train on.

    Reasons: those of :func:`promptcot.parsing.parse_solution`, and ``thinking_too_short``,
    ``repetitive``, ``no_boxed``, ``no_code_block``.
    """
    reply = parse_solution(answer.text, answer.finish_reason, form)
    if isinstance(reply, Defect):
        return reply
    if len(reply.thinking) < min_thinking_chars:
        return Defect("thinking_too_short", f"{len(reply.thinking)} characters")
    # A long trace may come back to a phrase; a loop shows in its tail.
    if (loop := find_loop(reply.thinking[-2000:], min_distinct=0.5)) is not None:
        return Defect("repetitive", loop)
    if problem.domain == "math" and extract_boxed(reply.answer) is None:
        return Defect("no_boxed", f"the answer holds no \\boxed{{}}: {reply.answer[:80]!r}")
    if problem.domain == "code" and extract_python(reply.answer) is None:
        return Defect("no_code_block", "the answer holds no ```python block")
    return reply


def _solution(
    row: JudgedProblem, reply: Reply, *, request: Request, answer: Answer, model: str
) -> Solution:
    """The record; its id covers the request's seed, so that equal texts stay two samples."""
    content = {
        "problem": row.problem.id,
        "seed": request.seed,
        "thinking": reply.thinking,
        "answer": reply.answer,
    }
    return Solution(
        id=content_hash(content),
        problem=row.problem,
        verdicts=[str(judgement.verdict) for judgement in row.judgements],
        thinking=reply.thinking,
        answer=reply.answer,
        finish_reason=answer.finish_reason,
        teacher=model,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        num_prompt_tokens=answer.num_prompt_tokens,
        num_completion_tokens=answer.num_completion_tokens,
    )
