"""Readers: exact schemas, the join, and one clear message for every broken input."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curriculum_rows import (
    OCR,
    OT2,
    make_recipe,
    ocr_row,
    ot2_row,
    questions,
    write,
    write_lines,
)

from curriculum.build import build_phase
from curriculum.candidates import Candidate
from curriculum.checking import check_source_file
from curriculum.sources.open_code_reasoning import parse_row
from curriculum.sources.parts import RawRow
from curriculum.sources.questions import QuestionTable, QuestionTables, load_questions
from pipeline.errors import ConfigError, SourceError
from pipeline.settings import load_recipe
from pipeline.settings.sources import QuestionSource, SourceSettings


def raw(row: dict[str, object]) -> RawRow:
    return RawRow("rev", "file.parquet", 3, row)


CODE = SourceSettings(name="c", kind="open_code_reasoning", paths=("x",), licence="cc-by-4.0")


def test_questions_join_by_dataset_split_and_row() -> None:
    tables = QuestionTables(
        {
            ("taco", "test"): QuestionTable("row", ["zero", "one"]),
            ("apps", "test"): QuestionTable("row", ["a", ""]),
        }
    )
    assert tables.find("apps, taco", "test", "1") == ("one", "")
    assert tables.find("taco", "train", "0")[0] is None
    assert tables.find("taco", "test", "-1")[0] is None
    row = ocr_row("-", dataset="taco", split="test", index="1")
    candidate = parse_row(raw(row), CODE, tables)
    assert isinstance(candidate, Candidate)
    assert candidate.question == "one"
    assert candidate.provenance.source_split == "test"
    other = parse_row(raw({**row, "index": "0"}), CODE, tables)
    assert isinstance(other, Candidate)
    # One id and one answer, but two questions: two rows.
    assert other.row_id != candidate.row_id


def test_codeforces_questions_are_put_together(tmp_path: Path) -> None:
    rows = [
        {
            "description": "Add.",
            "input_format": "two numbers",
            "output_format": "the sum",
            "examples": [{"input": "1 2", "output": "3"}],
            "note": None,
        },
        {"description": None},
    ]
    write_lines(tmp_path / "cf.jsonl", rows)
    recipe = make_recipe(tmp_path, ot2=questions(1))
    entry = QuestionSource(dataset="open-r1/codeforces", split="train", path="cf.jsonl")
    tables = load_questions(recipe, [entry])
    text = tables.find("open-r1/codeforces", "train", "0")[0]
    assert text == (
        "Add.\n\nInput\n\ntwo numbers\n\nOutput\n\nthe sum\n\nExamples\n\n"
        "Input\n\n1 2\n\nOutput\n\n3"
    )
    assert tables.find("open-r1/codeforces", "train", "1")[0] is None


def test_row_licence_wins_over_the_sources() -> None:
    tables = QuestionTables({})
    stated = parse_row(raw(ocr_row("Print it.")), CODE, tables)
    silent = parse_row(raw(ocr_row("Print it.", license=None)), CODE, tables)
    assert isinstance(stated, Candidate) and isinstance(silent, Candidate)
    assert (stated.licence, silent.licence) == ("mit", "cc-by-4.0")


def test_jsonl_and_parquet_give_the_same_verdicts(tmp_path: Path) -> None:
    rows = [*questions(3), ot2_row("Hm"), ot2_row("What is it?", conversations=[1, None])]
    recipe = make_recipe(tmp_path, ot2=questions(1))
    plain = write_lines(tmp_path / "a.jsonl", rows)
    zipped = tmp_path / "a.jsonl.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    parquet = write(tmp_path / "a.parquet", rows[:4], OT2)
    reports = [check_source_file(recipe, "open_thoughts2", p) for p in (plain, zipped, parquet)]
    assert reports[0]["rows"] == reports[1]["rows"]
    assert reports[0]["rows"][:4] == reports[2]["rows"]
    assert reports[0]["accepted"] == 3
    assert reports[0]["rows"][4]["reason"] == "unexpected_roles"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"PAR1 rubbish PAR1", "a.parquet: not a readable Parquet"),
        ("a.jsonl", b"{not json}\n", "line 1 is not JSON"),
        ("a.jsonl", b"[1]\n", "line 1 is no JSON object"),
        ("a.jsonl", b'{"question": "x"}\n', "line 1: missing field.s. conversations, source, id"),
        ("a.jsonl", b"", "holds no rows"),
        ("a.jsonl", b"\xff\xfe\n", "unreadable after line 0"),
        ("a.jsonl.gz", b"\x1f\x8b\x08\x00broken", "a.jsonl.gz: unreadable"),
        ("a.csv", b"x", "unknown file type '.csv'"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    recipe = make_recipe(tmp_path, ot2=questions(1))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        check_source_file(recipe, "talk", tmp_path / name)


def test_wrong_columns_and_types_name_file_row_and_field(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, ot2=questions(1))
    wrong = write(tmp_path / "w.parquet", [ocr_row("Print it.")], OCR)
    with pytest.raises(SourceError, match=r"w.parquet: missing column\(s\) conversations"):
        check_source_file(recipe, "talk", wrong)
    rows = [ot2_row("What is 1 + 2?"), ot2_row("What is 1 + 3?", id="seven")]
    lines = write_lines(tmp_path / "w.jsonl", rows)
    with pytest.raises(SourceError, match=r"w.jsonl: row 2, field 'id': expected integer, got str"):
        check_source_file(recipe, "talk", lines)


def test_empty_and_missing_sources_publish_nothing(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, ot2=questions(2))
    source = recipe.file("talk.parquet")
    pq.write_table(pa.Table.from_pylist([], schema=OT2), source)
    with pytest.raises(SourceError, match="holds no rows"):
        build_phase(recipe, "1", tmp_path / "out")
    source.unlink()
    with pytest.raises(SourceError, match="file not found"):
        build_phase(recipe, "1", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("manifest.json"))


def test_missing_traces_name_the_command(tmp_path: Path) -> None:
    recipe = load_recipe("demo", ["curriculum.synthesize_if_missing=false"])
    with pytest.raises(SourceError, match="no verified traces") as error:
        build_phase(recipe, "2", tmp_path)
    assert "python -m promptcot run" in error.value.hint


def test_an_unknown_source_lists_the_known_ones(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, ot2=questions(1))
    path = write_lines(tmp_path / "a.jsonl", [json.loads("{}")])
    with pytest.raises(ConfigError, match="unknown source 'nope'") as error:
        check_source_file(recipe, "nope", path)
    assert "talk" in error.value.hint
