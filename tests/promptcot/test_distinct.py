"""Only one of each family of problems goes on, and none that is a benchmark item."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pipeline.errors import SourceError
from pipeline.manifest import Version, verify_version
from pipeline.records import Problem
from pipeline.settings.recipe import load_recipe
from pipeline.stages import Batch, BatchResult, Stage, run_stage, split_batches
from pipeline.store import read_rows
from promptcot.distinct import run_distinct
from promptcot.run_context import SynthesisRun

WORDS = [f"{a}{b}er" for a in "bdfglmnprst" for b in ("al", "in", "or", "um", "ast")]
ITEM = (
    "A bookshop sells 3/4 of its 240 copies of a novel in the first week and a third of the "
    "remaining copies in the second week. How many copies are left?"
)
RECIPE = """
name = "tiny"
[synthesis]
batch_size = 4
[[benchmarks]]
name = "toy"
path = "toy.jsonl"
domain = "math"
answer_field = ""
"""


def make_statement(seed: int) -> str:
    return f"Find the {' '.join(random.Random(seed).choices(WORDS, k=30))} of {seed}."


STATEMENTS = {
    "a": make_statement(1),
    "b": make_statement(2),
    "a again": make_statement(1).replace("Find the", "find  $the$"),
    "item": f"Hello! {ITEM}",
    "twin": ITEM.replace("240", "360"),
    "nearly a": make_statement(1).replace("of 1.", "of all."),
    "c": make_statement(3),
    "nearly a, too": make_statement(1).replace("of 1.", "of any."),
    "c again": make_statement(3),
}


def make_problem(name: str, statement: str) -> Problem:
    return Problem(
        id=name,
        combination_id=name,
        concepts=["x", "y"],
        level="AIME",
        domain="math",
        rationale="r",
        statement=statement,
        teacher="t",
        prompt_hash="h",
        seed=1,
    )


def make_problems(folder: Path) -> Version:
    problems = [make_problem(*entry) for entry in STATEMENTS.items()]

    def process(batch: Batch) -> BatchResult:
        return BatchResult(num_in=len(batch.rows), rows=batch.rows)

    stage = Stage(
        name="problems",
        root=folder / "out/synthesis/problems",
        record=Problem,
        settings={},
        inputs=[],
        packages=("pipeline",),
    )
    return run_stage(stage, split_batches(problems, 4, key=lambda p: p.id), process)


def run(folder: Path, *overrides: str) -> Version:
    (folder / "toy.jsonl").write_text(json.dumps({"id": "i1", "question": ITEM}) + "\n")
    (folder / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    recipe = load_recipe(str(folder / "tiny.toml"), overrides)
    with SynthesisRun(recipe, folder / "out") as synthesis:
        return run_distinct(synthesis, make_problems(folder))


def refused(version: Version) -> dict[str, tuple[str, str]]:
    rows = (row for p in sorted(version.folder.glob("rejected/*")) for row in read_rows(p))
    return {row["row_id"]: (row["reason"], row["detail"]) for row in rows}


def test_families_leave_one_and_benchmark_items_none(tmp_path: Path) -> None:
    version = run(tmp_path)
    assert [row["id"] for row in version.rows()] == ["a", "b", "twin", "c"]
    found = refused(version)
    assert {name: reason for name, (reason, _) in found.items()} == {
        "a again": "duplicate",
        "c again": "duplicate",
        "item": "benchmark_item",
        "nearly a": "near_duplicate",
        "nearly a, too": "near_duplicate",
    }
    assert found["a again"][1].endswith("statement as a")
    assert found["nearly a, too"][1].endswith("with a")
    assert found["item"][1].startswith("toy i1 (coverage 1.0")
    assert "novel" in found["item"][1]
    assert version.manifest.extra["counts"] == {"template_twins": 1}
    verify_version(version)
    assert run(tmp_path).reused


def test_a_changed_benchmark_is_another_version(tmp_path: Path) -> None:
    version = run(tmp_path)
    (tmp_path / "toy.jsonl").write_text(json.dumps({"id": "i1", "question": "Other?"}) + "\n")
    recipe = load_recipe(str(tmp_path / "tiny.toml"))
    with SynthesisRun(recipe, tmp_path / "out") as synthesis:
        other = run_distinct(synthesis, make_problems(tmp_path))
    assert other.name != version.name
    assert "item" not in refused(other)
    (tmp_path / "toy.jsonl").unlink()
    with SynthesisRun(recipe, tmp_path / "out") as synthesis, pytest.raises(SourceError):
        run_distinct(synthesis, make_problems(tmp_path))


@pytest.mark.parametrize(
    ("override", "left"),
    [
        ("synthesis.distinct.enabled=false", 9),
        ("synthesis.distinct.decontaminate=false", 4),
        ("synthesis.distinct.near_duplicate_jaccard=1", 6),
    ],
)
def test_each_part_can_be_switched_off(tmp_path: Path, override: str, left: int) -> None:
    version = run(tmp_path, override)
    assert version.manifest.rows_out == left
    assert version.manifest.rows_in == 9


def test_resuming_gives_the_same_rows(tmp_path: Path) -> None:
    one = run(tmp_path)
    (tmp_path / "second").mkdir()
    two = run(tmp_path / "second", "synthesis.max_batches_in_flight=1")
    assert one.name == two.name
    assert list(one.rows()) == list(two.rows())
