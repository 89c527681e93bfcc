"""Tests of a programming task, whose right outputs the sampled programs decide among themselves.

As in PromptCoT 2.0 the teacher writes the tests. Its own output for an input is one opinion of a
model that computed nothing; so the programs are run, and the output of most of them is expected.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.records import ProgramTest
from pipeline.settings.solutions import VerificationSettings
from promptcot.acceptance import Finding
from promptcot.parsing import Defect
from promptcot.prompting import one_line
from promptcot.verification.code_tests import (
    describe_failure,
    extract_python,
    normalise_output,
    parse_program,
)
from promptcot.verification.sandbox import Execution

_IDLE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Pass)
_READERS = frozenset({"input", "stdin", "fileinput", "open", "read", "readline", "readlines"})


@dataclass(slots=True)
class Task:
    """A programming problem with its tests and the programs that solve it."""

    tests: list[ProgramTest]
    """As the teacher wrote them, each input once; :func:`settle` decides on the outputs."""
    programs: list[str]
    """One per sample; empty where the sample holds none."""
    defects: list[Defect | None]
    """Why a sample's program is not run at all."""
    runs: dict[str, list[Execution]] = field(default_factory=dict)
    """Program → how it ended on each test's input."""

    def wanted(self) -> list[tuple[str, list[str]]]:
        """Each different program that is to be run, with its inputs."""
        if not self.tests:
            return []
        pairs = zip(self.programs, self.defects, strict=True)
        fit = dict.fromkeys(program for program, defect in pairs if defect is None)
        return [(program, [test.input for test in self.tests]) for program in fit]


def make_task(answers: Sequence[str], tests: Sequence[ProgramTest]) -> Task:
    """A task from the samples' answers and the readable tests."""
    programs = [extract_python(answer) or "" for answer in answers]
    once: dict[str, ProgramTest] = {}
    for test in tests:
        once.setdefault(normalise_output(test.input), test)
    kept = list(once.values())
    defects = [_find_defect(program, kept) for program in programs]
    return Task(tests=kept, programs=programs, defects=defects)


def _find_defect(program: str, tests: Sequence[ProgramTest]) -> Defect | None:
    """Why a program is not worth running."""
    if not program:
        return Defect("no_code_block", "the answer holds no ```python block")
    tree = parse_program(program)
    if isinstance(tree, str):
        return Defect("code_does_not_parse", one_line(tree)[:200])
    if not _does_something(tree):
        return Defect("code_does_nothing", "comments, texts and definitions only")
    if any(test.input.strip() for test in tests) and not _may_read(tree):
        return Defect("code_reads_nothing", "there is input, and nothing in the program reads it")
    return None


def _does_something(tree: ast.Module) -> bool:
    """Whether running it executes more than definitions, imports and bare constants."""
    return any(
        not isinstance(node, _IDLE)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in tree.body
    )


def _may_read(tree: ast.Module) -> bool:
    """Whether it names anything that reads input."""
    return any(
        (isinstance(node, ast.Name) and node.id in _READERS)
        or (isinstance(node, ast.Attribute) and node.attr in _READERS)
        or (isinstance(node, ast.alias) and node.name.partition(".")[0] in _READERS)
        for node in ast.walk(tree)
    )


@dataclass(frozen=True, slots=True)
class Settled:
    """A task's tests with the outputs that are expected."""

    tests: tuple[ProgramTest, ...]
    """The usable ones."""
    positions: tuple[int, ...]
    """Their places in :attr:`Task.tests`."""
    defect: Defect | None
    """Why they confirm nothing."""
    num_contradicted: int
    """Usable tests whose stated output is not the expected one."""


def settle(task: Task, rules: VerificationSettings) -> Settled:
    """Decide each test's expected output, and whether the tests can tell programs apart."""
    chosen = [_settle_test(task, n, rules) for n in range(len(task.tests))]
    usable = [(n, test) for n, test in enumerate(chosen) if test is not None]
    tests = tuple(test for _, test in usable)
    contradicted = sum(
        normalise_output(test.output) != normalise_output(test.stated_output) for test in tests
    )
    return Settled(
        tests=tests,
        positions=tuple(n for n, _ in usable),
        defect=_find_useless(task.tests, tests),
        num_contradicted=contradicted,
    )


def _find_useless(written: Sequence[ProgramTest], usable: Sequence[ProgramTest]) -> Defect | None:
    if not written:
        return Defect("no_tests", "the teacher wrote no readable test")
    if not usable:
        return Defect("tests_disputed", f"no majority on the output of {len(written)} tests")
    if len(usable) > 1 and len({normalise_output(test.output) for test in usable}) == 1:
        detail = f"{len(usable)} tests expect the same output, so a constant passes them"
        return Defect("constant_output", detail)
    return None


def _settle_test(task: Task, position: int, rules: VerificationSettings) -> ProgramTest | None:
    """The test with its expected output, or none where there is no majority."""
    test = task.tests[position]
    votes = Counter(
        output
        for program, defect in zip(task.programs, task.defects, strict=True)
        if defect is None and (output := _output(task.runs[program][position]))
    )
    if rules.expected_outputs == "teacher":
        stated = normalise_output(test.stated_output)
        return test.model_copy(update={"output": stated, "votes": votes[stated]})
    first, second = [*votes.most_common(2), ("", 0), ("", 0)][:2]
    if first[1] < max(1, rules.minimum_votes) or first[1] == second[1]:
        return None
    return test.model_copy(update={"output": first[0], "votes": first[1]})


def _output(run: Execution) -> str:
    """What a run printed; nothing where it has no vote."""
    return normalise_output(run.stdout) if run.status == "ok" else ""


def find(task: Task, settled: Settled, *, num_samples: int) -> list[Finding]:
    """What the tests say about each sample."""
    defects = [
        # What fails a test is refuted, also where passing the tests would confirm nothing.
        defect or _find_failure(task.runs.get(program, ()), settled) or settled.defect
        for program, defect in zip(task.programs, task.defects, strict=True)
    ]
    agreement = defects.count(None) / num_samples
    share = f"{defects.count(None)} of {num_samples} asked pass"
    return [
        Finding(
            method="tests",
            reason=defect.reason if defect else None,
            detail=defect.detail if defect else share,
            agreement=0.0 if defect else agreement,
            final_answer=program,
            tests=settled.tests,
        )
        for program, defect in zip(task.programs, defects, strict=True)
    ]


def _find_failure(runs: Sequence[Execution], settled: Settled) -> Defect | None:
    """How a program fails the first test that it does not pass."""
    for number, (position, test) in enumerate(
        zip(settled.positions, settled.tests, strict=True), start=1
    ):
        run = runs[position]
        if run.status == "not_run":
            return Defect("timeout", "another test of the task took too long")
        failure = describe_failure(number, run, test.output)
        if failure is not None:
            return Defect(failure.reason, failure.detail)
    return None
