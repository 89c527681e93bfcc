"""Benchmark files in every format and in every state of damage, and the bundled ones."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import evaluation
from pipeline.benchmark_items import BenchmarkItem, MathGold
from pipeline.benchmarks import load_benchmark
from pipeline.errors import SourceError
from pipeline.settings.benchmarks import BenchmarkSettings
from pipeline.settings.recipe import Recipe, RecipeSettings, load_recipe

DATA = Path(evaluation.__path__[0]) / "data"
ROWS = [
    {"id": "a", "question": "1+1?", "answer": "2"},
    {"id": "b", "question": "2+2?", "answer": 4},
]


def load(folder: Path, file: str = "b.jsonl", **settings: Any) -> list[BenchmarkItem]:
    recipe = Recipe(path=folder / "r.toml", settings=RecipeSettings(name="r"))
    values = {"name": "mine", "domain": "math", "path": file, **settings}
    return load_benchmark(recipe, BenchmarkSettings.model_validate(values))


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_file_format_gives_the_same_items(tmp_path: Path) -> None:
    path = write(tmp_path / "b.jsonl", ROWS)
    with gzip.open(tmp_path / "b.jsonl.gz", "wb") as handle:
        handle.write(path.read_bytes())
    table = pa.Table.from_pylist([{**row, "answer": str(row["answer"])} for row in ROWS])
    pq.write_table(table, tmp_path / "b.parquet")
    items = load(tmp_path)
    assert [(item.id, item.question, item.gold) for item in items] == [
        ("a", "1+1?", MathGold(text="2")),
        ("b", "2+2?", MathGold(text="4")),
    ]
    assert load(tmp_path, "b.jsonl.gz") == load(tmp_path, "b.parquet") == items


def test_columns_are_mapped_and_instructions_stripped(tmp_path: Path) -> None:
    suffix = "Please reason step by step."
    write(tmp_path / "b.jsonl", [{"prompt": f"1+1?\n{suffix}\n", "gold": 2}])
    (item,) = load(
        tmp_path, id_field="", question_field="prompt", answer_field="gold", strip_suffix=suffix
    )
    assert (item.id, item.question, item.gold) == ("00001", "1+1?", MathGold(text="2"))


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([[1, 2]], {}, "line 1: expected a JSON object"),
        (ROWS, {"question_field": "prompt"}, "row 1: no field 'prompt'; it has answer, id"),
        ([{"id": "a", "question": " ", "answer": "2"}], {}, "row 1: field 'question'"),
        ([{"id": "a", "question": "x", "answer": None}], {}, "row 1: field 'answer'"),
        (
            [{"id": "a", "question": "Think.", "answer": "2"}],
            {"strip_suffix": "Think."},
            "question",
        ),
        ([{"id": "a", "question": "x", "tests": []}], {"domain": "code"}, "field 'tests'"),
        ([{"id": "a", "question": "x", "tests": ["1"]}], {"domain": "code"}, r"tests\[0\]"),
        (
            [{"id": "a", "question": "x", "tests": [{"input": 1, "output": ""}]}],
            {"domain": "code"},
            "tests",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(
    tmp_path: Path, rows: list[Any], settings: dict[str, Any], message: str
) -> None:
    write(tmp_path / "b.jsonl", rows)
    with pytest.raises(SourceError, match=message):
        load(tmp_path, **settings)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.jsonl", b"{not json\n", "line 1: not valid JSON"),
        ("b.jsonl", b'{"id": ' + b"[" * 200_000 + b"\n", "line 1: not valid JSON"),
        ("b.jsonl", b'{"id": ' + b"1" * 5_000 + b"}\n", "line 1: not valid JSON"),
        ("b.jsonl", b'{"id": "\xff"}\n', "cannot be read"),
        ("b.jsonl.gz", b"plainly no gzip", "cannot be read"),
        ("b.jsonl.gz", gzip.compress(b'{"id": "a"}\n' * 99, mtime=0)[:-9], "cannot be read"),
        ("b.parquet", b"PAR1 not really", "not a readable Parquet file"),
        ("b.csv", b"id,question\n", "are read from .jsonl"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        load(tmp_path, name)


def test_the_bundled_benchmarks_load() -> None:
    recipe = load_recipe("demo")
    sizes = {b.name: len(load_benchmark(recipe, b)) for b in recipe.settings.benchmarks}
    assert sizes == {"demo-math": 16, "demo-code": 6}


def test_the_bundled_programs_pass_their_own_tests() -> None:
    lines = (DATA / "demo_code.jsonl").read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, lines):
        for test in row["tests"]:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-c", row["reference"]],
                input=test["input"],
                capture_output=True,
                text=True,
                check=True,
            )
            assert done.stdout == test["output"], (row["id"], test)
