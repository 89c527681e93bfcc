"""Records reach Arrow and come back unchanged; hashes and seeds depend on content alone."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import hashing
from pipeline.errors import SourceError
from pipeline.records import Judgement, Message, Provenance, Rating, TrainingRow, arrow_schema
from pipeline.store import read_rows, write_parquet

ROW = TrainingRow(
    id="r1",
    prompt=[Message(role="user", content="q")],
    completion=[Message(role="assistant", content="<think>\nt\n</think>\n\na")],
    question="q",
    source="s",
    source_revision="rev",
    source_id="7",
    licence="mit",
    domain="math",
    difficulty=None,
    num_prompt_tokens=3,
    num_completion_tokens=4,
    num_tokens=7,
    provenance=Provenance(teacher="t", concepts=["a", "b"], agreement=0.5),
)


def test_row_survives_parquet_and_bytes_are_stable(tmp_path: Path) -> None:
    schema = arrow_schema(TrainingRow)
    write_parquet(tmp_path / "a.parquet", [ROW, ROW], schema)
    write_parquet(tmp_path / "b.parquet", [ROW, ROW], schema)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    rows = [TrainingRow.model_validate(row) for row in read_rows(tmp_path / "a.parquet")]
    assert rows == [ROW, ROW]


def test_enums_and_nullability_become_arrow_types() -> None:
    schema = arrow_schema(Judgement)
    assert schema.field("verdict") == pa.field("verdict", pa.string(), nullable=False)
    assert schema.field("stated_verdict").nullable
    assert Rating("perfect") is Rating.PERFECT


def test_unreadable_inputs_name_the_file(tmp_path: Path) -> None:
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"PAR1 not really")
    with pytest.raises(SourceError, match=r"bad\.parquet: not a readable Parquet file"):
        list(read_rows(bad))
    with pytest.raises(SourceError, match="file not found"):
        list(read_rows(tmp_path / "none.parquet"))
    write_parquet(tmp_path / "a.parquet", [ROW], arrow_schema(TrainingRow))
    with pytest.raises(SourceError, match=r"missing column\(s\) nope; it has id, prompt"):
        list(read_rows(tmp_path / "a.parquet", ["nope"]))


def test_seeds_depend_on_all_parts_and_nothing_else() -> None:
    assert hashing.derive_seed(1, "stage", "row") == hashing.derive_seed(1, "stage", "row")
    seeds = {
        hashing.derive_seed(1, "stage", "row"),
        hashing.derive_seed(2, "stage", "row"),
        hashing.derive_seed(1, "stagerow", ""),
        hashing.derive_seed(1, "stag", "erow"),
    }
    assert len(seeds) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_content_hash_ignores_key_order_only() -> None:
    assert hashing.content_hash({"a": 1, "b": 2}) == hashing.content_hash({"b": 2, "a": 1})
    assert hashing.content_hash({"a": 1}) != hashing.content_hash({"a": 2})


def test_code_version_covers_the_named_packages() -> None:
    one, two = hashing.code_version("pipeline"), hashing.code_version("pipeline", "promptcot")
    assert one != two
    assert one.startswith(hashing.PACKAGE_VERSION + "+")
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == hashing.PACKAGE_VERSION
