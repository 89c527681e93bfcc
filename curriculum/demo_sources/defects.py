"""Planted defects: what real rows of these sources are known to suffer from, one row each."""

from __future__ import annotations

from typing import Any

from curriculum.demo_sources.code_problems import CodeExample
from curriculum.demo_sources.math_problems import MathExample

Row = dict[str, Any]

COPIED_ITEM = (
    "Real numbers $u$ and $v$ satisfy $u + v = 9$ and $uv = 14$. Determine $u^3 + v^3$.",
    "Use u^3 + v^3 = (u + v)^3 - 3uv(u + v). Here this is 729 - 3 * 14 * 9 = 729 - 378 = 351.",
    "351",
)
"""Verbatim from the demo benchmark: decontamination must find it."""
WRAPPED_ITEM = (
    "Here is a puzzle from our maths circle; show your work. A town's street grid is 5 blocks wide "
    "from west to east and 4 blocks deep from south to north. How many shortest walks lead from "
    "its south-west corner to its north-east corner? Thank you for helping.",
    "A shortest walk has 5 moves east and 4 moves north in some order. Choose the places of the 4 "
    "moves north among 9: 9 * 8 * 7 * 6 / 24 = 126.",
    "126",
)
"""The same with other sentences around it."""


def code_defects(examples: list[CodeExample]) -> list[tuple[str, str]]:
    """(question, response) pairs of code rows that must be rejected."""
    a, b, c, d, e, f, g = (
        f"Task {number}: {example.question}" for number, example in enumerate(examples[:7])
    )
    thinking = examples[0].thinking
    program = "```python\nprint(input())\n```"
    return [
        (a, f"<think>\n{thinking}"),
        (b, f"<think>\n<think>\n{thinking}\n</think>\n</think>\n\n{program}"),
        (c, f"<think>\n{thinking}\n```python\nprint(1)\n```\n</think>\n\n{program}"),
        (d, f"<think>\n{thinking}\n</think>\n\n```python\nprint(input(\n```"),
        (e, f"<think>\n{thinking}\n</think>\n"),
        (f, f"<think>\n{thinking}\n</think>\n\n```python\nn = int(input())\nfor k in ra"),
        (g, f"<think>\n{thinking}\n</think>\n\nJust print the input."),
        ("", f"<think>\n{thinking}\n</think>\n\n{program}"),
    ]


def missing_opening_tag(example: CodeExample) -> str:
    """A response whose opening tag stayed in the prompt: accepted, the tag is supplied."""
    return example.response.removeprefix("<think>\n")


def turns(user: str | None, assistant: str | None, roles: tuple[str, str]) -> list[Row]:
    """A two-turn conversation."""
    return [{"from": roles[0], "value": user}, {"from": roles[1], "value": assistant}]


def math_response(thinking: str, answer: str) -> str:
    """A well-formed maths response."""
    return MathExample("", thinking, answer).response


def conversation_defects(example: MathExample) -> list[tuple[str | None, list[Row]]]:
    """(question, conversations) of maths rows that must be rejected."""
    roles = ("user", "assistant")
    good = math_response(example.thinking, example.answer)
    loop = "Wait, let me check this again. " * 60
    long = " ".join(f"Step {n}: add {n} and get {n * (n + 1) // 2}." for n in range(1, 90))
    pairs: list[tuple[str, str]] = [
        (
            "Find the value of 3 + 4 * 5 (plain answer).",
            "<think>\nFirst 4 * 5 = 20, then 23.\n</think>\n\nThe value is 23.",
        ),
        (
            "Find 2 + 6 * 7, with a cut answer.",
            "<think>\nFirst 6 * 7 = 42, then 44.\n</think>\n\nThe value is $\\boxed{4",
        ),
        ("Add the numbers from 1 to 89 one by one.", math_response(long, "4005")),
        ("Find 9 * 9 without losing patience.", math_response(loop, "81")),
        (
            "计算从一加到十的和，并写出最后的结果。",
            math_response(
                "我们把首尾两个数配对，每对的和是十一，一共五对，所以结果是五十五。", "55"
            ),
        ),
        ("Compute 8 * 8 with no reasoning at all.", "$\\boxed{64}$"),
        ("Print a great many digits of one third.", math_response("0." + "3" * 9000, "1/3")),
        (COPIED_ITEM[0], math_response(*COPIED_ITEM[1:])),
        (WRAPPED_ITEM[0], math_response(*WRAPPED_ITEM[1:])),
    ]
    rows: list[tuple[str | None, list[Row]]] = [
        (question, turns(question, response, roles)) for question, response in pairs
    ]
    three = [*turns(example.question, good, roles), {"from": "user", "value": "Thanks!"}]
    rows.append((example.question + " (with thanks)", three))
    rows.append((None, turns(None, good, roles)))
    rows.append(("Who speaks here, and what is 5 + 6?", turns("?", good, ("system", "assistant"))))
    return rows


def respelled(question: str) -> str:
    """The same question in other spacing, case and LaTeX."""
    text = question.replace("$", " $ ").replace("Find", "FIND").replace("\\ldots", "\\dots")
    return "  " + text.upper().replace("\\DOTS", "\\dots") + " \n"
