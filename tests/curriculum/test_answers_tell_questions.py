"""Answers part questions in nearly the same words, and say in which form they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from curriculum_rows import make_recipe, ot2_row

from curriculum.build import build_phase
from curriculum.gold import read_gold

_QUESTION = (
    "In rectangle ABCD a point E lies on side AB so that AE is twice as long as EB, and the line DE "
    "meets the diagonal AC in the point F, while the area of the rectangle is 60. What is the length of {}?"
)


def _answer(box: str) -> str:
    return f"<think>\nThe similar triangles give the length in a moment.\n</think>\n\n{box}"


def _kept(folder: Path, boxes: list[str], *settings: str) -> int:
    sides = ("DF", "FE")
    rows = [
        ot2_row(_QUESTION.format(side), _answer(box))
        for side, box in zip(sides, boxes, strict=True)
    ]
    recipe = make_recipe(folder, ot2=rows, overrides=list(settings))
    return build_phase(recipe, "1", folder / "out").manifest.rows_out


def test_questions_in_nearly_the_same_words_with_other_answers_are_two(tmp_path: Path) -> None:
    assert _kept(tmp_path / "a", ["$\\boxed{3}$", "$\\boxed{4}$"]) == 2


def test_with_the_same_answer_in_another_spelling_they_are_one(tmp_path: Path) -> None:
    assert _kept(tmp_path / "a", ["$\\boxed{\\frac{1}{2}}$", "$\\boxed{\\dfrac{1}{2}}$"]) == 1


def test_the_recipe_may_ignore_answers(tmp_path: Path) -> None:
    setting = "curriculum.near_duplicates_share_answers=false"
    assert _kept(tmp_path / "a", ["$\\boxed{3}$", "$\\boxed{4}$"], setting) == 1


@pytest.mark.parametrize(
    ("label", "asks"), [("python", True), ("py", True), ("typescript", False), ("", False)]
)
def test_only_python_is_asked_for_in_python(tmp_path: Path, label: str, asks: bool) -> None:
    text = _answer(f"```{label}\nlet x = 1\n```\nIt defines x.")
    recipe = make_recipe(
        tmp_path, ot2=[ot2_row("Write a function that returns x.", text, source="glaive")]
    )
    version = build_phase(recipe, "1", tmp_path / "out")
    (row,) = version.rows(["prompt"])
    assert ("```python code block" in row["prompt"][0]["content"]) is asks


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("\\boxed{\\textbf{(051) }}", "051"),
        ("\\boxed{\\mathbf{12}}", "12"),
        ("\\boxed{\\textbf{(A) }}", "\\textbf{(A) }"),
    ],
)
def test_a_number_in_bold_is_the_number(gold: str, answer: str) -> None:
    found = read_gold(gold)
    assert found is not None
    assert found.strip() == answer.strip()
