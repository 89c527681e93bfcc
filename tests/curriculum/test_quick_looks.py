"""Rows that a quick look clears never break the rule that it looks for."""

from __future__ import annotations

import re

from curriculum_rows import prepared_row
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.languages import find_foreign_language
from curriculum.measure import Measured, measure_rows
from curriculum.quick_looks import look_at
from curriculum.validate import check_repetition, read_blocks
from pipeline.settings.validation import ValidationSettings
from pipeline.student import CODE_INSTRUCTION

_SETTINGS = ValidationSettings()
_WORDS = st.sampled_from(
    "the of is find number la que los para der und ist 数 学 число × π 𝔸 😀 é \x1c \n a b".split(  # noqa: SIM905
        " "
    )
)
_TEXTS = st.lists(_WORDS, max_size=120).map(" ".join)
_LOOPS = st.tuples(st.lists(_WORDS, min_size=1, max_size=5), st.integers(1, 90)).map(
    lambda pair: " ".join(pair[0] * pair[1])
)


@given(st.lists(st.tuples(_TEXTS | _LOOPS, _TEXTS | _LOOPS, _TEXTS | _LOOPS), max_size=4))
@settings(max_examples=150, deadline=None)
def test_what_is_cleared_breaks_no_rule(texts: list[tuple[str, str, str]]) -> None:
    rows = [prepared_row(question=q, thinking=t, answer=a) for q, t, a in texts]
    for row, look in zip(rows, look_at(rows, _SETTINGS), strict=True):
        if not look.may_be_foreign:
            for text in (row.question, row.thinking):
                assert find_foreign_language(text, _SETTINGS.max_foreign_share) is None
        if not look.may_repeat:
            found = check_repetition(row, _SETTINGS)
            assert found is None or "times" in found[1]


def test_an_ordinary_row_is_cleared() -> None:
    numbers = " ".join(f"{n} {n + 1000}" for n in range(200))
    thinking = f"We find that this is the number of sets, so I list them: {numbers}"
    row = prepared_row(
        question="Find the number of sets in it.",
        thinking=thinking,
        answer="It is four.",
    )
    (look,) = look_at([row], _SETTINGS)
    assert not look.may_be_foreign
    assert not look.may_repeat


@given(
    st.lists(
        st.sampled_from(["```", "```python", "``` py", "```PY", " ", "\t", "\n", "x", "`"]),
        max_size=14,
    ).map("".join)
)
@settings(max_examples=300, deadline=None)
def test_python_is_found_wherever_its_fence_stands(answer: str) -> None:
    row = prepared_row(question="Write it.", thinking="", answer=answer)
    code = row.candidate._replace(code_rule="lenient", domain="code")
    lenient = row._replace(candidate=code)
    (measured,) = measure_rows([lenient])
    is_python = any(
        re.fullmatch(r"[ \t]*```(python3?|py)\s*", line, re.I) for line in answer.split("\n")
    )
    assert isinstance(measured, Measured)
    assert (CODE_INSTRUCTION.encode() in measured.prompt) == is_python


@given(
    st.lists(
        st.sampled_from(["```", "```python", "````", " ", "\t", "\n", "x", "`", "a```b"]),
        max_size=14,
    ).map("".join)
)
@settings(max_examples=300, deadline=None)
def test_fences_are_whole_lines(text: str) -> None:
    lines = [
        line.lstrip(" \t")[3:]
        for line in text.split("\n")
        if line.lstrip(" \t").startswith("```") and "`" not in line.lstrip(" \t")[3:]
    ]
    blocks = read_blocks(text)
    if len(lines) % 2:
        assert blocks is None
    else:
        assert blocks is not None
        assert [label for label, _ in blocks] == [line.strip().lower() for line in lines[::2]]
