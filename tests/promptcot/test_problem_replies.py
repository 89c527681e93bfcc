"""Problem replies: what is taken, and the name of every reason to refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Domain, FinishReason
from pipeline.settings.synthesis import Form, ProblemSettings
from promptcot.parsing import Defect, ProblemText, parse_problem
from promptcot.statement_checks import StatementContext, check_problem

WHY = "Two numbers with a known sum and product lead to a quadratic equation."
ASK = "Two positive integers have the sum 17 and the product 60. What is the larger of the two?"
R, R2 = "<!-- BEGIN RATIONALE -->", "<!-- END RATIONALE -->"
P, P2 = "<!-- BEGIN PROBLEM -->", "<!-- END PROBLEM -->"
GOOD = f"{R}\n{WHY}\n{R2}\n{P}\n{ASK}\n{P2}"


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (GOOD, "free"),
        (f"Sure!\n{GOOD}\nDone.", "free"),
        (f"<think>{P}no{P2}</think>\n{GOOD}", "free"),
        (f"Rationale: {WHY}\nProblem: {ASK}", "constrained"),
    ],
)
def test_good_replies_are_taken(text: str, form: Form) -> None:
    assert parse_problem(text, "stop", form) == ProblemText(rationale=WHY, statement=ASK)


@pytest.mark.parametrize(
    ("text", "finish", "form", "reason"),
    [
        ("", "stop", "free", "empty"),
        ("  \n", "stop", "constrained", "empty"),
        ("<think>still at it", "length", "free", "truncated"),
        (GOOD, "length", "free", "truncated"),
        (GOOD, "error", "free", "failed"),
        (f"{P}{ASK}{P2}", "stop", "free", "missing_rationale"),
        (f"{R}{WHY}{R2}", "stop", "free", "missing_problem"),
        (f"{R}{WHY}{R2}{P}{ASK}", "stop", "free", "missing_problem"),
        (f"{P}{ASK}{P2}{R}{WHY}{R2}", "stop", "free", "missing_problem"),
        (f"{GOOD}{P}{ASK}{P2}", "stop", "free", "two_problems"),
        (f"{R}{R2}{P}{ASK}{P2}", "stop", "free", "empty"),
        (f"{R}{WHY}{R2}{P} {P2}", "stop", "free", "empty"),
        (f"Problem: {ASK}", "stop", "constrained", "missing_rationale"),
        (f"Rationale: {WHY}", "stop", "constrained", "missing_problem"),
        (f"Rationale: {WHY}\nProblem: {ASK}\nProblem: x", "stop", "constrained", "two_problems"),
        (f"Problem: {ASK}\nRationale: {WHY}", "stop", "constrained", "missing_rationale"),
        (f"Rationale: {WHY}\nProblem:", "stop", "constrained", "empty"),
    ],
)
def test_bad_form_has_a_name(text: str, finish: FinishReason, form: Form, reason: str) -> None:
    found = parse_problem(text, finish, form)
    assert isinstance(found, Defect)
    assert found.reason == reason


@given(st.text(max_size=80), st.sampled_from(["free", "constrained"]))
def test_any_text_gives_two_filled_parts_or_a_reason(text: str, form: Form) -> None:
    found = parse_problem(text, "stop", form)
    if isinstance(found, ProblemText):
        assert found.rationale.strip()
        assert found.statement.strip()
    else:
        assert found.reason


def reason_of(statement: str, domain: Domain = "math", *, rationale: str = WHY) -> str | None:
    context = StatementContext(
        domain=domain,
        settings=ProblemSettings(max_statement_chars=600),
        examples=["A farmer has 30 hens and 12 cows on his large farm. How many legs are there?"],
    )
    defect = check_problem(ProblemText(rationale=rationale, statement=statement), context)
    return defect.reason if defect else None


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (ASK, None),
        ("Let n be a positive integer with n^2 + n = 240. Determine the value of n exactly.", None),
        ("What is 2?", "too_short"),
        (
            "How many are there? " + "It is a very long story about a great many numbers. " * 20,
            "too_long",
        ),
        (
            "Une suite commence avec trois nombres entiers positifs; quelle est leur somme totale?",
            "not_english",
        ),
        (
            "有两个正整数它们的和是十七而且它们的乘积是六十请问其中较大的那个数是多少呢请给出答案? 好的吗请回答一下谢谢你",
            "not_english",
        ),
        (
            "It adds one more to it. It adds one more to it. It adds one more to it. What is it?",
            "repetitive",
        ),
        (
            "In the figure below, a square and a circle of radius 3 touch. What is the area?",
            "not_self_contained",
        ),
        (
            "Using the previous problem, double the number of apples. How many apples are there?",
            "not_self_contained",
        ),
        (
            "Two numbers have the sum 17. Answer: 12. What is the larger of the two numbers?",
            "answer_in_statement",
        ),
        (
            "The sum of two numbers is 17, so the answer is 12. What is the larger of them?",
            "answer_in_statement",
        ),
        (
            "(a) Find the sum of the first ten odd numbers. (b) Find the sum of the next ten.",
            "multi_part",
        ),
        (
            "A train goes 60 km in one hour. How far does it go in 3 hours? How fast is it?",
            "multi_part",
        ),
        (
            "Let n be an odd integer. Prove that the square of n is of the form 8k + 1 for some k.",
            "proof_only",
        ),
        (
            "Can you prove that the sum of two odd numbers is always an even number in the end?",
            "proof_only",
        ),
        (
            "There are two numbers with the sum 17 and the product 60, and both are positive.",
            "asks_nothing",
        ),
        (
            "A farmer has 30 hens and 12 cows on his large farm. How many legs are there in all?",
            "copies_example",
        ),
    ],
)
def test_bad_statement_has_a_name(statement: str, reason: str | None) -> None:
    assert reason_of(statement) == reason


def test_code_statements_and_rationales() -> None:
    task = "A line holds n numbers in some order. Read n and the numbers; print the largest one."
    assert reason_of(task, "code") is None
    assert (
        reason_of("The numbers of a list are in the order in which they came to us.", "code")
        == "asks_nothing"
    )
    assert reason_of(ASK, rationale="Because.") == "too_short"
    assert reason_of(ASK, rationale="so it is so it is " * 20) == "repetitive"
