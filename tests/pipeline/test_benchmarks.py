"""Benchmark files are read whole and checked: a wrong one never evaluates or decontaminates."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.benchmark_items import MathGold, ProgramTests
from pipeline.benchmarks import load_benchmark
from pipeline.errors import GateRefused, SourceError
from pipeline.settings import load_recipe
from pipeline.settings.benchmarks import BenchmarkSettings

RECIPE = load_recipe("demo")
MATH = [
    {"id": "a", "question": "1+1?\nBox it.", "answer": 2},
    {"id": "b", "question": "x", "answer": "y"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> BenchmarkSettings:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(
        gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode()
    )
    return BenchmarkSettings(name="toy", path=str(path), domain="math")


@pytest.mark.parametrize("name", ["toy.jsonl", "toy.jsonl.gz"])
def test_items_are_read_and_the_instruction_is_cut(tmp_path: Path, name: str) -> None:
    settings = write(tmp_path / name, MATH).model_copy(update={"strip_suffix": "Box it."})
    items = load_benchmark(RECIPE, settings)
    assert [(i.id, i.question, i.gold) for i in items] == [
        ("a", "1+1?", MathGold(text="2")),
        ("b", "x", MathGold(text="y")),
    ]


def test_code_items_have_their_tests(tmp_path: Path) -> None:
    row = {"id": "c", "question": "echo", "tests": [{"input": "1", "output": "1"}]}
    settings = write(tmp_path / "code.jsonl", [row]).model_copy(update={"domain": "code"})
    tests = ProgramTests(kind="stdin", cases=({"input": "1", "output": "1"},))
    assert load_benchmark(RECIPE, settings)[0].tests == tests


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no rows"),
        ([MATH[0], MATH[0]], "row 2: id 'a' was used by row 1"),
        ([{"id": "a", "question": " "}], "row 1: field 'question' should be a text"),
        ([{"id": "a", "question": "q"}], "row 1: no field 'answer'"),
    ],
)
def test_malformed_file_names_row_and_field(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        load_benchmark(RECIPE, write(tmp_path / "bad.jsonl", rows))


def test_other_content_than_pinned_is_refused(tmp_path: Path) -> None:
    settings = write(tmp_path / "toy.jsonl", MATH)
    with pytest.raises(GateRefused, match="the recipe expects 0000"):
        load_benchmark(RECIPE, settings.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(GateRefused, match="has 2 items, the recipe expects 30"):
        load_benchmark(RECIPE, settings.model_copy(update={"expected_items": 30}))
    with pytest.raises(SourceError, match="file not found"):
        load_benchmark(RECIPE, settings.model_copy(update={"path": "none.jsonl"}))


def test_broken_json_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "toy.jsonl"
    settings = write(path, MATH)
    path.write_text(path.read_text() + "{oops\n")
    with pytest.raises(SourceError, match="line 3: not valid JSON"):
        load_benchmark(RECIPE, settings)


def test_a_wrapper_is_cut_and_a_row_without_it_refused(tmp_path: Path) -> None:
    rows = [{"prompt": f"You will code. Question: Add {n}.\n{end}\nx"} for n, end in WRAPPED]
    settings = write(tmp_path / "w.jsonl", rows).model_copy(
        update={
            "domain": "code",
            "id_field": "",
            "question_field": "prompt",
            "tests_field": "",
            "question_after": "Question: ",
            "question_until": ("Read the inputs", "You will use the following"),
        }
    )
    items = load_benchmark(RECIPE, settings)
    assert [(i.id, i.question, i.tests) for i in items] == [
        ("00001", "Add 1.", None),
        ("00002", "Add 2.", None),
    ]
    for changed in ({"question_after": "Task: "}, {"question_until": ("Write",)}):
        with pytest.raises(SourceError, match="row 1"):
            load_benchmark(RECIPE, settings.model_copy(update=changed))


WRAPPED = [(1, "Read the inputs from stdin"), (2, "You will use the following starter code")]
LAYOUTS = [
    ("math500_original.jsonl", "math", 500, {"id_field": "unique_id", "question_field": "problem"}),
    ("aime2024_qwq.jsonl", "math", 30, {"id_field": "", "question_field": "prompt"}),
    ("aime2025_qwq.jsonl", "math", 30, {"id_field": "", "question_field": "prompt"}),
    ("olympiadbench.jsonl.gz", "math", 675, {"answer_field": ""}),
    (
        "HumanEval.jsonl.gz",
        "code",
        164,
        {"id_field": "task_id", "question_field": "prompt", "tests_field": ""},
    ),
    (
        "livecodebench_v5_qwq.jsonl",
        "code",
        279,
        {
            "id_field": "question_id",
            "question_field": "prompt",
            "tests_field": "",
            "question_after": "Question: ",
            "question_until": ["Read the inputs from stdin", "You will use the following starter"],
        },
    ),
]


@pytest.mark.parametrize(("name", "domain", "number", "fields"), LAYOUTS)
def test_real_files_load_as_they_are(
    shared_data: Path, name: str, domain: str, number: int, fields: dict[str, Any]
) -> None:
    suffix = "Please reason step by step, and put your final answer within \\boxed{}."
    settings = BenchmarkSettings.model_validate(
        {
            "name": "b",
            "path": str(shared_data / "benchmarks" / name),
            "domain": domain,
            "strip_suffix": suffix,
            **fields,
        }
    )
    items = load_benchmark(RECIPE, settings)
    assert len(items) == number
    assert not any("step by step" in i.question or "starter code" in i.question for i in items)
    assert settings.is_scored == all(item.gold for item in items)
