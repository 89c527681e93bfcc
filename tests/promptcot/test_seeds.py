"""Seed files of any layout become seed problems; what is wrong has a name and a place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import console
from pipeline.errors import SourceError
from pipeline.records import Rejected
from pipeline.settings.concepts import SeedSourceSettings
from pipeline.settings.recipe import Recipe, load_recipe
from promptcot import seed_files
from promptcot.seeds import SeedProblem, describe_columns, read_seed_source

ROWS: list[dict[str, Any]] = [
    {"question": "What is 1 + 1?", "difficulty": 5.0, "final_answer": 2, "extra": {"a": [1]}},
    {"question": "What is 2 + 2?", "difficulty": 4.5, "final_answer": "4", "extra": None},
    {"question": "  ", "difficulty": None, "final_answer": None, "extra": None},
]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "r.toml").write_text('name = "r"\n', encoding="utf-8")
    return load_recipe(str(tmp_path / "r.toml"))


def write_file(path: Path, rows: list[Any]) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.name.endswith(".gz"):
        path.write_bytes(
            gzip.compress((lines if "jsonl" in path.name else json.dumps(rows)).encode())
        )
    else:
        path.write_text(lines if "json" not in path.suffix else json.dumps(rows, indent=2))
    return path


def read(recipe: Recipe, path: Path, **changes: Any) -> list[SeedProblem | Rejected]:
    values = {"name": "s", "path": str(path), "domain": "math", **changes}
    return list(read_seed_source(recipe, SeedSourceSettings.model_validate(values)))


def problems(rows: list[SeedProblem | Rejected]) -> list[SeedProblem]:
    return [row for row in rows if isinstance(row, SeedProblem)]


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.jsonl.gz", "a.txt"])
def test_every_layout_reads_the_same(recipe: Recipe, tmp_path: Path, name: str) -> None:
    rows = read(recipe, write_file(tmp_path / name, ROWS))
    assert rows[:2] == [
        SeedProblem(
            source="s",
            source_id="000001",
            problem="What is 1 + 1?",
            answer="2",
            level="5",
            domain="math",
        ),
        SeedProblem(
            source="s",
            source_id="000002",
            problem="What is 2 + 2?",
            answer="4",
            level="4.5",
            domain="math",
        ),
    ]
    assert isinstance(rows[2], Rejected)
    assert (rows[2].row_id, rows[2].reason) == ("s/000003", "empty_problem")


def test_parquet(recipe: Recipe, tmp_path: Path) -> None:
    rows = [{"prompt": f"Problem {i}", "concepts": ["a", "b"], "id": 7 + i} for i in range(3)]
    found = problems(read(recipe, write_file(tmp_path / "a.parquet", rows)))
    assert [row.source_id for row in found] == ["7", "8", "9"]
    assert found[0].concepts == ("a", "b")


@pytest.mark.parametrize(
    ("value", "concepts"),
    [
        (["sets", " ", "graphs "], ("sets", "graphs")),
        ("['sets', \"Vieta's formulas\"]", ("sets", "Vieta's formulas")),
        ('["sets", "graphs"]', ("sets", "graphs")),
        ("('sets', 'graphs')", ("sets", "graphs")),
        (None, None),
        ("", None),
        ([], None),
    ],
)
def test_concept_lists(
    recipe: Recipe, tmp_path: Path, value: Any, concepts: tuple[str, ...] | None
) -> None:
    rows = [{"problem": "p", "concepts": value}]
    assert problems(read(recipe, write_file(tmp_path / "a.json", rows)))[0].concepts == concepts


@pytest.mark.parametrize(
    "value", ["sets, graphs", "[1, 2]", 3, {"a": 1}, "[" * 5000, "__import__('os')"]
)
def test_what_is_no_concept_list_is_refused(recipe: Recipe, tmp_path: Path, value: Any) -> None:
    rows = [{"problem": "p", "concepts": value}, {"problem": "q", "concepts": ["a", "b"]}]
    first, second = read(recipe, write_file(tmp_path / "a.json", rows))
    assert isinstance(first, Rejected) and first.reason == "bad_concepts"
    assert isinstance(second, SeedProblem)


def test_columns_are_mapped_and_levels_renamed(recipe: Recipe, tmp_path: Path) -> None:
    rows = [{"prompt": "### a taxonomy", "names": ["x", "y"], "hard": 5, "domain": ["Coding -> a"]}]
    path = write_file(tmp_path / "a.json", rows)
    columns = {"problem": "", "concepts": "names", "level": "hard"}
    (row,) = problems(read(recipe, path, columns=columns, levels={"5": "AIME"}))
    assert row.problem is None
    assert (row.concepts, row.level, row.domain) == (("x", "y"), "AIME", "code")


@pytest.mark.parametrize(
    ("rows", "changes", "named"),
    [
        ([{"title": "t"}], {}, ["neither problems nor concepts", "title"]),
        ([{"problem": "p"}], {"columns": {"level": "hardness"}}, ["hardness", "level", "problem"]),
        ([{"problem": "p"}], {"domain": None}, ["domain"]),
        ([{"problem": ["p"]}], {}, ["row 1", "problem", "list"]),
        ([], {}, ["no rows"]),
        ([3], {}, ["row 1", "int"]),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_stops_the_run(
    recipe: Recipe, tmp_path: Path, rows: list[Any], changes: dict[str, Any], named: list[str]
) -> None:
    path = write_file(tmp_path / "a.json", rows)
    with pytest.raises(SourceError) as caught:
        read(recipe, path, **changes)
    for word in ["a.json", *named]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[{"problem": "p"}, {"prob', "row 2"),
        ('{"problem": "p"}\n{"prob', "line 2"),
        ("problem,answer\n1,2\n", "neither a JSON list"),
    ],
)
def test_damaged_files(recipe: Recipe, tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=named):
        read(recipe, path)
    with pytest.raises(SourceError, match="not found"):
        read(recipe, tmp_path / "none.json")


@pytest.mark.parametrize("piece", [1, 2, 7, 64])
def test_objects_may_lie_across_the_pieces_that_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, piece: int
) -> None:
    monkeypatch.setattr(seed_files, "_PIECE", piece)
    rows = [{"problem": 'a ] } , \\ " \u2028 \u00e9', "n": i} for i in range(9)]
    for name in ("a.json", "a.txt", "a.json.gz"):
        path = tmp_path / name
        if piece == 1 and name == "a.json.gz":
            continue
        assert list(seed_files.read_objects(write_file(path, rows))) == rows


def test_the_choice_of_columns_is_said(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_file(tmp_path / "a.json", ROWS)
    describe_columns(recipe, SeedSourceSettings(name="s", path=str(path), domain="math"))
    console.say("")
    out = capsys.readouterr()
    assert "problem from 'question'" in out.out + out.err


def test_real_files(recipe: Recipe, shared_data: Path) -> None:
    expected = {
        "math_train_rllm.json.gz": 7474,
        "aime_train_rllm.json.gz": 975,
        "sws_qwen2.5-7b-examples.jsonl.gz": 3500,
        "dataflow_pipeline_math.json": 296,
        "openmathreasoning_aops_example-data.txt": 10,
        "omni_math_num_500.jsonl": 500,
        "msc.json": 61,
    }
    for name, number in expected.items():
        read_rows = read(recipe, shared_data / "seeds" / name)
        rows = problems(read_rows)
        assert len(read_rows) == number, name
        assert all(row.problem for row in rows)
        if name.startswith("sws"):
            assert len(rows) == 3386, "114 rows hold no problem"
            assert all(row.concepts and len(row.concepts) >= 2 for row in rows)
