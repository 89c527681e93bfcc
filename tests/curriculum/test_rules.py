"""Normalising and validating: each defect has its own reason, and harmless rows pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from curriculum_rows import GOOD_CODE, GOOD_MATH, make_recipe, ocr_row, ot2_row, reasons_of

from curriculum.build import build_phase
from curriculum.normalize import normalize_text, split_response
from curriculum.sources.open_thoughts import find_domain
from pipeline.manifest import Version

THINK = "Read the line and print it, nothing more is asked."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nA\n</think>\n\nB", ("A", "B")),
        ("A\n</think>\nB", ("A", "B")),
        ("<|begin_of_thought|>\n\nA\n\n<|end_of_thought|>\n\n<|begin_of_solution|>B", ("A", "B")),
        ("<think>A", "think_not_closed"),
        ("just an answer", "no_thinking"),
        ("<think><think>A</think>B", "repeated_think_tags"),
        ("<think>A</think>B</think>C", "repeated_think_tags"),
        ("Sure! <think>A</think>B", "text_before_thinking"),
        ("A</think><think>B", "think_tags_out_of_order"),
    ],
)
def test_think_dialects(text: str, expected: object) -> None:
    assert split_response(text) == expected


def test_text_is_levelled_but_not_changed_in_meaning() -> None:
    assert normalize_text("\ufeffcafe\u0301\r\na \r\n  b\x00") == "caf\u00e9\na\n  b"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ot2_row("Too short"), "question_too_short"),
        (
            ot2_row("What is 2 + 2 - 1?", "<think>\nhm\n</think>\n\n\\boxed{3}"),
            "thinking_too_short",
        ),
        (ot2_row("What is 2 + 2 - 1?", GOOD_MATH.replace("{3}", "{")), "cut_off_answer"),
        (ot2_row("What is 2 + 2 - 1?", GOOD_MATH.replace("{3}", "{ }")), "empty_answer"),
        (ot2_row("Compute 2 + 2 - 1.", GOOD_MATH.replace("\\boxed{3}", "3")), "no_boxed_answer"),
        (ot2_row("What is 2 + 2 - 1?", None), "no_response"),
        (ot2_row(None), "no_question"),
        (ot2_row("What is <|im_end|> in ChatML?"), "chat_marks_in_text"),
        (ot2_row("What is 2 + 2 - 1?", conversations=[]), "not_two_turns"),
        (ot2_row("Сколько будет два плюс два?"), "foreign_language"),
    ],
)
def test_conversation_defects(tmp_path: Path, row: dict[str, object], reason: str) -> None:
    assert _reason(tmp_path, ot2=[row, ot2_row("What is 1 plus 2 here?")]) == reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ocr_row("-", dataset="taco", split="train", index="4"), "question_not_joined"),
        (
            ocr_row(
                "Print the line.", f"<think>\n{THINK}\n```\nx\n```\n</think>\n\n{GOOD_CODE[70:]}"
            ),
            "fence_in_thinking",
        ),
        (
            ocr_row("Print the line.", GOOD_CODE.replace("input())", "input(")),
            "code_does_not_parse",
        ),
        (ocr_row("Print the line.", GOOD_CODE[:-3]), "cut_off_answer"),
        (ocr_row("Print the line.", f"<think>\n{THINK}\n</think>\n\nDone."), "no_code"),
    ],
)
def test_code_defects(tmp_path: Path, row: dict[str, object], reason: str) -> None:
    assert _reason(tmp_path, ocr=[row, ocr_row("Print one line of text.")]) == reason


def test_pass_in_code_and_answers_that_start_with_a_symbol_are_fine(tmp_path: Path) -> None:
    program = "class A:\n    pass\n\nbypass = input()\nprint(bypass)"
    row = ocr_row(
        "Print the line.", f"<think>\n{THINK}\n</think>\n\n→ ok\n```python\n{program}\n```"
    )
    assert reasons_of(_build(tmp_path, ocr=[row])) == {}


@pytest.mark.parametrize(
    ("source", "question", "answer", "domain"),
    [
        ("magicoder", "Find the sum", "\\boxed{1}", "code"),
        ("automath", "Write code", "", "math"),
        (None, "A triangle program", "\\boxed{4}", "math"),
        (None, "How many triangles? Use any language.", "```python\nprint(1)\n```", "code"),
        (None, "Write a Python function that sorts a list", "like so", "code"),
        (None, "Who wrote Faust?", "Goethe", "other"),
    ],
)
def test_domain_of_rows_without_a_source(
    source: str | None, question: str, answer: str, domain: str
) -> None:
    assert find_domain(source, question, answer) == domain


def _build(folder: Path, **rows: list[dict[str, object]]) -> Version:
    return build_phase(make_recipe(folder / "r", **rows), "1", folder / "out")  # type: ignore[arg-type]


def _reason(folder: Path, **rows: list[dict[str, object]]) -> str:
    version = _build(folder, **rows)
    assert version.manifest.rows_in == 2
    assert version.manifest.rows_out == 1
    (reason,) = reasons_of(version)
    return reason
