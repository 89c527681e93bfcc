"""The compiled levelling of questions against the patterns that define it."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.questions import question_key, question_keys

_MACROS = (
    r"\dfrac \tfrac \frac \left \right \big \bigl \bigr \bigx \displaystyle \( \) \[ \] \dots \cdots "
    r"\ldots \dotsx \le \leq \ge \geq \neq \ne \leqslant \, \; \: \! \quad \quads ~ \text \mathrm "
    r"\textrm \mbox \textbf $ _ ^ { } {a} _{1} ^{n} {12} 1 2 3 . ? x Y \ # é ﬁ"
)
_PIECES = st.sampled_from(
    [
        *_MACROS.split(),
        " ",
        "\n",
        "\t",
        "\x1c",
        "\x00",
        "\\ ",
        "think step by step and put your final answer within \\boxed{}.",
        "Return your final response within \\boxed{}.",
    ]
)


@given(st.lists(st.lists(_PIECES, max_size=12).map("".join), max_size=6))
@example([""])
@example(["2 3?", "23", "\\\\left(", "\\dfrac12", "\\\\dots"])
@settings(max_examples=400, deadline=None)
def test_many_keys_are_those_of_each_question(texts: list[str]) -> None:
    assert question_keys(texts) == [question_key(text) for text in texts]


def test_spellings_are_one_question_and_numbers_apart_are_two() -> None:
    first, second, third, other = question_keys(
        [
            "Find $\\dfrac{a}{b}$ for $x \\leq 3$?",
            "find \\frac{a}{b} for  x\\le 3",
            "Find $\\left. \\tfrac ab$",
            "Find 2 3",
        ]
    )
    assert first == second
    assert len({first, third, other, question_keys(["Find 23"])[0]}) == 4
