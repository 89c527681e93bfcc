"""Programs pass by their tests and by nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from promptcot.code_voting import make_task
from promptcot.verification.code_tests import CodeGrader, extract_python, outputs_match
from promptcot.verification.sandbox import find_sandbox

DOUBLE = [{"input": "2\n", "output": "4\n"}, {"input": "5\n", "output": "10\n"}]


@pytest.fixture(scope="module")
def grader() -> Iterator[CodeGrader]:
    if find_sandbox() is None:
        pytest.skip("bubblewrap does not work on this machine (user namespaces are forbidden?)")
    with CodeGrader(timeout_s=1, memory_limit_mib=256) as grader:
        yield grader


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("Here:\n```python\nprint(1)\n```\nDone.", "print(1)\n"),
        ("```python\nprint(1)\n```\nbetter:\n```py\nprint(2)\n```", "print(2)\n"),
        ("```python\nprint(1)\n```\nIt prints\n```text\n1\n```", "print(1)\n"),
        ("```Python\n\tprint(1)\n```", "\tprint(1)\n"),
        ("```python\nprint(1)\n", None),
        ("```\nprint(1)\n```", None),
        ("```cpp\nint main() {}\n```", None),
        ("1. So:\n   ```python\n   if 1:\n       print(1)\n\n   ```", "if 1:\n    print(1)\n\n"),
        ('```python title="a.py"\nprint(1)\n```', "print(1)\n"),
        ('````python\ns = """\n```\n"""\n````', 's = """\n```\n"""\n'),
        ("```print(0)```\n```python\nprint(1)\n```", "print(1)\n"),
        ("```python\n\n```", None),
        ("print(1)", None),
        ("", None),
    ],
)
def test_the_last_closed_python_block_is_the_program(text: str, program: str | None) -> None:
    assert extract_python(text) == program


def test_unlabelled_blocks_count_where_they_are_asked_for() -> None:
    text = "```\nprint(1)\n```\n```\nprint(2)\n```\n```text\n2\n```"
    assert extract_python(text, labels=("",)) == "print(2)\n"


def test_what_python_only_warns_about_is_worth_running() -> None:
    unknown_escape = "import re\nprint(re.findall('\\d+', input()))"
    assert make_task([f"```python\n{unknown_escape}\n```"], []).defects == [None]


def test_outputs_are_compared_by_words_and_lines() -> None:
    assert outputs_match("1 2\n3\n", " 1  2 \n3\n\n")
    assert outputs_match("a\r\nb", "a\nb")
    assert not outputs_match("1 2\n", "1\n2\n")
    assert not outputs_match("1\n", "")
    assert not outputs_match("10\n", "1 0\n")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("print(2 * int(input()))", "passed"),
        ("print(4)", "tests_failed"),
        ("pass", "tests_failed"),
        ("print(2 * int(input())", "syntax_error"),
        ("\x00", "syntax_error"),
        ("print(1 // 0)", "runtime_error"),
        ("import sys; sys.exit(0)", "tests_failed"),
        ("print(2 * int(input())); raise SystemExit(1)", "runtime_error"),
        ('print(\'passed\'); print(\'{"status": "ok", "stdout": "4"}\')', "tests_failed"),
        ("while True: pass", "timeout"),
        ("x = [0] * 10**9", "memory_limit"),
        ("while True: print('4' * 10**5)", "output_limit"),
        ("import os; os.kill(os.getppid(), 9)", "runtime_error"),
        ("import os; os.abort()", "crashed"),
    ],
)
def test_verdicts_name_their_reason(grader: CodeGrader, program: str, reason: str) -> None:
    (result,) = grader.grade([(program, DOUBLE)])
    assert (result.passed, result.reason) == (reason == "passed", reason)


def test_the_detail_says_which_test_failed_and_how(grader: CodeGrader) -> None:
    (result,) = grader.grade([("print(4)", DOUBLE)])
    assert result.detail == "test 2: expected '10', got '4'"


def test_a_program_without_tests_is_not_passed(grader: CodeGrader) -> None:
    assert grader.grade([("print(1)", [])])[0].reason == "no_tests"


def test_results_keep_the_order_of_the_programs(grader: CodeGrader) -> None:
    programs = [(f"print({n} * int(input()))", DOUBLE) for n in range(5)]
    assert [result.passed for result in grader.grade(programs)] == [n == 2 for n in range(5)]
