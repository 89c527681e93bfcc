"""The bundled sources: made by committed code, in the real schemas, correct where they should be."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curriculum_rows import reasons_of

from curriculum.build import build_phase
from curriculum.demo_sources.code_problems import CodeExample, make_code_examples
from curriculum.demo_sources.files import BUNDLED, MATH_PER_FAMILY, SEED, write_sources
from curriculum.demo_sources.math_problems import make_math_examples
from pipeline.records import Message
from pipeline.settings import load_recipe
from pipeline.student import encode_example

EXPECTED = {
    "question_not_joined": 4,
    "think_not_closed": 1,
    "repeated_think_tags": 1,
    "no_thinking": 1,
    "no_question": 2,
    "runaway_length": 1,
    "not_two_turns": 2,
    "fence_in_thinking": 1,
    "code_does_not_parse": 1,
    "no_code": 1,
    "empty_answer": 1,
    "cut_off_answer": 2,
    "no_boxed_answer": 1,
    "foreign_language": 1,
    "degenerate_repetition": 1,
    "benchmark_item": 2,
    "over_max_tokens": 1,
    "duplicate_trace": 8,
    "duplicate_question": 1,
}


def test_the_generator_gives_the_bundled_bytes(tmp_path: Path) -> None:
    for path in write_sources(tmp_path):
        assert path.read_bytes() == (BUNDLED / path.name).read_bytes(), path.name
        assert path.stat().st_size < 300_000


def test_columns_are_those_of_the_real_datasets() -> None:
    nine = [
        "id",
        "input",
        "output",
        "source",
        "license",
        "dataset",
        "split",
        "difficulty",
        "solution",
    ]
    for split, names in (("0", nine), ("1", [*nine, "index"])):
        schema = pq.read_schema(BUNDLED / f"open_code_reasoning_split_{split}.parquet")
        assert schema.names == names
        assert set(schema.types) == {pa.string()}
    talk = pq.read_schema(BUNDLED / "open_thoughts2.parquet")
    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    assert talk.names == ["conversations", "question", "source", "id"]
    assert talk.types == [pa.list_(turn), pa.string(), pa.string(), pa.int64()]


@pytest.mark.parametrize("example", make_code_examples(), ids=lambda e: e.statement[:40])
def test_programs_print_what_their_example_says(
    example: CodeExample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(example.example_input + "\n"))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        # Our own programs, written in this repository.
        exec(compile(ast.parse(example.program), "example", "exec"), {})
    assert printed.getvalue().strip() == example.example_output


def test_maths_problems_are_different_and_their_answers_end_the_reasoning() -> None:
    examples = make_math_examples(SEED, MATH_PER_FAMILY)
    assert len({e.question for e in examples}) == len(examples) >= 140
    for example in examples:
        shown = example.answer.removeprefix("\\frac{").replace("}{", "/").removesuffix("}")
        assert shown in example.thinking


def test_planted_defects_are_rejected_by_name_and_good_rows_kept(tmp_path: Path) -> None:
    version = build_phase(load_recipe("demo"), "1", tmp_path)
    assert reasons_of(version) == EXPECTED
    assert 150 <= version.manifest.rows_out <= 250
    by_benchmark = version.manifest.extra["decontamination"]["benchmarks"]
    assert by_benchmark["demo-math"]["rows_flagged"] == 2
    rows = list(version.rows())
    assert all(r["num_tokens"] <= 512 for r in rows)
    assert {r["domain"] for r in rows} == {"math", "code"}
    assert any(r["provenance"]["source_row"] for r in rows), "joined rows of split_1 are there"
    first = rows[0]
    prompt = [Message(**m) for m in first["prompt"]]
    encoded = encode_example(prompt, [Message(**m) for m in first["completion"]])
    assert len(encoded.input_ids) == first["num_tokens"]
    matches = version.manifest.extra["decontamination"]["matches"]
    assert json.dumps(matches).count("shortest walks") == 1
