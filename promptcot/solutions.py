"""Sample long chain-of-thought solutions and keep the well-formed ones.

A reply is asked for once. What is cut off, malformed or missing is rejected under its own reason
and never asked again: asking until a form fits favours problems that are easy to answer briefly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline import console
from pipeline.hashing import content_hash, derive_seed
from pipeline.manifest import Version
from pipeline.records import JudgedProblem, Message, Problem, Rejected, Solution
from pipeline.settings.base import determining
from pipeline.settings.synthesis import Form
from pipeline.stages import Batch, BatchResult, run_stage
from pipeline.student import THINK_CLOSE, user_turn
from promptcot.cards import render_card
from promptcot.engines.protocol import Answer, Request
from promptcot.forms import solution_form
from promptcot.parsing import Defect, Reply, parse_solution
from promptcot.prompting import one_line, render_prompt
from promptcot.recommended import Sampling, choose_sampling
from promptcot.run_context import SynthesisRun, count_tokens, input_of, refuse_reply
from promptcot.statement_language import find_loop
from promptcot.verification.code_tests import extract_python
from promptcot.verification.math_boxes import extract_boxed

STAGE = "solutions"
_SAMPLING = ("sampling", "temperature", "top_p", "top_k", "min_p")
_TAIL_CHARS = 2000
"""A long trace may come back to a phrase; a loop shows in its tail."""
_WITHOUT_STOPS = str.maketrans("", "", ".,;?!")


@dataclass(frozen=True, slots=True)
class _Ask:
    """One sample that is asked for."""

    row: JudgedProblem
    row_id: str
    request: Request
    prompt_hash: str


def run_solutions(run: SynthesisRun, judged: Version) -> Version:
    """Sample solutions of every judged problem; rows in are problems times samples.

    Raises:
        ConfigError: The recommended sampling is wanted for a model of which none is known.
        TooManyRejected: Too few solutions were well-formed.
        TeacherError: The teacher cannot be used.
    """
    settings = run.settings.solutions
    sampling = sampling_of(run)
    if settings.sampling == "recommended":
        model = run.recipe.settings.teachers[settings.teacher].model
        console.say(f"Solutions are sampled as the makers of {model} recommend: {sampling}.")
    stage = run.stage(
        STAGE,
        record=Solution,
        settings=solution_settings(run),
        inputs=[input_of(judged, "judged")],
        teachers=[settings.teacher],
    )
    batches = run.stream(judged, JudgedProblem, key=lambda row: row.problem.id)
    return run_stage(stage, batches, partial(_solve_batch, run, sampling), card=render_card)


def sampling_of(run: SynthesisRun) -> Sampling:
    """How the teacher of the solutions is sampled, also when it writes tests.

    Raises:
        ConfigError: The recommended sampling is wanted for a model of which none is known.
    """
    settings = run.settings.solutions
    return choose_sampling(settings, run.recipe.settings.teachers[settings.teacher].model)


def solution_settings(run: SynthesisRun) -> dict[str, Any]:
    """What determines the solutions: the recipe's settings with the sampling that they led to."""
    values = determining(run.settings.solutions)
    values = {key: value for key, value in values.items() if key not in _SAMPLING}
    return {"solutions": values, "sampling": sampling_of(run).as_settings()}


def _solve_batch(run: SynthesisRun, sampling: Sampling, batch: Batch) -> BatchResult:
    settings = run.settings.solutions
    form = run.resolve_form(settings.form, settings.teacher)
    teacher = run.teacher(settings.teacher)
    asked = [ask for row in batch.rows for ask in _ask(run, sampling, row, form)]
    answers = teacher.answer_all([ask.request for ask in asked], STAGE)
    kept: list[Solution] = []
    rejected: list[Rejected] = []
    model = teacher.capabilities.model
    for ask, answer in zip(asked, answers, strict=True):
        reply = read_reply(
            ask.row.problem, answer, form, min_thinking_chars=settings.min_thinking_chars
        )
        if isinstance(reply, Defect):
            rejected.append(refuse_reply(ask.row_id, STAGE, reply, answer))
        else:
            kept.append(_solution(ask, reply, answer, model))
    return BatchResult(
        num_in=len(asked),
        rows=kept,
        rejected=rejected,
        tokens=count_tokens(answers),
        counts={
            "problems": len(batch.rows),
            "problems_with_solutions": len({row.problem.id for row in kept}),
        },
    )


def _ask(run: SynthesisRun, sampling: Sampling, row: JudgedProblem, form: Form) -> list[_Ask]:
    """All samples of one problem; their prompt is the same."""
    settings, problem = run.settings.solutions, row.problem
    messages = _messages(problem, form)
    constraint = solution_form(problem.domain) if form == "constrained" else None
    asked = []
    prompt_hash = ""
    for sample in range(settings.samples_per_problem):
        row_id = f"{problem.id}-{sample}"
        request = Request(
            messages=messages,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            max_tokens=settings.max_tokens,
            seed=derive_seed(run.root_seed, STAGE, row_id),
            constraint=constraint,
        )
        prompt_hash = prompt_hash or request.prompt_hash
        asked.append(_Ask(row, row_id, request, prompt_hash))
    return asked


def _messages(problem: Problem, form: Form) -> tuple[Message, ...]:
    if form == "constrained":
        name = f"solution_constrained_{problem.domain}"
        return render_prompt(name, statement=one_line(problem.statement))
    # The student's own prompt: what it is trained on is what the teacher was asked.
    return (Message(role="user", content=user_turn(problem.statement, problem.domain)),)


def read_reply(
    problem: Problem, answer: Answer, form: Form, *, min_thinking_chars: int
) -> Reply | Defect:
    """Thinking and answer of a reply that is fit to train on.

    Reasons: ``truncated`` for whatever a token limit cut off, ``failed``, those of
    :func:`promptcot.parsing.parse_solution`, and ``thinking_too_short``, ``repetitive``,
    ``no_boxed``, ``no_code_block``.
    """
    if answer.finish_reason == "length":
        part = "answer" if form == "free" and THINK_CLOSE in answer.text else "reasoning"
        return Defect("truncated", f"{answer.num_completion_tokens} tokens, within the {part}")
    if answer.finish_reason == "error":
        return Defect("failed", one_line(answer.detail) or "the teacher reported an error")
    reply = parse_solution(answer.text, answer.finish_reason, form)
    if isinstance(reply, Defect):
        return reply
    if len(reply.thinking) < min_thinking_chars:
        return Defect("thinking_too_short", f"{len(reply.thinking)} characters")
    if (loop := _find_loop(reply.thinking[-_TAIL_CHARS:])) is not None:
        return Defect("repetitive", loop)
    if problem.domain == "math" and extract_boxed(reply.answer) is None:
        return Defect("no_boxed", f"the answer holds no \\boxed{{}}: {reply.answer[:80]!r}")
    if problem.domain == "code" and extract_python(reply.answer) is None:
        return Defect("no_code_block", "the answer holds no ```python block")
    return reply


def _find_loop(tail: str) -> str | None:
    """The sign that a trace ends in a circle, or none; quick for the many that do not."""
    words = tail.lower().translate(_WITHOUT_STOPS).split()
    triples = list(zip(words, words[1:], words[2:], strict=False))
    distinct = set(triples)
    # A sentence or a word said again and again leaves fewer distinct triples than this.
    if len(distinct) >= 0.9 * len(triples) and not any(a == b == c for a, b, c in distinct):
        return None
    return find_loop(tail)


def _solution(ask: _Ask, reply: Reply, answer: Answer, model: str) -> Solution:
    """The record; its id covers the request's seed, so that equal texts stay two samples."""
    request = ask.request
    content = {
        "problem": ask.row.problem.id,
        "seed": request.seed,
        "thinking": reply.thinking,
        "answer": reply.answer,
    }
    return Solution(
        id=content_hash(content),
        problem=ask.row.problem,
        judgements=ask.row.judgements,
        thinking=reply.thinking,
        answer=reply.answer,
        finish_reason=answer.finish_reason,
        teacher=model,
        temperature=request.temperature,
        top_p=request.top_p,
        prompt_hash=ask.prompt_hash,
        seed=request.seed,
        num_prompt_tokens=answer.num_prompt_tokens,
        num_completion_tokens=answer.num_completion_tokens,
    )
