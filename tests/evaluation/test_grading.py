"""Only what follows the thinking counts, and nothing is guessed from it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from evaluation.grading import AnswerGrader, ToGrade, split_answer, split_completion
from pipeline.benchmark_items import BenchmarkItem, MathGold, ProgramTests
from pipeline.errors import SandboxError
from pipeline.settings.evaluation import EvaluationSettings
from promptcot.verification import sandbox

SETTINGS = EvaluationSettings(code_timeout_s=2, memory_limit_mib=256)
MATH = BenchmarkItem(id="m", benchmark="b", domain="math", question="?", gold=MathGold(text="42"))
CODE = BenchmarkItem(
    id="c",
    benchmark="b",
    domain="code",
    question="?",
    tests=ProgramTests(kind="stdin", cases=({"input": "2\n", "output": "4\n"},)),
)


@pytest.fixture(scope="module")
def grader() -> Iterator[AnswerGrader]:
    if sandbox.find_sandbox() is None:
        pytest.skip("bubblewrap does not work on this machine (user namespaces are forbidden?)")
    with AnswerGrader(SETTINGS, has_code=True) as grader:
        yield grader


@pytest.mark.parametrize(
    ("text", "truncated", "reason"),
    [
        (r"6 * 7</think> It is \boxed{42}.", False, "correct"),
        (r"6 * 7</think> It is \boxed{42} and", True, "correct"),
        (r"6 * 7</think> It is \boxed{41}.", False, "wrong"),
        ("6 * 7</think> It is 42.", False, "no_answer"),
        (r"so \boxed{42}", False, "no_answer"),
        (r"so \boxed{42}", True, "truncated"),
        ("6 * 7</think> The answer", True, "truncated"),
        (r"\boxed{42}</think> I do not know.", False, "no_answer"),
        ("", False, "no_answer"),
    ],
)
def test_maths_wants_a_box_after_the_thought(
    grader: AnswerGrader, text: str, truncated: bool, reason: str
) -> None:
    answer = split_completion(text)[1]
    (grade,) = grader.grade([ToGrade(item=MATH, answer=answer, truncated=truncated)])
    assert (grade.reason, grade.correct) == (reason, reason == "correct")


@pytest.mark.parametrize(
    ("text", "truncated", "reason"),
    [
        ("easy</think>\n```python\nprint(2 * int(input()))\n```", False, "correct"),
        ("easy</think>\n```python\nprint(5)\n```", False, "tests_failed"),
        ("easy</think>\nprint(4)", False, "no_code"),
        ("easy</think>\n```python\nprint(2 *", True, "truncated"),
        ("```python\nprint(4)\n```", True, "truncated"),
        ("```python\nprint(4)\n```</think> done", False, "no_code"),
    ],
)
def test_code_wants_a_block_after_the_thought(
    grader: AnswerGrader, text: str, truncated: bool, reason: str
) -> None:
    answer = split_completion(text)[1]
    (grade,) = grader.grade([ToGrade(item=CODE, answer=answer, truncated=truncated)])
    assert (grade.reason, grade.correct) == (reason, reason == "correct")


def test_mixed_answers_keep_their_order(grader: AnswerGrader) -> None:
    program = "```python\nprint(4)\n```"
    entries = [
        ToGrade(item=CODE, answer=program),
        ToGrade(item=MATH, answer=r"\boxed{1}"),
        ToGrade(item=CODE, answer=None),
        ToGrade(item=MATH, answer=r"\boxed{42}"),
    ]
    reasons = [grade.reason for grade in grader.grade(entries)]
    assert reasons == ["correct", "wrong", "no_code", "correct"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a</think> b", "b"),
        ("a</think> b <think> c</think> d", "b  d"),
        (r"a</think> \boxed{1} <think> wait, \boxed{42}", None),
        ("a", None),
        (r"a</think> \boxed{42}</think>", r"\boxed{42}</think>"),
    ],
)
def test_a_thought_within_the_answer_is_no_answer(text: str, answer: str | None) -> None:
    assert split_completion(text)[1] == answer
    assert split_answer("<think>" + text) == answer


def test_a_huge_answer_is_refused_unread_and_disturbs_no_other() -> None:
    huge = "\\boxed{" * 200_000
    with AnswerGrader(SETTINGS, has_code=False) as grader:
        grades = grader.grade(
            [
                ToGrade(item=MATH, answer=huge),
                ToGrade(item=MATH, answer=r"\boxed{42}"),
                ToGrade(item=MATH, answer=r"\boxed{" + "4" * 900_000 + "}"),
            ]
        )
    assert [grade.reason for grade in grades] == ["too_long", "correct", "wrong"]
    assert grades[2].extracted is not None and len(grades[2].extracted) <= 2000


def test_items_with_several_answers_want_all_of_them() -> None:
    gold = MathGold(text="1, 3", parts=("1", "3"))
    item = BenchmarkItem(id="m", benchmark="b", domain="math", question="?", gold=gold)
    answers = [r"$\boxed{3}$ or $\boxed{1}$", r"\boxed{1,3}", r"\boxed{3}", r"\boxed{1,3,5}"]
    with AnswerGrader(SETTINGS, has_code=False) as grader:
        grades = grader.grade([ToGrade(item=item, answer=answer) for answer in answers])
    assert [grade.correct for grade in grades] == [True, True, False, False]
    assert grades[0].extracted == "3, 1"


def test_other_models_answers_may_come_with_or_without_thinking() -> None:
    assert split_answer("<think>x</think> y") == "y"
    assert split_answer("x</think> y") == "y"
    assert split_answer(" y ") == "y"
    assert split_answer("<think>never ends") is None


def test_a_cut_text_without_tags_may_be_a_thought_that_the_template_opened() -> None:
    assert split_answer("So it may be \\boxed{1}, but", is_cut=True) is None
    assert split_answer("x</think> \\boxed{2} as", is_cut=True) == "\\boxed{2} as"


def test_code_is_refused_before_anything_is_sampled_where_no_sandbox_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "_binaries", list)
    sandbox._search.cache_clear()
    try:
        with pytest.raises(SandboxError):
            AnswerGrader(SETTINGS, has_code=True)
        AnswerGrader(SETTINGS, has_code=False).__exit__(None, None, None)
    finally:
        sandbox._search.cache_clear()
