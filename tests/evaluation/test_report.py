"""The page a person opens after a run: complete, safe, self-contained, honest and reproducible."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import report_fixture as fixture
from page_outline import Outline, flat

from evaluation.report import write_report
from pipeline.errors import ManifestMismatch, SourceError, StoreError
from pipeline.settings import Recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    folder = tmp_path_factory.mktemp("report")
    fixture.build_run(folder / "run", statement=fixture.HOSTILE)
    return fixture.write_recipe(folder), folder / "run"


@pytest.fixture(scope="module")
def page(run: tuple[Recipe, Path]) -> str:
    recipe, out = run
    path = write_report(recipe, out)
    assert path == out / "report" / "index.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture
def copy(run: tuple[Recipe, Path], tmp_path: Path) -> tuple[Recipe, Path]:
    """A run folder of the test's own."""
    recipe, out = run
    shutil.copytree(out, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    return recipe, tmp_path / "run"


def read(recipe: Recipe, out: Path) -> str:
    return write_report(recipe, out).read_text(encoding="utf-8")


def test_headline_numbers_come_from_the_files(page: str) -> None:
    text = flat(page)
    assert "Problems accepted24of 57 judged" in text
    assert "Phase 1 data92 rows" in text
    assert "Loss, SFT phase 110.40 → 5.13in 90 steps" in text
    assert "demo-math, avg@44.0% → 8.0%phase-1: 1.0–7.0%" in text


def test_every_stage_shows_its_balance(page: str) -> None:
    text = flat(page)
    for title, row in {
        "Problems": "96 61 35",
        "Judged problems": "57 24 33",
        "Distinct problems": "61 57 4",
        "Phase 2 dataset": "47 24 23",
        "SFT phase 1": "92 90 2",
    }.items():
        numbers = row.replace(" ", "")
        assert f"{title} {numbers} ✓ yes" in text, title


def test_reasons_are_listed_with_the_step_that_gave_them(page: str) -> None:
    text = flat(page)
    assert "statement too short19" in text
    assert "decontaminate: benchmark item3" in text


def test_decontamination_is_told_per_benchmark(page: str) -> None:
    assert "Phase 2demo-math2421" in flat(page)


def test_relaxed_gates_and_toy_models_are_said_in_words(page: str) -> None:
    text = flat(page)
    assert "kept from the verdict “acceptable” upwards" in text
    assert "One model judges the problems; the paper asks 2" in text
    assert "Each problem is solved twice" in text
    assert "marked as “unverified”" in text
    assert "135M-parameter" in text
    assert "2,345,678 parameters and starts from random weights" in text


def test_intervals_that_prove_little_are_called_so(page: str) -> None:
    text = flat(page)
    assert "demo-code, phase-1: wide interval: with 8 items it spans 20 points" in text
    assert "demo-hard, phase-2: no answer was correct; with 12 items" in text
    assert "demo-math, phase-1: wide" not in text


def test_text_out_of_the_data_stays_text(page: str) -> None:
    outline = Outline(page)
    assert "script" not in outline.tags
    assert fixture.HOSTILE in outline.text


def test_five_rows_are_shown_and_our_own_come_first(page: str) -> None:
    assert page.count("<article>") == 5
    assert page.count("<details open>") == 5
    assert len(re.findall(r"<h3>\d\. math from promptcot, phase 2</h3>", page)) == 5


def test_page_is_one_file_that_asks_nothing_of_the_network(page: str) -> None:
    outline = Outline(page)
    targets = [v for _, n, v in outline.attributes if n in {"src", "href", "xlink:href", "action"}]
    assert targets
    assert all(t.startswith(("#", "data:,")) for t in targets)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_page_is_well_formed_and_accessible(page: str) -> None:
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    assert ("html", "lang", "en") in outline.attributes
    assert any(v.startswith("width=device-width") for t, n, v in outline.attributes if t == "meta")
    levels = [int(tag[1]) for tag in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    labels = [v for t, n, v in outline.attributes if t == "div" and n == "aria-label" and v]
    told = ("Rejected", "Histograms", "Domains", "Sources", "Training loss", "avg@k", "Truncation")
    assert outline.tags.count("svg") == sum(label.startswith(told) for label in labels) == 7
    anchors = [v[1:] for t, n, v in outline.attributes if t == "a" and n == "href"]
    assert set(anchors) <= set(outline.ids)


def test_text_is_never_smaller_than_fifteen_pixels(page: str) -> None:
    style = page[page.index("<style>") : page.index("</style>")]
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: ?([\d.]+)rem", style)]
    assert sizes and min(sizes) * 16 >= 15


def test_same_run_gives_the_same_bytes_in_another_folder(
    page: str, copy: tuple[Recipe, Path]
) -> None:
    assert read(*copy) == page


def test_page_names_no_folder_of_this_machine(page: str, run: tuple[Recipe, Path]) -> None:
    assert str(run[1]) not in page
    assert str(run[0].path.parent) not in page


def test_missing_parts_say_how_to_run_them(tmp_path: Path) -> None:
    recipe = fixture.write_recipe(tmp_path)
    fixture.build_phase(tmp_path / "run", "1")
    text = flat(read(recipe, tmp_path / "run"))
    assert "Not run yet. Scores with intervals appear here after python -m evaluation run" in text
    assert "Not run yet. Loss curves appear here after python -m trainer.sft --phase 1" in text
    assert "Phase 2 dataset not run yet: python -m curriculum.build --phase 2" in text
    assert "1. " in text


def test_an_empty_folder_is_the_users_mistake(tmp_path: Path) -> None:
    recipe = fixture.write_recipe(tmp_path)
    with pytest.raises(SourceError, match="nothing has been built under"):
        write_report(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_corrupt_manifest_is_named(copy: tuple[Recipe, Path]) -> None:
    recipe, out = copy
    broken = next(out.glob("synthesis/judged/*/manifest.json"))
    broken.write_text("{", encoding="utf-8")
    with pytest.raises(ManifestMismatch, match=re.escape(str(broken))):
        write_report(recipe, out)
    assert not (out / "report").exists()


def test_a_missing_shard_is_named(copy: tuple[Recipe, Path]) -> None:
    recipe, out = copy
    shard = next(out.glob("datasets/phase-2/*/data/*.parquet"))
    shard.unlink()
    with pytest.raises(ManifestMismatch, match=re.escape(shard.name)):
        write_report(recipe, out)


def test_a_truncated_shard_is_named(copy: tuple[Recipe, Path]) -> None:
    recipe, out = copy
    shard = next(out.glob("datasets/phase-2/*/data/*.parquet"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(SourceError, match="not a readable Parquet file"):
        write_report(recipe, out)


@pytest.mark.parametrize("name", ["training.json", "train_log.jsonl"])
def test_a_corrupt_training_record_is_named(copy: tuple[Recipe, Path], name: str) -> None:
    recipe, out = copy
    path = out / "checkpoints" / "phase-1" / name
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    with pytest.raises(StoreError, match=re.escape(name)) as caught:
        write_report(recipe, out)
    assert "train this phase again" in caught.value.hint


def test_scores_that_are_no_scores_are_refused(copy: tuple[Recipe, Path]) -> None:
    recipe, out = copy
    path = next(out.glob("evaluation/phase-1/*/manifest.json"))
    path.write_text(
        path.read_text(encoding="utf-8").replace('"avg_at_k"', '"mean"'), encoding="utf-8"
    )
    with pytest.raises(ManifestMismatch, match=r"extra\.scores"):
        write_report(recipe, out)


def test_a_checkpoint_of_an_older_dataset_is_pointed_out(copy: tuple[Recipe, Path]) -> None:
    recipe, out = copy
    assert "was made from version" not in flat(read(recipe, out))
    fixture.build_phase(out, "1", salt=1)
    assert "SFT phase 1 was made from version" in flat(read(recipe, out))


def test_rows_lost_between_dataset_and_training_are_shown(copy: tuple[Recipe, Path]) -> None:
    recipe, out = copy
    path = out / "checkpoints" / "phase-1" / "training.json"
    record = path.read_text(encoding="utf-8").replace('"num_rows": 90', '"num_rows": 87')
    path.write_text(record, encoding="utf-8")
    assert "✗ no: 3 unaccounted" in flat(read(recipe, out))
