"""Programs pass official tests exactly when the benchmarks' own runners would let them."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation import code_grading as module
from evaluation.code_grading import MAX_PROGRAM_CHARS, ProgramGrader
from evaluation.code_grading_compare import (
    is_root,
    output_matches,
    parse_result,
    result_is_close,
    result_matches,
)
from evaluation.code_grading_reference import ReferenceResults
from evaluation.grading import AnswerGrader, ToGrade
from pipeline.benchmark_items import ProgramTests
from pipeline.benchmarks import load_benchmark
from pipeline.errors import SourceError
from pipeline.settings.benchmarks import BenchmarkSettings
from pipeline.settings.evaluation import EvaluationSettings
from pipeline.settings.recipe import Recipe, RecipeSettings
from promptcot.verification.plain_values import encode
from promptcot.verification.sandbox import Sandbox, find_sandbox


@pytest.fixture(scope="module")
def grader() -> Iterator[ProgramGrader]:
    if find_sandbox() is None:
        pytest.skip("bubblewrap does not work on this machine (user namespaces are forbidden?)")
    with ProgramGrader(timeout_s=1, memory_limit_mib=512) as grader:
        yield grader


def stdin_tests(*cases: tuple[str, str]) -> ProgramTests:
    pairs = tuple({"input": given, "output": wanted} for given, wanted in cases)
    return ProgramTests(kind="stdin", cases=pairs)


def functional_tests(name: str, *cases: tuple[str, str]) -> ProgramTests:
    pairs = tuple({"input": given, "output": wanted} for given, wanted in cases)
    return ProgramTests(kind="functional", entry_point=name, cases=pairs)


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ("1 2\n3\n", "\n1 2  \n 3\n\n\n", True),
        ("1\r\n2", "1\n2\n", True),
        ("1 2", "1  2", True),  # as decimals
        ("a b", "a  b", False),  # as texts
        ("1.0", "1.00", True),
        ("1e3", "1000", True),
        ("0.1", "0.1000001", False),
        ("50000000000000000", "50000000000000001", False),
        ("Yes", "YES", False),
        ("1\n\n2", "1\n2", False),
        ("1 2\n", "1\n2\n", False),
        ("", "\n", True),
        ("1", "", False),
        ("nan", "sNaN", False),
    ],
)
def test_outputs_are_compared_as_livecodebench_does(expected: str, found: str, same: bool) -> None:
    assert output_matches(expected, found) is same


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ([1, 2], (1, 2), True),
        ([[1, 2]], [(1, 2)], False),
        (2, 2.0, True),
        (1, True, True),
        (0.3, 0.1 + 0.2, False),
        ("1", 1, False),
        (None, 0, False),
        ([], None, False),
    ],
)
def test_results_are_compared_as_livecodebench_does(expected: Any, found: Any, same: bool) -> None:
    assert result_matches(parse_result(encode(expected)), parse_result(encode(found))) is same


@pytest.mark.parametrize(
    ("expected", "found", "atol", "same"),
    [
        (1.0, 1.0000005, 0.0, True),
        ([1.0, 2.0], [1.0, 2.0000005], 0.0, True),
        ([1.0, 2.0], (1.0, 2.0000005), 0.0, False),
        ([1.0, 2.0], [1.0], 0.0, False),
        ([1, 2.0], [1, 2.0000005], 0.0, False),
        (1.0, 1.1, 0.0, False),
        (1.0, 1.0005, 1e-3, True),
        (3, 3.0, 0.0, True),
        (3, 3.0000001, 1e-3, False),
        ((1, 2), [1, 2], 0.0, False),
        ({1, 2}, frozenset({2, 1.0}), 0.0, True),
        ({1: [1], "a": 2}, {"a": 2.0, 1.0: [True]}, 0.0, True),
        ({1: 2}, {1: 3}, 0.0, False),
        (float("inf"), float("inf"), 0.0, True),
        (float("nan"), float("nan"), 0.0, False),
        (1.0, "1.0", 1e-3, False),
        ([1.0, None], [1.0, None], 1e-3, True),
        (1.0, 10**400, 1e-3, False),
    ],
)
def test_results_are_compared_as_evalplus_does(
    expected: Any, found: Any, atol: float, same: bool
) -> None:
    trees = parse_result(encode(expected)), parse_result(encode(found))
    assert result_is_close(*trees, atol) is same


def test_integers_of_any_length_are_compared() -> None:
    expected = parse_result(encode(10**5000))
    assert result_matches(expected, parse_result(encode(10**5000)))
    assert not result_matches(expected, parse_result(encode(10**5000 + 1)))


def test_large_results_are_compared_by_digests_that_equal_values_share() -> None:
    whole = parse_result(encode([1, 2, True] * 100))
    digest = parse_result(encode([1.0, 2, 1] * 100, digest_over=100))
    assert set(digest) == {"digest"}
    assert result_is_close(digest, whole, 0.0)
    assert not result_is_close(digest, parse_result(encode([1, 2, 2] * 100)), 0.0)
    floats = [0.5] * 100
    assert parse_result(encode(floats, digest_over=100)) == floats


def test_any_root_of_the_polynomial_is_right() -> None:
    assert is_root([-6, 11, -6, 1], 2.00001, 1e-4)
    assert not is_root([-6, 11, -6, 1], 2.5, 1e-4)
    assert not is_root([-6, 11, -6, 1], None, 1e-4)
    assert not is_root([-6, 11, -6, 1], float("nan"), 1e-4)
    assert not is_root([1, 1, 1, 1], 1e300, 1e-4)


@pytest.mark.parametrize(
    "text",
    ['{"int":"x"}', '{"a":1}', '{"int":1}', '{"dict":[1]}', "{}", "", "[" * 100_000, '{"tuple":1}'],
)
def test_a_damaged_result_is_no_result(text: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parse_result(text)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("print(sum(map(int, input().split())))", "passed"),
        ("from __future__ import annotations\nx: List[int] = []\nprint(sum(map(int, stdin.read().split())))",
         "passed"),
        ("def main():\n  print(sum(map(int, input().split())))\nif __name__ == '__main__': main()",
         "passed"),
        ("import numpy as np\nprint(np.array(input().split(), dtype=int).sum())", "passed"),
        ("print(3)", "tests_failed"),
        ("print(int(input()))", "runtime_error"),
        ("print(", "syntax_error"),
        ("while True: pass", "timeout"),
    ],
)  # fmt: skip
def test_programs_that_read_standard_input(
    grader: ProgramGrader, program: str, reason: str
) -> None:
    (result,) = grader.grade([(program, stdin_tests(("1 2\n", "3\n"), ("2 3\n", "5.0")))])
    assert result.reason == reason
    assert result.passed is (reason == "passed")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("class Solution:\n  def f(self, a: List[int], b: int) -> List[int]:\n"
         "    return [x + b for x in a]", "passed"),
        ("def f(a, b):\n  print('debugging')\n  return tuple(x + b for x in a)", "passed"),
        ("f = lambda a, b: [x + b for x in a]", "passed"),
        ("def f(a, b):\n  a.clear()\n  return [3, 4]", "tests_failed"),
        ("def f(a, b):\n  return (x + b for x in a)", "tests_failed"),
        ("def g(a, b):\n  return []", "runtime_error"),
        ("class Solution:\n  def f(self):\n    return []", "runtime_error"),
        ("def f(a, b) return", "syntax_error"),
        ("def f(a, b):\n  while True: pass", "timeout"),
        ("def f(a, b):\n  return [0] * 10**9", "memory_limit"),
        ("def f(a, b):\n  return 'x' * (20 << 20)", "output_limit"),
    ],
)  # fmt: skip
def test_functions_that_are_called_with_json_arguments(
    grader: ProgramGrader, program: str, reason: str
) -> None:
    tests = functional_tests("f", ("[1, 2]\n2", "[3, 4]"), ("[]\n0", "[]"), ("[-5]\n1", "[-4]"))
    (result,) = grader.grade([(program, tests)])
    assert result.reason == reason


def test_the_failing_test_is_named(grader: ProgramGrader) -> None:
    tests = functional_tests("f", ("1", "1"), ("2", "4"))
    (result,) = grader.grade([("def f(n): return n", tests)])
    assert result.detail == "test 2: expected '4', got '2'"


PROMPT = '''import math
from typing import List

def helper(n: int) -> int:
    return n + 1

def area(r: float, more: List[float]) -> float:
    """Area of a circle."""
'''
CHECK = """
def check(candidate):
    assert candidate(1.0, []) == math.pi
    assert candidate(r=2, more=[1]) == 4 * math.pi, "two"
    assert area(0, []) == 0 and helper(1) == 2
"""


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("    return math.pi * r * r\n", "passed"),
        ("def area(r: float, more: List[float]) -> float:\n    return math.pi * r * r", "passed"),
        (PROMPT + "    return math.pi * r * r", "passed"),
        ("def area(r, more):\n    return math.pi * r * (helper(r) - 1)", "passed"),
        ("def area(r, more):\n    return 3.14 * r * r", "tests_failed"),
        ("def circle(r, more):\n    return math.pi * r * r", "tests_failed"),
        ("def area(r, more):\n    raise AssertionError", "runtime_error"),
        ("return math.pi * r * r", "syntax_error"),
        ("", "tests_failed"),
        ("  ) what", "syntax_error"),
    ],
)
def test_humaneval_answers_complete_or_restate_the_prompt(
    grader: ProgramGrader, program: str, reason: str
) -> None:
    tests = ProgramTests(kind="check", entry_point="area", prompt=PROMPT, check=CHECK)
    (result,) = grader.grade([(program, tests)])
    assert result.reason == reason, result


def reference_tests(**changes: Any) -> ProgramTests:
    prompt = 'def half(n):\n    """Half of it."""\n'
    fields: dict[str, Any] = {
        "prompt": prompt,
        "reference": prompt + "    return n / 2\n",
        "contract": "    assert n >= 0\n",
        "inputs": "[[1], [2], [3], [-1]]",
    }
    return ProgramTests(kind="reference", entry_point="half", **(fields | changes))


@pytest.mark.parametrize(
    ("program", "passed"),
    [
        ("    return n * 0.5", True),
        ("def half(n):\n    return n / 2 + 1e-8", True),
        ("def half(n):\n    return n // 2", False),
        ("    pass", False),
    ],
)
def test_humaneval_plus_answers_agree_with_the_reference(
    grader: ProgramGrader, program: str, passed: bool
) -> None:
    (result,) = grader.grade([(program, reference_tests())])
    assert result.passed is passed, result


def test_inputs_that_break_the_contract_count_unless_the_settings_say_otherwise(
    grader: ProgramGrader,
) -> None:
    program = "def half(n):\n    return abs(n) / 2"  # differs where the contract is broken
    jobs = [(program, reference_tests(within_contract=within)) for within in (False, True)]
    assert [result.passed for result in grader.grade(jobs)] == [False, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "def half(n: return"}, "reference of 'half' does not load"),
        ({"reference": "def half(n):\n    return 1 / (n - 2)"}, "input 2 has no result"),
        ({"inputs": "[[1"}, "not valid JSON"),
        ({"inputs": "[1]"}, "argument lists"),
        ({"inputs": "[[-1]]", "within_contract": True}, "0 of 0 inputs"),
    ],
)
def test_a_broken_reference_is_an_error_not_a_verdict(
    grader: ProgramGrader, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        grader.grade([("    return n / 2", reference_tests(**changes))])


def test_a_broken_check_is_an_error_not_a_verdict(grader: ProgramGrader) -> None:
    tests = ProgramTests(kind="check", entry_point="f", check="def check(candidate) assert")
    with pytest.raises(SourceError, match="check of 'f' does not load"):
        grader.grade([("def f(): pass", tests)])


def test_nothing_to_hold_a_program_against_is_no_pass(grader: ProgramGrader) -> None:
    results = grader.grade([("print(1)", stdin_tests()), ("def f(): pass", functional_tests("f"))])
    assert [result.reason for result in results] == ["no_tests", "no_tests"]


def test_an_endless_answer_is_refused_unread(grader: ProgramGrader) -> None:
    huge = "#" * (100 << 20)
    results = grader.grade([(huge, stdin_tests(("", ""))), ("", stdin_tests(("", "")))])
    assert [result.reason for result in results] == ["too_long", "passed"]
    (result,) = grader.grade([("(" * (MAX_PROGRAM_CHARS - 1), stdin_tests(("", "")))])
    assert not result.passed


def test_the_kept_reference_results_are_bounded_and_computed_once() -> None:
    kept = ReferenceResults(max_problems=2)
    asked: list[str] = []

    def compute(key: str) -> Any:
        return kept.get(key, lambda: asked.append(key) or ())  # type: ignore[func-returns-value]

    for key in ("a", "b", "a", "c", "a", "b"):
        compute(key)
    assert asked == ["a", "b", "c", "b"]

    def fail() -> Any:
        raise SourceError("broken", hint="mend it")

    with pytest.raises(SourceError):
        kept.get("d", fail)
    assert kept.get("d", lambda: ()) == ()


@pytest.mark.parametrize("kind", ["check", "functional", "reference", "stdin"])
def test_random_numbers_are_the_same_each_time(grader: ProgramGrader, kind: str) -> None:
    draw = "import random\ndef f():\n    return random.random()\n"
    check = "import random\ndef check(candidate):\n    assert random.random() == candidate(), ''\n"
    case = ({"input": "", "output": "0"},)
    tests = {
        "check": ProgramTests(kind="check", entry_point="f", check=check),
        "functional": functional_tests("f", ("", "0")),
        "reference": ProgramTests(kind="reference", entry_point="f", reference=draw, inputs="[[]]"),
        "stdin": ProgramTests(kind="stdin", cases=case),
    }[kind]
    program = draw + "\nif __name__ == '__main__': print(f())"
    first, second = grader.grade([(program, tests)] * 2)
    assert first == second
    assert first.passed is (kind in ("check", "reference"))


def test_cases_are_read_when_their_turn_comes(grader: ProgramGrader) -> None:
    served: list[int] = []

    class Cases(list[dict[str, str]]):
        def __iter__(self) -> Iterator[dict[str, str]]:
            for number in range(100):
                served.append(number)
                yield {"input": str(number), "output": str(min(number, 3))}

    tests = ProgramTests(kind="stdin", cases=Cases())
    (result,) = grader.grade([("print(input())", tests)])
    assert result.detail == "test 5: expected '3', got '4'"
    assert served == [0, 1, 2, 3, 4]


def test_verdicts_are_the_same_without_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Sandbox(prefix=())
    monkeypatch.setattr(module, "require_sandbox", lambda *, allow_unsandboxed: bare)
    check = ProgramTests(kind="check", entry_point="area", prompt=PROMPT, check=CHECK)
    jobs = [
        ("print(np.sum([1]))", stdin_tests(("", "1"))),
        ("import numpy as np\nprint(np.sum([1]))", stdin_tests(("", "1"))),
        ("def f(a): return heappop(a)", functional_tests("f", ("[1, 2]", "1"))),
        ("    return math.pi * r * r", check),
        ("    return n / 2", reference_tests()),
        ("    return n / 3", reference_tests()),
    ]
    with ProgramGrader(allow_unsandboxed=True) as grader:
        passed = [result.passed for result in grader.grade(jobs)]
    assert passed == [False, True, True, True, True, False]


def lcb_row(number: int, tests: list[tuple[str, str]], function: str) -> dict[str, str]:
    """A row as LiveCodeBench publishes it: one public test, the others packed."""
    kind = "functional" if function else "stdin"
    cases = [{"input": given, "output": wanted, "testtype": kind} for given, wanted in tests]
    packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases[1:])))).decode()
    return {
        "question_title": "",
        "question_content": "?",
        "platform": "leetcode" if function else "atcoder",
        "question_id": str(number),
        "contest_id": "",
        "contest_date": "2024-10-05T00:00:00",
        "starter_code": "class Solution:\n    def merge(self, a):\n" if function else "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(cases[:1]),
        "private_test_cases": packed,
        "metadata": json.dumps({"func_name": function} if function else {}),
    }


def test_livecodebench_rows_are_graded_from_file_to_verdict(tmp_path: Path) -> None:
    if find_sandbox() is None:
        pytest.skip("bubblewrap does not work on this machine (user namespaces are forbidden?)")
    rows = [
        lcb_row(1, [("3\n", "0.5\n"), ("4\n", "0.250\n")], ""),
        lcb_row(2, [("[[1,2],[2,3]]", "[[1,3]]"), ("[]", "[]")], "merge"),
    ]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    fields = {"expected_items": 0, "ids_sha256": "", "files_sha256": {}, "path": str(path)}
    settings = BenchmarkSettings.model_validate({"use": "livecodebench_v5", **fields})
    whole = RecipeSettings(name="r", benchmarks=(settings,))
    halving, merging = load_benchmark(Recipe(path=tmp_path / "r.toml", settings=whole), settings)
    halves = "for _ in stdin: print(2 ** (2 - int(_)))"
    merge = """
class Solution:
    def merge(self, a: List[List[int]]) -> List[List[int]]:
        heapify(a)
        ends = deque()
        while a:
            low, high = heappop(a)
            if ends and ends[-1][1] >= low:
                ends[-1][1] = max(ends[-1][1], high)
            else:
                ends.append([low, high])
        return list(ends)
"""
    answers = [
        (halving, halves, "correct"),
        (halving, halves.replace("2 **", "4 **"), "tests_failed"),
        (merging, merge, "correct"),
        (merging, merge.replace("list(ends)", "tuple(ends)"), "correct"),
        (merging, merge.replace("list(ends)", "list(map(tuple, ends))"), "tests_failed"),
    ]
    entries = [
        ToGrade(item=item, answer=f"So:\n```python\n{program}\n```") for item, program, _ in answers
    ]
    with AnswerGrader(EvaluationSettings(), has_code=True) as graders:
        reasons = [grade.reason for grade in graders.grade(entries)]
    assert reasons == [reason for _, _, reason in answers]
