"""What verification finds about the answers to some problems: the part of it that costs processors.

A task holds answers without their thinking, and tests that are already written, so it is small; no
teacher and no file is needed, so any machine can do it. Graders live as long as what opened them:
the stage, or a worker's process.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType

from pipeline.errors import SandboxError
from pipeline.records import Domain, ProgramTest
from pipeline.settings.solutions import VerificationSettings
from promptcot.acceptance import Finding
from promptcot.code_voting import Settled, find, make_task, settle
from promptcot.verification.code_tests import CodeGrader
from promptcot.verification.math_answers import MathGrader
from promptcot.verification.math_boxes import extract_boxed
from promptcot.voting import Vote, count_votes

_OUTPUT_KIB = 64
"""Of a program on one input: outputs of all programs of a batch are held at once."""


@dataclass(frozen=True, slots=True)
class Answers:
    """All sampled answers to one problem."""

    problem_id: str
    domain: Domain
    texts: tuple[str, ...]
    """The answers, without the thinking."""
    tests: tuple[ProgramTest, ...] = ()
    """For programs: as the teacher wrote them."""


@dataclass(frozen=True, slots=True)
class CheckTask:
    """Some problems' answers and how to judge them."""

    answers: tuple[Answers, ...]
    rules: VerificationSettings
    num_samples: int
    """Answers asked for per problem."""
    runs_programs: bool
    """Whether there is a sandbox; without one no program is executed."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The findings by problem, in the order of its answers."""

    findings: dict[str, list[Finding]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


class Graders:
    """Both graders; neither starts a process before it is needed.

    Raises:
        SandboxError: Programs are to be run, and no sandbox works here.
    """

    def __init__(
        self, rules: VerificationSettings, *, num_workers: int, runs_programs: bool
    ) -> None:
        with ExitStack() as stack:
            self.math = stack.enter_context(
                MathGrader(num_workers=num_workers, timeout_s=rules.answer_timeout_s)
            )
            self.code: CodeGrader | None = None
            if runs_programs:
                self.code = stack.enter_context(
                    CodeGrader(
                        timeout_s=rules.test_timeout_s,
                        memory_limit_mib=rules.test_memory_mib,
                        output_kib=_OUTPUT_KIB,
                        num_workers=num_workers,
                    )
                )
            self._stack = stack.pop_all()

    def __enter__(self) -> Graders:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def cancel(self) -> None:
        """Leave out what has not begun; whoever waits for it gets ``CancelledError``."""
        self.math.cancel()
        if self.code is not None:
            self.code.cancel()


_graders: dict[tuple[VerificationSettings, bool], Graders] = {}


def check_in_worker(task: CheckTask) -> Checked:
    """As :func:`check_answers`, with graders that this process keeps, one comparison at a time.

    Raises:
        SandboxError: Programs are to be run, and no sandbox works on this machine.
    """
    key = (task.rules, task.runs_programs)
    try:
        if key not in _graders:
            for graders in _graders.values():
                graders.cancel()
            _graders.clear()
            _graders[key] = Graders(task.rules, num_workers=1, runs_programs=task.runs_programs)
        return check_answers(task, _graders[key])
    except SandboxError as exc:
        raise SandboxError(f"machine {socket.gethostname()}: {exc}", hint=exc.hint) from exc


def check_answers(task: CheckTask, graders: Graders) -> Checked:
    """Findings about all answers of a task.

    Raises:
        SandboxError: The sandbox stopped working.
    """
    checked = Checked()
    maths = [answers for answers in task.answers if answers.domain == "math"]
    programs = [answers for answers in task.answers if answers.domain != "math"]
    _vote_on_answers(task, maths, graders.math, checked)
    _test_programs(task, programs, graders.code, checked)
    return checked


def _vote_on_answers(
    task: CheckTask, problems: Sequence[Answers], grader: MathGrader, checked: Checked
) -> None:
    """Majority vote per problem, under mathematical equality of the boxed answers."""
    boxed = [[extract_boxed(text) for text in answers.texts] for answers in problems]
    votes = count_votes(boxed, grader.compare)
    if uncompared := sum(vote.num_uncompared for vote in votes):
        checked.counts["answers_not_compared"] = uncompared
    for answers, found, vote in zip(problems, boxed, votes, strict=True):
        checked.findings[answers.problem_id] = [
            _judge_answer(task, vote, place, answer) for place, answer in enumerate(found)
        ]


def _judge_answer(task: CheckTask, vote: Vote, place: int, answer: str | None) -> Finding:
    asked = task.num_samples
    shares = " / ".join(str(len(cluster)) for cluster in vote.clusters)
    reason = None
    if answer is None:
        reason = "unparsable_answer"
    elif vote.winner is None or vote.num_votes < task.rules.minimum_votes:
        reason = "no_majority"
    elif place not in vote.winner:
        # Against a majority too small to confirm anything, an answer is not wrong.
        small = len(vote.winner) / asked < task.rules.minimum_agreement
        reason = "low_agreement" if small else "minority_answer"
    return Finding(
        method="majority",
        reason=reason,
        detail=f"answers agree {shares} of {asked} asked",
        agreement=vote.size_of(place) / asked,
        final_answer=answer or "",
    )


def _test_programs(
    task: CheckTask, problems: Sequence[Answers], grader: CodeGrader | None, checked: Checked
) -> None:
    """Run every sampled program on every test of its problem and let them vote."""
    if grader is None:
        absent = Finding(
            method="tests",
            reason="sandbox_unavailable",
            detail="no sandbox on this machine: no test was asked for and nothing executed",
        )
        for answers in problems:
            checked.findings[answers.problem_id] = [absent] * len(answers.texts)
        return
    tasks = [make_task(answers.texts, answers.tests) for answers in problems]
    entries = [(one, entry) for one in tasks for entry in one.wanted()]
    results = grader.execute([entry for _, entry in entries])
    for (one, (program, _)), result in zip(entries, results, strict=True):
        one.runs[program] = result
    for answers, one in zip(problems, tasks, strict=True):
        settled = settle(one, task.rules)
        _count_tests(checked.counts, num_written=len(one.tests), settled=settled)
        findings = find(one, settled, num_samples=task.num_samples)
        checked.findings[answers.problem_id] = findings
    if problems:
        checked.counts["programs_run"] += len(entries)


def _count_tests(counts: Counter[str], *, num_written: int, settled: Settled) -> None:
    counts["tests_usable"] += len(settled.tests)
    counts["tests_disputed"] += num_written - len(settled.tests)
    # Where the programs and the teacher disagree about a test.
    counts["tests_contradicted"] += settled.num_contradicted
