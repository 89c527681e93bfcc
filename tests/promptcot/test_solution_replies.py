"""Solution and test replies, and the vote over answers."""

from __future__ import annotations

import pytest

from pipeline.records import Domain, FinishReason, Problem
from pipeline.settings.synthesis import Form
from promptcot.engines.protocol import Answer
from promptcot.parsing import Defect, ProgramTest, Reply, parse_test
from promptcot.solutions import read_reply
from promptcot.verification.math_answers import MathGrader
from promptcot.voting import count_votes

BOXED = r"So the larger one is \boxed{12}."
THINK = "The two numbers are the roots of x^2 - 17x + 60, which are 5 and 12."


def problem(domain: Domain) -> Problem:
    return Problem(
        id="p", combination_id="c", concepts=["a", "b"], level="AMC12", domain=domain,
        rationale="r", statement="s", teacher="t", prompt_hash="h", seed=1,
    )  # fmt: skip


def read(
    text: str, domain: Domain = "math", *, form: Form = "free", finish: FinishReason = "stop"
) -> Reply | Defect:
    return read_reply(problem(domain), Answer(text, finish, 1, 1), form, min_thinking_chars=10)


@pytest.mark.parametrize(
    "text", [f"<think>{THINK}</think>{BOXED}", f"{THINK}\n</think>\n\n{BOXED}"]
)
def test_thinking_and_answer_are_taken_apart(text: str) -> None:
    assert read(text) == Reply(thinking=THINK, answer=BOXED)


def test_headings_become_thinking_and_boxed_answer() -> None:
    found = read(f"Reasoning: {THINK}\nAnswer: 12", form="constrained")
    assert isinstance(found, Reply)
    assert found.thinking == THINK
    assert "\\boxed{12}" in found.answer
    program = "Reasoning: Read both numbers and add them.\n```python\nprint(3)\n```"
    found = read(program, "code", form="constrained")
    assert found == Reply("Read both numbers and add them.", "```python\nprint(3)\n```")


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        (BOXED, "stop", "no_thinking"),
        ("", "stop", "no_thinking"),
        (f"<think></think>{BOXED}", "stop", "no_thinking"),
        (f"Hello <think>{THINK}</think>{BOXED}", "stop", "no_thinking"),
        (f"<think>{THINK}", "length", "unclosed_think"),
        (f"<think>{THINK}</think>", "stop", "empty_answer"),
        (f"<think>{THINK}</think>{BOXED}</think>{BOXED}", "stop", "two_think"),
        (f"<think>{THINK}<think>{THINK}</think>{BOXED}", "stop", "two_think"),
        (f"<think>{THINK}</think>{BOXED}", "length", "truncated"),
        (f"<think>{THINK}</think>It is 12.", "stop", "no_boxed"),
        (f"<think>{THINK} \\boxed{{12}}</think>It is 12.", "stop", "no_boxed"),
        (f"<think>Hm.</think>{BOXED}", "stop", "thinking_too_short"),
        (f"<think>{'wait and see what comes. ' * 30}</think>{BOXED}", "stop", "repetitive"),
    ],
)
def test_malformed_solutions_have_a_name(text: str, finish: FinishReason, reason: str) -> None:
    found = read(text, finish=finish)
    assert isinstance(found, Defect)
    assert found.reason == reason


@pytest.mark.parametrize(
    ("text", "domain", "reason"),
    [
        (f"{THINK}\nAnswer: 12", "math", "no_thinking"),
        (f"Reasoning: {THINK}", "math", "empty_answer"),
        (f"Reasoning: {THINK}\nAnswer: 1\nAnswer: 2", "math", "empty_answer"),
        (f"Reasoning: {THINK}\nAnswer:", "math", "empty_answer"),
        ("Reasoning:\nAnswer: 3", "math", "no_thinking"),
        (f"Reasoning: {THINK}\nAnswer: 12", "code", "no_code_block"),
    ],
)
def test_malformed_headings_have_a_name(text: str, domain: Domain, reason: str) -> None:
    found = read(text, domain, form="constrained")
    assert isinstance(found, Defect)
    assert found.reason == reason


def test_code_needs_a_python_block() -> None:
    found = read(f"<think>{THINK}</think>Use print(3).", "code")
    assert isinstance(found, Defect)
    assert found.reason == "no_code_block"


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ('I think {"x": 1}\n{"input": "2\\n", "output": "4"}', "free", ProgramTest("2\n", "4")),
        ('{"input": 2, "output": 4}', "free", None),
        ('{"input": "2", "output": ""}', "free", None),
        ('{"input": "2", "output": "4", "more": "x"}', "free", None),
        ("no test", "free", None),
        ("Input: 2\\n3 4\nOutput: 7", "constrained", ProgramTest("2\n3 4\n", "7\n")),
        ("Input: 2", "constrained", None),
    ],
)
def test_tests_are_read_strictly(text: str, form: Form, expected: ProgramTest | None) -> None:
    found = parse_test(text, "stop", form)
    assert (found if isinstance(found, ProgramTest) else None) == expected


def test_votes_use_mathematical_equality() -> None:
    with MathGrader(num_workers=1) as grader:
        first, second, third = count_votes(
            [["1/2", "0.5", None, "3"], ["1", "2"], [None]], grader.grade
        )
    assert first.winner == (0, 1)
    assert (first.num_votes, first.size_of(1), first.size_of(2), first.size_of(3)) == (3, 2, 0, 1)
    assert second.winner is None, "a tie has no majority"
    assert third.winner is None
