"""Official tests of real benchmarks: right solutions pass, wrong ones do not."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from program_mutants import mutants

from evaluation.code_grading import ProgramGrader
from evaluation.code_grading_reference import compute_reference
from pipeline.benchmark_items import ProgramTests
from promptcot.verification.sandbox import Limits, find_sandbox, require_sandbox

Row = dict[str, Any]


@pytest.fixture(scope="module")
def grader() -> Iterator[ProgramGrader]:
    if find_sandbox() is None:
        pytest.skip("bubblewrap does not work on this machine (user namespaces are forbidden?)")
    with ProgramGrader() as grader:
        yield grader


def read_lines(path: Path) -> list[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def humaneval(folder: Path) -> list[tuple[Row, ProgramTests]]:
    rows = read_lines(folder / "benchmarks" / "HumanEval.jsonl.gz")
    return [
        (
            row,
            ProgramTests(
                kind="check",
                entry_point=row["entry_point"],
                prompt=row["prompt"],
                check=row["test"],
            ),
        )
        for row in rows
    ]


def humaneval_plus(folder: Path) -> list[tuple[Row, ProgramTests]]:
    rows = read_lines(folder / "benchmarks" / "HumanEvalPlus.jsonl.gz")
    return [
        (
            row,
            ProgramTests(
                kind="reference",
                entry_point=row["entry_point"],
                prompt=row["prompt"],
                reference=row["prompt"] + row["canonical_solution"],
                contract=row["contract"],
                inputs=json.dumps(row["base_input"] + row["plus_input"]),
                atol=row["atol"],
            ),
        )
        for row in rows
    ]


def failures(
    grader: ProgramGrader, jobs: list[tuple[str, ProgramTests]]
) -> list[tuple[str, str, str]]:
    results = grader.grade(jobs)
    return [
        (tests.entry_point, result.reason, result.detail)
        for (_, tests), result in zip(jobs, results, strict=True)
        if not result.passed
    ]


# Checks that use a helper of the prompt (32, 38, 50) or the function's name (33), and others.
SOME = (0, 2, 10, 32, 33, 38, 50, 115)


def test_some_humaneval_solutions_pass_in_both_forms(
    grader: ProgramGrader, shared_data: Path
) -> None:
    rows = [humaneval(shared_data)[number] for number in SOME]
    jobs = [(row["canonical_solution"], tests) for row, tests in rows]
    jobs += [(row["prompt"] + row["canonical_solution"], tests) for row, tests in rows]
    assert failures(grader, jobs) == []


def test_a_restated_function_may_leave_out_the_prompts_helpers(
    grader: ProgramGrader, shared_data: Path
) -> None:
    row, tests = humaneval(shared_data)[38]
    alone = "def decode_cyclic(s: str):\n" + row["canonical_solution"]
    assert failures(grader, [(alone, tests)]) == []
    # The prompt's own function is not there for an answer that lacks it.
    assert failures(grader, [("def encode_cyclic(s): return s", tests)]) != []


def test_any_root_passes_and_another_number_does_not(
    grader: ProgramGrader, shared_data: Path
) -> None:
    _, tests = humaneval_plus(shared_data)[32]
    few = replace(tests, inputs="[[[1, 2]], [[-6, 11, -6, 1]]]")
    answer = "def find_zero(xs: list):\n    return -0.5 if len(xs) == 2 else {}\n"
    # The reference finds 1.
    assert failures(grader, [(answer.format(3.0), few), (answer.format(2.00001), few)]) == []
    assert len(failures(grader, [(answer.format(2.5), few), (answer.format(None), few)])) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_humaneval_solutions_pass(grader: ProgramGrader, shared_data: Path) -> None:
    rows = humaneval(shared_data)
    assert len(rows) == 164
    assert failures(grader, [(row["canonical_solution"], tests) for row, tests in rows]) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_wrong_versions_of_humaneval_solutions_fail(
    grader: ProgramGrader, shared_data: Path
) -> None:
    # benchmarks/evaluation/code_grading.py --mutants takes all of them.
    made = [
        (f"{row['task_id']} {kind}", source, tests)
        for row, tests in humaneval(shared_data)[::10]
        for kind, source in mutants(row["prompt"] + row["canonical_solution"], tests.entry_point)
    ]
    assert len(made) == 48
    results = grader.grade([(source, tests) for _, source, tests in made])
    survivors = [name for (name, _, _), result in zip(made, results, strict=True) if result.passed]
    # HumanEval's own runner passes the same: its few tests do not notice.
    assert survivors == ["HumanEval/10 operator", "HumanEval/40 constant", "HumanEval/40 operator"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_humaneval_plus_solutions_pass(grader: ProgramGrader, shared_data: Path) -> None:
    rows = humaneval_plus(shared_data)
    assert len(rows) == 164
    assert failures(grader, [(row["canonical_solution"], tests) for row, tests in rows]) == []


def test_few_inputs_break_the_contract(shared_data: Path) -> None:
    rows = {row["task_id"]: (row, tests) for row, tests in humaneval_plus(shared_data)}
    limits = Limits(wall_s=60, output_kib=4096)
    sandbox = require_sandbox()
    for name, counted, of in (("HumanEval/32", 826, 888), ("HumanEval/116", 729, 730)):
        row, tests = rows[name]
        assert len(row["base_input"] + row["plus_input"]) == of
        assert len(compute_reference(sandbox, tests, limits)) == of
        within = replace(tests, within_contract=True)
        assert len(compute_reference(sandbox, within, limits)) == counted


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_leetcode_solutions_pass_their_asserts(grader: ProgramGrader, shared_data: Path) -> None:
    rows = json.loads((shared_data / "code" / "leetcode_test_rllm.json").read_text())
    jobs = []
    for row in rows:
        check, _, call = row["tests"]["functional"].strip().rpartition("\n")
        name = call.removeprefix("check(Solution().").removesuffix(")")
        tests = ProgramTests(kind="check", entry_point=name, check=check)
        jobs.append((row["solutions"], tests))
    assert len(jobs) == 200
    ((name, reason, detail),) = failures(grader, jobs)
    assert (name, reason) == ("minimumDistance", "runtime_error")
    assert "No module named 'sortedcontainers'" in detail


def contest_tests(folder: Path) -> list[ProgramTests]:
    """Both layouts of files of programs that read standard input."""
    found = []
    for name in ("codeforces_test_rllm.json.gz", "code_contests_test_rllm.json.gz"):
        with gzip.open(folder / "code" / name, "rt", encoding="utf-8") as file:
            for row in json.load(file):
                tests = row["tests"]
                if isinstance(tests, dict):
                    pairs = zip(tests["inputs"], tests["outputs"], strict=True)
                    tests = [{"input": given, "output": wanted} for given, wanted in pairs]
                found.append(ProgramTests(kind="stdin", cases=tuple(tests)))
    return found


def test_real_contest_tests_tell_the_expected_output_from_others(
    grader: ProgramGrader, shared_data: Path
) -> None:
    problems = contest_tests(shared_data)
    assert len(problems) == 408 + 165
    chosen = [tests for tests in problems if len(tests.cases) < 20][::40]
    jobs = []
    for tests in chosen:
        known = {case["input"]: case["output"] for case in tests.cases}
        right = f"import sys\nprint({known!r}[sys.stdin.read()])"
        wrong = f"import sys\nprint({known!r}[sys.stdin.read()].strip() + '1')"
        jobs += [(right, tests), (wrong, tests), ("pass", tests)]
    passed = [result.passed for result in grader.grade(jobs)]
    assert passed == [True, False, False] * len(chosen)
