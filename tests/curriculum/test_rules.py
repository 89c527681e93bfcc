"""Normalising and validating: each defect has its own reason, and harmless rows pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from curriculum_rows import (
    GOOD_CODE,
    GOOD_MATH,
    make_recipe,
    ocr_row,
    ot2_row,
    reasons_of,
    write_lines,
)
from hypothesis import given
from hypothesis import strategies as st

from curriculum.build import build_phase
from curriculum.checking import check_source_file
from curriculum.difficulty import estimate_rank, find_rank
from curriculum.languages import find_foreign_language
from curriculum.normalize import normalize_text, split_response
from curriculum.sources.open_thoughts import find_domain
from curriculum.validate import distinct_share
from pipeline.manifest import Version

LONG_TURN = " ".join(f"step{n} leads to value {n * 7}" for n in range(120)) + " "


def _looping(text: str) -> str:
    return f"<think>\nTwo and two make four.\n{text * 40}\n</think>\n\n\\boxed{{3}}"


THINK = "Read the line and print it, nothing more is asked."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nA\n</think>\n\nB", ("A", "B")),
        ("A\n</think>\nB", ("A", "B")),
        (
            "<|begin_of_thought|>\n\nA\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nB\n\n"
            "<|end_of_solution|>",
            ("A", "B"),
        ),
        ("<Thought>\nA\n</Thought>\n<Output>\nB\n</Output>", ("A", "B")),
        ("[THINK]A[/THINK]B", ("A", "B")),
        ("A</thinking>B", ("A", "B")),
        ("<think>A</think><answer>B</answer>", ("A", "B")),
        ("<think>A</think><answer>B", "answer_not_closed"),
        ("In XML, <thinking> is a tag. </thinking>", "no_thinking"),
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
        (
            ot2_row(
                "Soit ABC un triangle. Montrer que les hauteurs de ce triangle se coupent en un "
                "point et que le cercle passe par les milieux."
            ),
            "foreign_language",
        ),
        (ot2_row("-" + " " * 12), "no_question"),
        (ot2_row("What is </think> in a question?"), "think_tags_in_question"),
        (ot2_row("Look: https://a.example/buy-now-and-save https://b.example/more"), "spam"),
        (ot2_row("Compute 2 + 2 - 1.", _looping("so we try again and ")), "degenerate_repetition"),
        (ot2_row("Compute 2 + 2 - 1.", _looping(LONG_TURN)), "degenerate_repetition"),
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


def test_half_a_surrogate_pair_is_refused_by_name(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, ot2=[ot2_row("What is 1 plus 2 here?")])
    broken = ot2_row("What is 2 + 2 - 1, \ud83d?")
    lines = write_lines(tmp_path / "a.jsonl", [broken, ot2_row("What is 2 plus 2 here?")])
    report = check_source_file(recipe, "talk", lines)
    assert [row["reason"] for row in report["rows"]] == ["broken_unicode", ""]


@pytest.mark.parametrize("label", ["id", "license", "dataset", "split", "difficulty", "index"])
def test_half_a_surrogate_pair_in_a_label_is_refused_by_name(tmp_path: Path, label: str) -> None:
    recipe = make_recipe(tmp_path, ocr=[ocr_row("Print one line of text.")])
    rows = [ocr_row("Print the line.", **{label: text}) for text in ("a\ud83d", "é")]
    report = check_source_file(recipe, "code", write_lines(tmp_path / "a.jsonl", rows))
    assert [row["reason"] for row in report["rows"]] == ["broken_unicode", ""]


ORDINARY_TEXTS = [
    "Convert 3⁄4 to the form $\\frac{a}{b}$ where ℝ is the field and π ≈ 3.14.",
    "Cho hiked 14 kilometers per hour for 8 hours. Chloe hiked 9 kilometers per hour.",
    "Las Vegas has n hotels; in each of them der Koch lives. Find n if the sum is 12 for all.",
    "El Niño, Müller and Łukasiewicz walk 3 km each. How far do they walk?",
]


@pytest.mark.parametrize("text", ORDINARY_TEXTS)
def test_ordinary_texts_are_english(text: str) -> None:
    assert find_foreign_language(text, 0.3) is None


@given(st.text(alphabet="ab \t\r\né\u0301\u200b", max_size=60))
def test_levelling_twice_changes_nothing(text: str) -> None:
    once = normalize_text(text)
    assert normalize_text(once) == once
    assert once == once.strip()
    assert not any(line != line.rstrip() for line in once.split("\n"))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=60, max_size=90), st.floats(0, 1))
def test_the_short_way_to_count_4_grams_decides_alike(words: list[str], least: float) -> None:
    grams = [tuple(words[n : n + 4]) for n in range(len(words) - 3)]
    share = len(set(grams)) / len(grams)
    assert (distinct_share(words, least) < least) == (share < least)


@pytest.mark.parametrize(
    ("label", "of_code", "rank"),
    [
        ("EASY", True, 10),
        ("VERY_HARD", True, 80),
        ("UNKNOWN_DIFFICULTY", True, None),
        ("2", True, 30),
        ("7", True, 10),
        ("2", False, None),
        ("cf-1750", True, 50),
        ("Level 5", False, 50),
        ("AIME", False, 60),
        (None, False, None),
    ],
)
def test_labels_of_difficulty(label: str | None, of_code: bool, rank: float | None) -> None:
    assert find_rank(label, of_code=of_code) == rank


def test_longer_reasoning_is_estimated_harder() -> None:
    ranks = [estimate_rank(300, size) for size in (500, 5_000, 50_000)]
    assert ranks == sorted(ranks)
    assert 0 < ranks[0] < 20 < ranks[1] < 50 < ranks[2] < 100


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
