"""Answers are extracted from the answer part only and compared as mathematics."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptcot.verification.math_answers import MathGrader, normalise_answer, settle_by_text
from promptcot.verification.math_boxes import extract_boxed


def cpu_seconds(pid: int) -> float:
    """Of a process and its ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def grader() -> Iterator[MathGrader]:
    with MathGrader(num_workers=1, timeout_s=8) as grader:
        yield grader


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{42}.", "42"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{5} and \boxed{cut of", "5"),
        (r"\boxed{}", None),
        (r"\boxed{", None),
        ("the answer is 42", None),
        ("", None),
    ],
)
def test_the_last_balanced_box_is_the_answer(text: str, found: str | None) -> None:
    assert extract_boxed(text) == found


@given(st.text(alphabet="0123456789abc+-{} \\", max_size=30))
def test_extraction_never_fails_and_finds_only_what_is_there(text: str) -> None:
    found = extract_boxed("x \\boxed{" + text)
    assert found is None or found in text


@pytest.mark.parametrize(
    ("gold", "predicted", "equal"),
    [
        ("15", " 15 ", True),
        ("15", "16", False),
        ("073", "73", True),
        ("1,000", "1000", True),
        ("$7$", "7.", True),
        (r"\dfrac{1}{2}", r"\frac{1}{2}", True),
        (r"\text{East}", "East", True),
        ("15", "", False),
        ("3", "9" * 5000, False),
        ("x+1", "1+x", True),
        ("x+1", r"\int_0^x dt + 1", None),
        ("1/2", r"\frac{2}{4}", True),
        (r"-\frac{1}{2}", r"\frac{-1}{2}", True),
        ("1/2", "1/3", False),
        ("4/2", "2", True),
        ("2", "1/0", False),
        ("0.5", "1/2", True),
    ],
)
def test_texts_settle_what_they_can(gold: str, predicted: str, equal: bool | None) -> None:
    assert settle_by_text(gold, predicted) is equal


def test_notation_does_not_matter_but_value_does(grader: MathGrader) -> None:
    pairs = [
        (r"\frac{1}{2}", "0.5", True),
        (r"2\sqrt{3}", r"\sqrt{12}", True),
        ("x+1", "1+x", True),
        (r"\{1,2\}", "2, 1", True),
        ("5", "x=5", True),
        (r"\frac{1}{2}", r"\frac{1}{3}", False),
        ("(1,2)", "(2,1)", False),
        ("5", r"\frac{", False),
        ("5", "maybe five or six", False),
    ]
    found = grader.grade([(gold, predicted) for gold, predicted, _ in pairs])
    assert found == [equal for _, _, equal in pairs]


def test_grading_works_in_a_thread(grader: MathGrader) -> None:
    # Prefect runs tasks in threads, where math-verify itself refuses to work.
    verdicts: list[bool] = []
    thread = threading.Thread(target=lambda: verdicts.extend(grader.grade([("55", SUM)])))
    thread.start()
    thread.join()
    assert verdicts == [True]


SUM = r"\sum_{k=1}^{10} k"
"""Only math-verify can say that this is 55."""
NESTED = r"\frac{1}{" * 500 + "2" + "}" * 500
HOSTILE = {
    "python tower": "9**9**9**9",
    "tower": "9^{9^{9^{9}}}",
    "tower of tens": "10^{10^{10}}",
    "long sum": "+".join(["x"] * 5000),
    "nested fractions": NESTED,
    "nested fractions below the length limit": NESTED[1500:2600],
    "parentheses": "(" * 5000 + "1" + ")" * 5000,
    "fewer parentheses": "(" * 900 + "1" + ")" * 900,
    "factorial": "(10^9)!",
    "expansion": "(x+y+z+1)^{300}",
    "matrix": r"\begin{pmatrix}" + r"\\".join(["x&y&z"] * 60) + r"\end{pmatrix}",
    "product": r"\prod_{n=1}^{1000000}(1+\frac{1}{n^2})",
    "integral": r"\int_0^1 x^{x^{x^x}} dx",
    "subscripts": "a_{" * 400 + "1" + "}" * 400,
}


@pytest.fixture(scope="module")
def impatient() -> Iterator[MathGrader]:
    with MathGrader(num_workers=1, timeout_s=1) as grader:
        yield grader


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_bounded_in_time_and_hurts_no_other(
    name: str, impatient: MathGrader
) -> None:
    impatient.grade([("55", SUM)])
    (worker,) = impatient._idle.queue
    start = cpu_seconds(worker._process.pid)
    assert impatient.grade([("5/2", HOSTILE[name])]) == [False]
    assert cpu_seconds(worker._process.pid) - start < 3
    assert impatient.grade([("55", SUM), ("54", SUM)]) == [True, False]


def test_a_comparison_that_cannot_be_done_is_told_from_an_unequal_one(
    impatient: MathGrader,
) -> None:
    endless = r"\prod_{n=1}^{1000000}(1+\frac{1}{n^2})"
    found = impatient.compare([("5/2", endless), ("54", SUM), ("55", SUM)])
    assert found == [None, False, True]


def test_memory_of_one_comparison_is_limited() -> None:
    # The number has 375 MB; with the time for it, only the memory limit is in its way.
    with MathGrader(num_workers=1, timeout_s=60, memory_mib=300) as grader:
        pairs = [("5/2", r"\sum_{k=1}^{1} 2^{3\cdot 10^{9}}"), ("55", SUM)]
        assert grader.grade(pairs) == [False, True]


def test_a_worker_that_was_killed_is_replaced() -> None:
    with MathGrader(num_workers=1) as grader:
        assert grader.grade([("55", SUM)]) == [True]
        (worker,) = grader._idle.queue
        os.kill(worker._process.pid, signal.SIGKILL)
        assert grader.compare([("55", SUM)]) == [None]
        assert grader.compare([("55", SUM)]) == [True]


@given(st.integers(-999, 999), st.integers(1, 999), st.integers(-999, 999), st.integers(1, 999))
def test_plain_fractions_need_no_worker(a: int, b: int, c: int, d: int) -> None:
    equal = settle_by_text(rf"\frac{{{a}}}{{{b}}}", f"{c}/{d}")
    assert equal is (a * d == c * b)


@given(st.integers(-(10**9), 10**9))
def test_grouped_digits_are_the_same_number(number: int) -> None:
    assert normalise_answer(f"{number:,}") == normalise_answer(str(number)) == str(number)


def test_every_gold_answer_of_a_real_benchmark_equals_itself(
    shared_data: Path, grader: MathGrader
) -> None:
    lines = (shared_data / "benchmarks" / "math500_original.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in lines.splitlines()]
    boxed = [extract_boxed(row["solution"]) or "" for row in rows]
    assert all(grader.grade([(row["answer"], box) for row, box in zip(rows, boxed, strict=True)]))
    # Spaced differently, so that some need the worker.
    spread = [(row["answer"], row["answer"].replace("+", " + 0 + ")) for row in rows[:60]]
    assert all(grader.grade(spread))
