"""Verify solutions: maths by majority of the samples, code by tests in a sandbox.

What nothing confirmed and nothing contradicted is kept only where the recipe relaxes this gate, and
is then marked ``unverified``. The samples of one problem lie beside each other, so problems are
read one after the other and the corpus is never held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from math import floor

from pipeline.manifest import Version
from pipeline.records import Problem, Rejected, Solution, VerifiedTrace
from pipeline.settings.base import determining
from pipeline.stages import Batch, BatchResult, BatchStream, run_stage
from promptcot.acceptance import STAGE, Finding, conclude
from promptcot.code_voting import Settled, find, make_task, settle
from promptcot.engines.protocol import Answer
from promptcot.product_card import product_card
from promptcot.program_tests import write_tests
from promptcot.run_context import SynthesisRun, count_tokens, input_of
from promptcot.solutions import sampling_of
from promptcot.verification.code_tests import CodeGrader
from promptcot.verification.math_answers import MathGrader
from promptcot.verification.math_boxes import extract_boxed
from promptcot.verification.sandbox import find_sandbox
from promptcot.voting import Vote, count_votes

_OUTPUT_KIB = 64
"""Of a program on one input: outputs of all programs of a batch are held at once."""


@dataclass(frozen=True, slots=True)
class _Verifier:
    """What all batches of the stage share; the graders are safe to use from their threads."""

    run: SynthesisRun
    math: MathGrader
    code: CodeGrader | None
    """None where no sandbox works: then no program is executed."""

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
    with ExitStack() as stack:
        verifier = _open_verifier(run, stack)
        cancel = partial(_cancel_all, [stage.cancel, verifier.math.cancel])
        if verifier.code is not None:
            cancel = partial(_cancel_all, [cancel, verifier.code.cancel])
        return run_stage(
            replace(stage, cancel=cancel),
            _stream_problems(run, solutions),
            partial(_verify_batch, verifier),
            card=product_card(run),
        )


def _open_verifier(run: SynthesisRun, stack: ExitStack) -> _Verifier:
    """Graders for the whole stage; neither starts a process before it is needed."""
    rules, num_workers = run.settings.verification, run.settings.num_workers
    math = MathGrader(num_workers=num_workers, timeout_s=rules.answer_timeout_s)
    code = None
    if find_sandbox() is not None:
        code = CodeGrader(
            timeout_s=rules.test_timeout_s,
            memory_limit_mib=rules.test_memory_mib,
            output_kib=_OUTPUT_KIB,
            num_workers=num_workers,
        )
        stack.enter_context(code)
    return _Verifier(run, stack.enter_context(math), code)


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
    maths = [group for group in groups if group[0].problem.domain == "math"]
    code = [group for group in groups if group[0].problem.domain != "math"]
    counts: Counter[str] = Counter()
    findings = _vote_on_answers(verifier, maths, counts)
    found, answers = _test_programs(verifier, code, counts)
    findings |= found
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


def _describe_traces(traces: Sequence[VerifiedTrace]) -> Iterator[str]:
    """What the card tells of one problem's traces: their methods, and its agreement in tenths."""
    for trace in traces:
        yield f"method/{trace.method}"
    if traces:
        yield f"agreement/{floor(traces[0].agreement * 10) / 10:.1f}"


def _licences(run: SynthesisRun, num_rows: int) -> dict[str, int]:
    """The licence that the recipe states for its rows, if it does."""
    return {run.settings.licence: num_rows} if run.settings.licence and num_rows else {}


def _vote_on_answers(
    verifier: _Verifier, groups: Sequence[Sequence[Solution]], counts: Counter[str]
) -> dict[str, list[Finding]]:
    """Majority vote per problem, under mathematical equality of the boxed answers."""
    answers = [[extract_boxed(row.answer) for row in group] for group in groups]
    votes = count_votes(answers, verifier.math.compare)
    if uncompared := sum(vote.num_uncompared for vote in votes):
        counts["answers_not_compared"] = uncompared
    return {
        group[0].problem.id: [
            _judge_answer(verifier, vote, position, answer) for position, answer in enumerate(found)
        ]
        for group, found, vote in zip(groups, answers, votes, strict=True)
    }


def _judge_answer(verifier: _Verifier, vote: Vote, position: int, answer: str | None) -> Finding:
    asked = verifier.num_samples
    shares = " / ".join(str(len(cluster)) for cluster in vote.clusters)
    reason = None
    if answer is None:
        reason = "unparsable_answer"
    elif vote.winner is None or vote.num_votes < verifier.run.settings.verification.minimum_votes:
        reason = "no_majority"
    elif position not in vote.winner:
        # Against a majority too small to confirm anything, an answer is not wrong.
        small = len(vote.winner) / asked < verifier.run.settings.verification.minimum_agreement
        reason = "low_agreement" if small else "minority_answer"
    return Finding(
        method="majority",
        reason=reason,
        detail=f"answers agree {shares} of {asked} asked",
        agreement=vote.size_of(position) / asked,
        final_answer=answer or "",
    )


def _test_programs(
    verifier: _Verifier, groups: Sequence[Sequence[Solution]], counts: Counter[str]
) -> tuple[dict[str, list[Finding]], list[Answer]]:
    """Run every sampled program on every test of its problem and let them vote."""
    if not groups:
        return {}, []
    if verifier.code is None:
        absent = Finding(
            method="tests",
            reason="sandbox_unavailable",
            detail="no sandbox on this machine: no test was asked for and nothing executed",
        )
        return {group[0].problem.id: [absent] * len(group) for group in groups}, []
    problems: list[Problem] = [group[0].problem for group in groups]
    written, answers = write_tests(verifier.run, problems, counts)
    tasks = [
        make_task([row.answer for row in group], written[problem.id])
        for group, problem in zip(groups, problems, strict=True)
    ]
    entries = [(task, entry) for task in tasks for entry in task.wanted()]
    results = verifier.code.execute([entry for _, entry in entries])
    for (task, (program, _)), result in zip(entries, results, strict=True):
        task.runs[program] = result
    found = {}
    rules = verifier.run.settings.verification
    for problem, task in zip(problems, tasks, strict=True):
        settled = settle(task, rules)
        _count_tests(counts, num_written=len(task.tests), settled=settled)
        found[problem.id] = find(task, settled, num_samples=verifier.num_samples)
    counts["programs_run"] += len(entries)
    return found, answers


def _count_tests(counts: Counter[str], *, num_written: int, settled: Settled) -> None:
    counts["tests_usable"] += len(settled.tests)
    counts["tests_disputed"] += num_written - len(settled.tests)
    # Where the programs and the teacher disagree about a test.
    counts["tests_contradicted"] += settled.num_contradicted
