"""What the scale benchmark says of a version: true of a real build, and it notices what is wrong."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import corpus as generator
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import scale
from scale_labels import find_misses, judge_version

from curriculum.build import build_phase
from pipeline.settings.recipe import load_recipe

Built = tuple[Path, Path]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Labels of 600 rows, and the version that was built of them."""
    root = tmp_path_factory.mktemp("scale")
    corpus = generator.Corpus(root / "corpus", 600, 1, generator.make_items(1)[:300])
    generator.write_corpus(corpus, 1)
    generator.write_recipe(corpus, None)
    recipe = load_recipe(str(corpus.out / "recipe.toml"), ["curriculum.num_workers=1"])
    version = build_phase(recipe, "1", root / "run")
    return corpus.out / "labels.parquet", version.folder


@pytest.fixture
def copied(built: Built, tmp_path: Path) -> Built:
    """The same, to be damaged."""
    labels, version = built
    for path in version.rglob("*.parquet"):
        target = tmp_path / path.relative_to(version)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    return labels, tmp_path


def rewrite(path: Path, change: Any) -> None:
    pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.slow
def test_a_good_build_meets_every_bar(built: Built) -> None:
    quality = judge_version(*built)
    assert find_misses(quality) == []
    assert quality["rows"] == 600
    assert quality["repeats"]["exact"]["planted"] > 5
    assert sum(row["planted"] for row in quality["broken"].values()) > 5


@pytest.mark.slow
def test_a_lost_row_and_a_doubled_one_are_noticed(copied: Built) -> None:
    labels, version = copied
    (data,) = version.glob("data/*.parquet")
    rewrite(data, lambda table: table.slice(1))
    assert judge_version(labels, version)["not_in_one_place"] == 1
    table = pq.read_table(data)
    rewrite(data, lambda _: table.take([0, *range(len(table))]))
    assert judge_version(labels, version)["not_in_one_place"] == 2


@pytest.mark.slow
def test_a_wrong_reason_and_a_wrong_twin_are_noticed(copied: Built) -> None:
    labels, version = copied
    (refused,) = version.glob("rejected/*.parquet")
    (twins,) = version.glob("duplicates/*.parquet")

    def swap_reason(table: Any) -> Any:
        reasons = pc.replace_substring(table["reason"], "think_not_closed", "spam")
        return table.set_column(table.schema.get_field_index("reason"), "reason", reasons)

    def swap_kept(table: Any) -> Any:
        kept = table["kept_id"].to_pylist()
        return table.set_column(1, "kept_id", [kept[1:] + kept[:1]])

    rewrite(refused, swap_reason)
    rewrite(twins, swap_kept)
    quality = judge_version(labels, version)
    row = quality["broken"]["think_not_closed"]
    assert (row["right"], row["other"]) == (0, row["planted"])
    assert quality["false_removals"]["exact"]["false"] > 0
    missed = " ".join(find_misses(quality))
    assert "think_not_closed" in missed
    assert "not removed, exact" in missed


@pytest.mark.slow
def test_a_pair_that_both_stay_is_noticed(copied: Built) -> None:
    labels, version = copied
    (data,) = version.glob("data/*.parquet")
    (refused,) = version.glob("rejected/*.parquet")
    (twins,) = version.glob("duplicates/*.parquet")
    removed = pq.read_table(twins)["removed_id"][0].as_py()

    def rename_first(table: Any) -> Any:
        return table.set_column(0, table.schema.field(0), [[removed, *table["id"].to_pylist()[1:]]])

    rewrite(data, rename_first)
    rewrite(refused, lambda table: table.filter(pc.field("row_id") != removed))
    rewrite(twins, lambda table: table.filter(pc.field("removed_id") != removed))
    repeats = judge_version(labels, version)["repeats"].values()
    assert sum(row["planted"] - row["found"] for row in repeats) == 1


def build_of(files: dict[str, str], version: str = "a") -> dict[str, Any]:
    return {"version": version, "files": files}


def test_differing_missing_and_other_versions_are_told_apart() -> None:
    first = build_of({"data/0": "x", "manifest.json": "y"})
    assert scale.compare(first, first) == {"files": 2, "differing": []}
    other = build_of({"data/0": "z", "data/1": "x"})
    assert scale.compare(first, other)["differing"] == ["data/0", "data/1", "manifest.json"]
    assert "version b" in scale.compare(first, build_of({}, "b"))["differing"][0]


def test_growth_of_costs_and_of_memory_are_bars() -> None:
    kinds = ("broken", "leaks", "repeats", "false_removals", "false_refusals")
    quality: dict[str, Any] = {kind: {} for kind in kinds}
    result: dict[str, Any] = {
        "rows": 1_000_000,
        "build": {"us_per_row": 120.0, "peak_mib": 1600},
        "quality": {**quality, "not_in_one_place": 0},
        "executors": {"pool": {"machine_s": 10.0, "differing": []}},
    }
    result["executors"]["ray"] = {"machine_s": 14.0, "differing": ["data/0"]}
    result["against"] = scale.weigh(result, {"rows": 200_000, "build": {"us_per_row": 100.0}})
    missed = scale.misses(result)
    assert len(missed) == 4
    assert "1536" in missed[0]
    with pytest.raises(SystemExit, match="never measured"):
        scale.weigh(result, {"rows": 200_000, "build": {}})


def test_the_memory_curve_is_a_png(tmp_path: Path) -> None:
    curve = [(second / 10, 300 + second % 50) for second in range(5000)]
    scale.draw_memory(curve, 1024, tmp_path / "memory.png")
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


def test_a_build_that_is_there_is_reused(tmp_path: Path) -> None:
    version = tmp_path / "curriculum" / "datasets" / "phase-1" / "v1"
    version.mkdir(parents=True)
    (version.parent / "LATEST").write_text("v1\n")
    (version / "manifest.json").write_text("{}")
    (tmp_path / "curriculum" / "prepared").mkdir()
    options = argparse.Namespace(work=tmp_path, reuse=True, keep=False, workers=2, corpus=tmp_path)
    found = scale.build(options, scale.FIRST, "pool")
    assert (found["version"], list(found["files"])) == ("v1", ["manifest.json"])
    assert "cpu_s" not in scale.describe(found, 10)
