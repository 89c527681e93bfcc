"""Verify solutions: maths by majority of the samples, code by tests in a sandbox.

What nothing confirmed and nothing contradicted is kept only where the recipe relaxes this gate, and
is then marked ``unverified``.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Literal

from pipeline.hashing import derive_seed
from pipeline.manifest import Version
from pipeline.records import Problem, Rejected, Solution, VerifiedTrace
from pipeline.settings.base import determining
from pipeline.stages import Batch, BatchResult, run_stage, split_batches
from promptcot.cards import render_card
from promptcot.engines.protocol import Answer, Request
from promptcot.forms import program_test_form
from promptcot.parsing import Defect, ProgramTest, parse_test
from promptcot.prompting import one_line, render_prompt
from promptcot.run_context import SynthesisRun, count_tokens, input_of
from promptcot.verification.code_tests import (
    CodeGrader,
    CodeResult,
    extract_python,
    find_syntax_error,
)
from promptcot.verification.math_answers import MathGrader, extract_boxed
from promptcot.verification.sandbox import find_sandbox
from promptcot.voting import Vote, count_votes

STAGE = "verified"
_TEST_KINDS = ("small ordinary case", "edge case", "larger case", "case that trips wrong programs")
_UNCONFIRMED = frozenset({"no_majority", "low_agreement", "no_tests"})
"""Reasons that say nothing against a solution."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What verification found about one solution."""

    reason: str | None
    """None when it is confirmed."""
    detail: str
    agreement: float
    final_answer: str


def run_verification(run: SynthesisRun, solutions: Version) -> Version:
    """Confirm or refuse every solution.

    Raises:
        TooManyRejected: Too few traces were accepted.
        TeacherError: The teacher that writes tests cannot be used.
        SandboxError: The sandbox stopped working.
    """
    rows = [Solution.model_validate(row) for row in solutions.rows()]
    groups = [list(group) for _, group in groupby(rows, key=lambda row: row.problem.id)]
    stage = run.stage(
        STAGE,
        record=VerifiedTrace,
        settings={
            "verification": determining(run.settings.verification),
            "samples_per_problem": run.settings.solutions.samples_per_problem,
            "form": run.settings.solutions.form,
            # Without one no program can be confirmed, which is another result.
            "sandbox": "present" if find_sandbox() is not None else "absent",
        },
        inputs=[input_of(solutions, "solutions")],
        teachers=[run.settings.solutions.teacher],
    )
    size = run.settings.batch_size
    batches = split_batches(groups, size, key=lambda group: ",".join(row.id for row in group))
    return run_stage(stage, batches, partial(_verify_batch, run), card=render_card)


def _verify_batch(run: SynthesisRun, batch: Batch) -> BatchResult:
    groups: Sequence[list[Solution]] = batch.rows
    maths = [group for group in groups if group[0].problem.domain == "math"]
    code = [group for group in groups if group[0].problem.domain != "math"]
    verdicts = _vote_on_answers(run, maths)
    tests, answers = _write_tests(run, [group[0].problem for group in code])
    verdicts |= _run_programs(run, [row for group in code for row in group], tests)
    kept: list[VerifiedTrace] = []
    rejected: list[Rejected] = []
    for row in (row for group in groups for row in group):
        outcome = _conclude(run, row, verdicts[row.id])
        if isinstance(outcome, Rejected):
            rejected.append(outcome)
        else:
            kept.append(outcome)
    return BatchResult(
        num_in=sum(len(group) for group in groups),
        rows=kept,
        rejected=rejected,
        tokens=count_tokens(answers),
    )


def _conclude(run: SynthesisRun, row: Solution, verdict: _Verdict) -> VerifiedTrace | Rejected:
    method: Literal["majority", "tests", "unverified"]
    method = "majority" if row.problem.domain == "math" else "tests"
    if verdict.reason is not None:
        relaxed = run.settings.verification.keep_unverified and verdict.reason in _UNCONFIRMED
        if not relaxed:
            return Rejected(
                row_id=row.id, stage=STAGE, reason=verdict.reason, detail=verdict.detail
            )
        method = "unverified"
    return VerifiedTrace(
        solution=row,
        final_answer=verdict.final_answer,
        agreement=verdict.agreement,
        method=method,
    )


def _vote_on_answers(
    run: SynthesisRun, groups: Sequence[Sequence[Solution]]
) -> dict[str, _Verdict]:
    """Majority vote per problem, under mathematical equality of the boxed answers."""
    answers = [[extract_boxed(row.answer) for row in group] for group in groups]
    with MathGrader(num_workers=run.settings.num_workers) as grader:
        votes = count_votes(answers, grader.grade)
    return {
        row.id: _judge_answer(run, vote, position, found[position])
        for group, found, vote in zip(groups, answers, votes, strict=True)
        for position, row in enumerate(group)
    }


def _judge_answer(run: SynthesisRun, vote: Vote, position: int, answer: str | None) -> _Verdict:
    rules = run.settings.verification
    asked = run.settings.solutions.samples_per_problem
    agreement = vote.size_of(position) / asked
    shares = " / ".join(str(len(cluster)) for cluster in vote.clusters)
    detail = f"answers agree {shares} of {asked} asked"
    reason = None
    if answer is None:
        reason = "unparsable_answer"
    elif vote.winner is None or vote.num_votes < rules.minimum_votes:
        reason = "no_majority"
    elif len(vote.winner) / asked < rules.minimum_agreement:
        reason = "low_agreement"
    elif position not in vote.winner:
        reason = "minority_answer"
    return _Verdict(reason, detail, agreement, answer or "")


def _write_tests(
    run: SynthesisRun, problems: Sequence[Problem]
) -> tuple[dict[str, list[ProgramTest]], list[Answer]]:
    """Tests by problem, one request each as in PromptCoT 2.0; unreadable ones are left out."""
    count = run.settings.verification.code_tests
    if not problems or not count:
        return {}, []
    asked = [(problem, number) for problem in problems for number in range(count)]
    requests = [_ask_test(run, problem, number) for problem, number in asked]
    teacher_name = run.settings.solutions.teacher
    form = run.resolve_form(run.settings.solutions.form, teacher_name)
    answers = run.teacher(teacher_name).answer_all(requests, "tests")
    tests: dict[str, list[ProgramTest]] = {}
    for (problem, _), answer in zip(asked, answers, strict=True):
        test = parse_test(answer.text, answer.finish_reason, form)
        if isinstance(test, ProgramTest):
            tests.setdefault(problem.id, []).append(test)
    return tests, answers


def _ask_test(run: SynthesisRun, problem: Problem, number: int) -> Request:
    settings = run.settings.solutions
    form = run.resolve_form(settings.form, settings.teacher)
    constrained = form == "constrained"
    messages = render_prompt(
        f"test_{form}",
        number=str(number + 1),
        count=str(run.settings.verification.code_tests),
        kind=_TEST_KINDS[number % len(_TEST_KINDS)],
        statement=one_line(problem.statement) if constrained else problem.statement,
    )
    return Request(
        messages=messages,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=run.settings.verification.test_max_tokens,
        seed=derive_seed(run.root_seed, "tests", problem.id, str(number)),
        constraint=program_test_form() if constrained else None,
    )


def _run_programs(
    run: SynthesisRun, rows: Sequence[Solution], tests: dict[str, list[ProgramTest]]
) -> dict[str, _Verdict]:
    """Run each program on its problem's tests; it must pass all of them."""
    programs = [extract_python(row.answer) or "" for row in rows]
    defects = [
        _find_program_defect(program, tests.get(row.problem.id, []))
        for row, program in zip(rows, programs, strict=True)
    ]
    runnable = [i for i, defect in enumerate(defects) if defect is None]
    entries = [
        (
            programs[i],
            [{"input": t.input, "output": t.output} for t in tests[rows[i].problem.id]],
        )
        for i in runnable
    ]
    results = dict(zip(runnable, _grade_programs(run, entries), strict=True))
    verdicts = {}
    for i, row in enumerate(rows):
        defect = defects[i] or _defect_of(results[i])
        reason, detail = (defect.reason, defect.detail) if defect else (None, "")
        verdicts[row.id] = _Verdict(reason, detail, 0.0 if defect else 1.0, programs[i])
    return verdicts


def _find_program_defect(program: str, tests: Sequence[ProgramTest]) -> Defect | None:
    """Why a program is not run at all."""
    if not program:
        return Defect("no_code_block", "the answer holds no ```python block")
    if (error := find_syntax_error(program)) is not None:
        return Defect("code_does_not_parse", one_line(error)[:200])
    if not _does_something(program):
        return Defect("code_does_nothing", "comments, texts and definitions only")
    if not tests:
        return Defect("no_tests", "the teacher wrote no readable test")
    return None


def _does_something(program: str) -> bool:
    """Whether running it executes more than definitions, imports and bare constants."""
    idle = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Pass)
    return any(
        not isinstance(node, idle)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in ast.parse(program).body
    )


def _grade_programs(
    run: SynthesisRun, entries: Sequence[tuple[str, list[dict[str, str]]]]
) -> list[CodeResult | Defect]:
    if not entries:
        return []
    if find_sandbox() is None:
        absent = Defect("sandbox_unavailable", "no sandbox on this machine: nothing was executed")
        return [absent] * len(entries)
    with CodeGrader(
        timeout_s=run.settings.verification.test_timeout_s, num_workers=run.settings.num_workers
    ) as grader:
        return [*grader.grade(entries)]


def _defect_of(result: CodeResult | Defect) -> Defect | None:
    if isinstance(result, Defect):
        return result
    return None if result.passed else Defect(result.reason, result.detail)
