"""Verify solutions: maths by majority of the samples, code by tests in a sandbox.

What nothing confirmed and nothing contradicted is kept only where the recipe relaxes this gate, and
is then marked ``unverified``. The samples of one problem lie beside each other, so problems are
read one after the other and the corpus is never held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from math import floor

from pipeline.executors import open_executor
from pipeline.manifest import Version
from pipeline.records import ProgramTest, Rejected, Solution, VerifiedTrace
from pipeline.settings.base import determining
from pipeline.stages import Batch, BatchResult, BatchStream, Stage, run_stage
from promptcot.acceptance import STAGE, conclude
from promptcot.answer_checks import (
    Answers,
    Checked,
    CheckTask,
    Graders,
    check_answers,
    check_in_worker,
)
from promptcot.engines.protocol import Answer
from promptcot.product_card import product_card
from promptcot.program_tests import write_tests
from promptcot.run_context import SynthesisRun, count_tokens, input_of
from promptcot.solutions import sampling_of
from promptcot.verification.sandbox import find_sandbox

REMEDY = "lower synthesis.num_workers or synthesis.batch_size"
"""Against lost workers."""
Check = Callable[[CheckTask, str], Checked]
"""Does a task of the name given: here, or on a cluster."""


@dataclass(frozen=True, slots=True)
class _Verifier:
    """What all batches of the stage share; safe to use from their threads."""

    run: SynthesisRun
    check: Check
    runs_programs: bool
    """False where no sandbox works: then no program is executed."""

    @property
    def num_samples(self) -> int:
        return self.run.settings.solutions.samples_per_problem


def run_verification(run: SynthesisRun, solutions: Version) -> Version:
    """Confirm or refuse every solution.

    Raises:
        TooManyRejected: Too few traces were accepted.
        TeacherError: The teacher that writes tests cannot be used.
        SandboxError: The sandbox stopped working.
    """
    settings = run.settings
    stage = run.stage(
        STAGE,
        record=VerifiedTrace,
        settings={
            "verification": determining(settings.verification),
            "samples_per_problem": settings.solutions.samples_per_problem,
            "form": settings.solutions.form,
            "sampling": sampling_of(run).as_settings(),
            # Without one no program can be confirmed, which is another result.
            "sandbox": "present" if find_sandbox() is not None else "absent",
            "licence": settings.licence,
        },
        inputs=[input_of(solutions, "solutions")],
        teachers=[settings.solutions.teacher],
    )
    with _open_verifier(run, stage) as (verifier, stage):
        return run_stage(
            stage,
            _stream_problems(run, solutions),
            partial(_verify_batch, verifier),
            card=product_card(run),
        )


@contextmanager
def _open_verifier(run: SynthesisRun, stage: Stage) -> Iterator[tuple[_Verifier, Stage]]:
    """Who checks, for the whole stage, and the stage with as many batches in flight as that takes.

    Here the stage's threads share the graders, whose work is in processes; a cluster gets a batch's
    answers as one task.
    """
    execution, num_workers = run.recipe.settings.execution, run.settings.num_workers
    runs_programs = find_sandbox() is not None
    if execution.executor == "local":
        with Graders(
            run.settings.verification, num_workers=num_workers, runs_programs=runs_programs
        ) as graders:
            check: Check = partial(_check_here, graders)
            cancel = partial(_cancel_all, [stage.cancel, graders.cancel])
            yield _Verifier(run, check, runs_programs), replace(stage, cancel=cancel)
        return
    with open_executor(execution, num_workers, remedy=REMEDY) as executor:
        check = partial(executor.run, check_in_worker)
        cancel = partial(_cancel_all, [stage.cancel, executor.cancel])
        wanted = run.settings.max_batches_in_flight or executor.num_slots
        in_flight = max(stage.concurrency, wanted)
        yield (
            _Verifier(run, check, runs_programs),
            replace(stage, cancel=cancel, concurrency=in_flight),
        )


def _check_here(graders: Graders, task: CheckTask, _: str) -> Checked:
    return check_answers(task, graders)


def _cancel_all(cancels: Sequence[Callable[[], None]]) -> None:
    for cancel in cancels:
        cancel()


def _stream_problems(run: SynthesisRun, solutions: Version) -> BatchStream:
    """Batches of problems, each the list of its samples."""
    counts = solutions.manifest.extra.get("counts", {})
    return BatchStream(
        rows=lambda: _read_groups(solutions),
        num_rows=counts.get("problems_with_solutions", solutions.manifest.rows_out),
        size=run.settings.batch_size,
        key=lambda group: ",".join(row.id for row in group),
    )


def _read_groups(solutions: Version) -> Iterator[list[Solution]]:
    rows = (Solution.model_validate(row) for row in solutions.rows())
    for _, group in groupby(rows, key=lambda row: row.problem.id):
        yield list(group)


def _verify_batch(verifier: _Verifier, batch: Batch) -> BatchResult:
    groups: Sequence[list[Solution]] = batch.rows
    counts: Counter[str] = Counter()
    task, answers = _make_task(verifier, groups, counts)
    checked = verifier.check(task, f"batch {batch.id} of stage {STAGE}")
    counts.update(checked.counts)
    findings = checked.findings
    kept: list[VerifiedTrace] = []
    rejected: list[Rejected] = []
    for group in groups:
        outcomes = conclude(
            group,
            findings[group[0].problem.id],
            num_samples=verifier.num_samples,
            rules=verifier.run.settings.verification,
        )
        traces = [row for row in outcomes if not isinstance(row, Rejected)]
        counts.update(_describe_traces(traces))
        kept += traces
        rejected += [row for row in outcomes if isinstance(row, Rejected)]
    return BatchResult(
        num_in=sum(len(group) for group in groups),
        rows=kept,
        rejected=rejected,
        tokens=count_tokens(answers),
        licences=_licences(verifier.run, len(kept)),
        counts=counts,
    )


def _make_task(
    verifier: _Verifier, groups: Sequence[Sequence[Solution]], counts: Counter[str]
) -> tuple[CheckTask, list[Answer]]:
    """What is to be checked, after the teacher has written tests for programs; its replies too."""
    problems = [group[0].problem for group in groups]
    tests: dict[str, list[ProgramTest]] = {}
    replies: list[Answer] = []
    if verifier.runs_programs:
        programming = [problem for problem in problems if problem.domain != "math"]
        tests, replies = write_tests(verifier.run, programming, counts)
    answers = tuple(
        Answers(
            problem_id=problem.id,
            domain=problem.domain,
            texts=tuple(row.answer for row in group),
            tests=tuple(tests.get(problem.id, ())),
        )
        for problem, group in zip(problems, groups, strict=True)
    )
    task = CheckTask(
        answers,
        verifier.run.settings.verification,
        num_samples=verifier.num_samples,
        runs_programs=verifier.runs_programs,
    )
    return task, replies


def _describe_traces(traces: Sequence[VerifiedTrace]) -> Iterator[str]:
    """What the card tells of one problem's traces: their methods, and its agreement in tenths."""
    for trace in traces:
        yield f"method/{trace.method}"
    if traces:
        yield f"agreement/{floor(traces[0].agreement * 10) / 10:.1f}"


def _licences(run: SynthesisRun, num_rows: int) -> dict[str, int]:
    """The licence that the recipe states for its rows, if it does."""
    return {run.settings.licence: num_rows} if run.settings.licence and num_rows else {}
