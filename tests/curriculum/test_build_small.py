"""A phase version from rows in OpenThoughts2's schema: counted, reproducible, readable by others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curriculum.build import build_phase
from pipeline.errors import PipelineError, SourceError, TooManyRejected
from pipeline.manifest import Version, verify_version
from pipeline.settings import Recipe, load_recipe

SCHEMA = pa.schema(
    [
        ("conversations", pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))),
        ("question", pa.string()),
        ("source", pa.string()),
        ("id", pa.int64()),
    ]
)
RECIPE = """
name = "small"
[[curriculum.sources]]
name = "thoughts"
kind = "open_thoughts2"
paths = ["thoughts.parquet"]
licence = "apache-2.0"
[curriculum.phases.1]
sources = [{ source = "thoughts" }]
max_tokens = 512
[[benchmarks]]
name = "held-out"
path = "held_out.jsonl"
domain = "math"
"""
HELD_OUT = "A farmer packs ninety three apples into boxes of seven apples each; how many remain?"


def row(number: int, question: str, answer: str) -> dict[str, Any]:
    turns = [{"from": "user", "value": question}, {"from": "assistant", "value": answer}]
    return {"conversations": turns, "question": question, "source": None, "id": number}


def good(number: int) -> dict[str, Any]:
    total = 17 * number + 5
    return row(
        number,
        f"A shop sells {number + 3} kinds of pencils in packs of {number + 11}. "
        f"What is 17 times {number} plus 5?",
        f"<think>\nFirst multiply 17 by {number}, which gives {17 * number}. Then add 5.\n</think>"
        f"\n\nThe answer is \\boxed{{{total}}}.",
    )


def write_recipe(folder: Path, rows: list[dict[str, Any]]) -> Recipe:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "thoughts.parquet")
    item = {"id": "h1", "question": HELD_OUT, "answer": "2"}
    (folder / "held_out.jsonl").write_text(json.dumps(item) + "\n", encoding="utf-8")
    (folder / "small.toml").write_text(RECIPE, encoding="utf-8")
    return load_recipe(str(folder / "small.toml"))


def sample_rows() -> list[dict[str, Any]]:
    rows = [good(number) for number in range(12)]
    rows.append(good(3) | {"id": 100})
    rows.append(row(101, HELD_OUT, "<think>\nDivide 93 by 7 and look.\n</think>\n\n\\boxed{2}"))
    rows.append(row(102, "What is 2 plus 2 minus 1?", "<think>\nThis never closes"))
    return rows


def tree(version: Version) -> dict[str, bytes]:
    return {
        p.relative_to(version.folder).as_posix(): p.read_bytes()
        for p in sorted(version.folder.rglob("*"))
        if p.is_file()
    }


def test_every_row_is_kept_or_counted_under_a_reason(tmp_path: Path) -> None:
    version = build_phase(write_recipe(tmp_path / "r", sample_rows()), "1", tmp_path / "out")
    manifest = version.manifest
    assert manifest.rows_in == 15
    assert manifest.rows_out == 12
    assert manifest.rows_in == manifest.rows_out + manifest.rows_rejected
    reasons = {r: n for counts in manifest.rejected.values() for r, n in counts.items()}
    assert sum(reasons.values()) == 3
    assert "decontaminate" in " ".join(manifest.rejected) or "contaminated" in reasons
    verify_version(version)
    assert not any(HELD_OUT in row["question"] for row in version.rows())


def test_equal_bytes_in_another_folder_and_a_new_version_for_a_new_setting(
    tmp_path: Path,
) -> None:
    one = build_phase(write_recipe(tmp_path / "a", sample_rows()), "1", tmp_path / "out-a")
    recipe = write_recipe(tmp_path / "b", sample_rows())
    two = build_phase(recipe, "1", tmp_path / "out-b")
    assert one.name == two.name
    assert tree(one) == tree(two)
    assert build_phase(recipe, "1", tmp_path / "out-b").reused
    changed = load_recipe(str(recipe.path), ["seed=7"])
    other = build_phase(changed, "1", tmp_path / "out-b")
    assert other.name != two.name
    assert tree(one) == tree(two)


def test_the_hub_library_reads_the_folder(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    version = build_phase(write_recipe(tmp_path / "r", sample_rows()), "1", tmp_path / "out")
    loaded = datasets.load_dataset(
        str(version.folder), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.num_rows == 12
    assert loaded[0]["prompt"][0]["role"] == "user"


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"PAR1 broken", SourceError, "thoughts.parquet"),
        (None, SourceError, "thoughts.parquet"),
    ],
)
def test_unreadable_source_names_the_file(
    tmp_path: Path, content: bytes | None, error: type[PipelineError], message: str
) -> None:
    recipe = write_recipe(tmp_path / "r", sample_rows())
    path = recipe.file("thoughts.parquet")
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(error, match=message):
        build_phase(recipe, "1", tmp_path / "out")
    assert not (tmp_path / "out" / "datasets" / "phase-1" / "LATEST").exists()


def test_nothing_accepted_is_a_refused_gate(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r", [row(1, "What is 2 plus 2 minus 1?", "no thinking")])
    with pytest.raises(TooManyRejected, match="rejected"):
        build_phase(recipe, "1", tmp_path / "out")
