"""The bundled bank is rich enough, broken ones are named, and the stage keeps what it promises."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import promptcot
from pipeline.errors import SourceError
from pipeline.manifest import verify_version
from pipeline.settings.recipe import load_recipe
from promptcot import combinations
from promptcot.bank import load_bank
from promptcot.combinations import run_combinations
from promptcot.run_context import SynthesisRun

BUNDLED = Path(promptcot.__path__[0]) / "data" / "seeds.jsonl"
RECIPE = f"""
name = "draws"
seed = 7
[synthesis]
bank = {json.dumps(str(BUNDLED))}
[synthesis.combinations]
math_share = 0.65
"""


def test_bundled_bank_is_large_and_connected() -> None:
    seeds = load_bank(BUNDLED)
    counts = Counter(concept for seed in seeds for concept in seed.concepts)
    assert {seed.domain for seed in seeds} == {"math", "code"}
    assert len(seeds) >= 70
    assert len(counts) >= 160
    assert sum(count > 1 for count in counts.values()) >= 60
    assert all(len(s.concepts) >= 5 and s.problem and s.rationale for s in seeds)
    assert len({seed.problem for seed in seeds}) == len(seeds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no seeds"),
        ("{", "line 1: not a seed"),
        ('{"concepts": ["a"], "domain": "math", "level": "x"}', "line 1"),
        ('{"concepts": ["a", "a"], "domain": "math", "level": "x"}', "named twice"),
    ],
)
def test_broken_bank_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bank.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=message):
        load_bank(path)


def draw(
    tmp_path: Path, folder: str, *overrides: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    path = tmp_path / "draws.toml"
    path.write_text(RECIPE, encoding="utf-8")
    recipe = load_recipe(str(path), [f"synthesis.combinations.{item}" for item in overrides])
    with SynthesisRun(recipe, tmp_path / folder) as run:
        version = run_combinations(run)
    verify_version(version)
    return list(version.rows()), dict(version.manifest.extra)


@pytest.mark.parametrize("sampler", ["original", "balanced"])
def test_combinations_are_distinct_sets_and_keep_the_share_at_any_prefix(
    tmp_path: Path, sampler: str
) -> None:
    kind = f"sampler={sampler}"
    rows, extra = draw(tmp_path, "one", "num_combinations=120", kind)
    assert len({(row["domain"], frozenset(row["concepts"])) for row in rows}) == 120
    assert sum(row["domain"] == "math" for row in rows) == 78
    assert len({row["level"] for row in rows if row["domain"] == "math"}) == 8
    assert rows[:20] == draw(tmp_path, "two", "num_combinations=20", kind)[0]
    used = {(row["domain"], c) for row in rows for c in row["concepts"]}
    assert extra["concepts_used"] == len(used)
    assert extra["coverage"] == pytest.approx(len(used) / extra["concepts"], abs=1e-6)
    assert 0 < extra["entropy_bits"] <= extra["max_entropy_bits"]
    assert sum(bar["concepts"] for bar in extra["usage_histogram"]) == extra["concepts"]
    assert set(extra["domains"]) == {"math", "code"}
    if sampler == "balanced":
        for compared in extra["compared"].values():
            assert compared["balanced"]["coverage"] >= compared["original"]["coverage"]


def test_a_stage_that_was_stopped_goes_on_with_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(combinations, "ROWS_PER_BATCH", 16)
    whole, figures = draw(tmp_path, "whole", "num_combinations=60")
    draw(tmp_path, "stopped", "num_combinations=60")
    (version,) = (p for p in (tmp_path / "stopped/synthesis/combinations").iterdir() if p.is_dir())
    # As a kill leaves it: two batches of four with their receipts, no manifest.
    staging = version.with_name(f".staging-{version.name}")
    version.rename(staging)
    (staging / "manifest.json").unlink()
    shards = sorted((staging / "data").iterdir())
    for shard in shards[:1] + shards[2:3]:
        stem = shard.stem.removeprefix("part-")
        receipt = {"num_in": 16, "num_out": 16, "rejected": {}}
        receipt |= {"tokens": {}, "licences": {}, "counts": {}}
        path = staging / "receipts" / f"{stem}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(receipt), encoding="utf-8")
    for shard in (shards[1], shards[3]):
        shard.unlink()
    assert draw(tmp_path, "stopped", "num_combinations=60") == (whole, figures)
