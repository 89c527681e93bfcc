"""Judge problems by five criteria and keep those that reach the verdict the recipe asks for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pipeline.hashing import derive_seed
from pipeline.manifest import Version
from pipeline.records import JudgedProblem, Judgement, Problem, Rating, Rejected
from pipeline.settings.base import determining
from pipeline.settings.synthesis import Form, JudgingSettings
from pipeline.stages import Batch, BatchResult, run_stage, split_batches
from promptcot.cards import render_card
from promptcot.engines.protocol import Answer, Request
from promptcot.forms import judge_form
from promptcot.parsing import Defect
from promptcot.problems import describe_domain
from promptcot.prompting import numbered, one_line, render_prompt
from promptcot.ratings import CRITERIA, VERDICT, Ratings, describe_ratings, parse_ratings
from promptcot.run_context import SynthesisRun, count_tokens, input_of

STAGE = "judged"
_ORDER = (Rating.BAD, Rating.ACCEPTABLE, Rating.PERFECT)


def run_judging(run: SynthesisRun, problems: Version) -> Version:
    """Ask every judge for its votes on every problem; keep by the aggregation rule.

    Raises:
        TooManyRejected: Too few problems passed.
        TeacherError: A judge cannot be used.
    """
    settings = run.settings.judging
    rows = [Problem.model_validate(row) for row in problems.rows()]
    stage = run.stage(
        STAGE,
        record=JudgedProblem,
        settings={"judging": determining(settings)},
        inputs=[input_of(problems, "problems")],
        teachers=[judge.teacher for judge in settings.judges],
    )
    batches = split_batches(rows, run.settings.batch_size, key=lambda row: row.id)
    return run_stage(stage, batches, partial(_judge_batch, run), card=render_card)


def _judge_batch(run: SynthesisRun, batch: Batch) -> BatchResult:
    votes: dict[str, list[tuple[str, Ratings | Defect]]] = {row.id: [] for row in batch.rows}
    answers: list[Answer] = []
    for position, judge in enumerate(run.settings.judging.judges):
        form = run.resolve_form(run.settings.judging.form, judge.teacher)
        teacher = run.teacher(judge.teacher)
        asked = [(row, vote) for row in batch.rows for vote in range(judge.votes)]
        requests = [_ask(run, row, form=form, vote=(position, vote)) for row, vote in asked]
        replies = teacher.answer_all(requests, STAGE)
        answers += replies
        for (row, _), reply in zip(asked, replies, strict=True):
            ratings = parse_ratings(reply.text, reply.finish_reason)
            votes[row.id].append((teacher.capabilities.model, ratings))
    kept: list[JudgedProblem] = []
    rejected: list[Rejected] = []
    for row in batch.rows:
        outcome = _decide(row, votes[row.id], run.settings.judging)
        if isinstance(outcome, Defect):
            rejected.append(
                Rejected(row_id=row.id, stage=STAGE, reason=outcome.reason, detail=outcome.detail)
            )
        else:
            kept.append(outcome)
    return BatchResult(
        num_in=len(batch.rows), rows=kept, rejected=rejected, tokens=count_tokens(answers)
    )


def _ask(run: SynthesisRun, row: Problem, *, form: Form, vote: tuple[int, int]) -> Request:
    settings = run.settings.judging
    constrained = form == "constrained"
    messages = render_prompt(
        f"judge_{form}",
        domain=describe_domain(row.domain),
        level=row.level,
        concepts=", ".join(row.concepts) if constrained else numbered(row.concepts),
        rationale=row.rationale,
        statement=one_line(row.statement) if constrained else row.statement,
    )
    return Request(
        messages=messages,
        temperature=settings.temperature,
        top_p=1.0,
        max_tokens=settings.max_tokens,
        seed=derive_seed(run.root_seed, STAGE, row.id, *map(str, vote)),
        constraint=judge_form((*CRITERIA, VERDICT)) if constrained else None,
    )


def _decide(
    row: Problem, votes: Sequence[tuple[str, Ratings | Defect]], settings: JudgingSettings
) -> JudgedProblem | Defect:
    """Keep or refuse a problem; one unreadable vote refuses it."""
    readable = []
    for _, vote in votes:
        if isinstance(vote, Defect):
            return vote
        readable.append(vote)
    if (reason := refuse(readable, settings)) is not None:
        return Defect(reason, describe_ratings(readable))
    judges = [judge for judge, _ in votes]
    return JudgedProblem(
        problem=row,
        judgements=[
            Judgement(
                problem_id=row.id,
                judge=judge,
                verdict=vote.verdict,
                stated_verdict=vote.stated,
                **vote.by_field,
            )
            for judge, vote in zip(judges, readable, strict=True)
        ],
    )


def refuse(votes: Sequence[Ratings], settings: JudgingSettings) -> str | None:
    """Why the votes refuse a problem, or none.

    ``unanimous``: the worst verdict must reach the minimum. ``lenient``: one vote must be perfect
    and none bad.
    """
    verdicts = [vote.verdict for vote in votes]
    worst = min(verdicts, key=_ORDER.index)
    if settings.aggregation == "lenient":
        if worst is Rating.BAD:
            return "verdict_bad"
        return None if Rating.PERFECT in verdicts else "verdict_never_perfect"
    if _ORDER.index(worst) < _ORDER.index(Rating(settings.minimum_verdict)):
        return f"verdict_{worst}"
    return None
