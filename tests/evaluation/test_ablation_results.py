"""Tables of ablations: over seeds and problems, corrected, and honest about what they lack."""

from __future__ import annotations

from pathlib import Path

import pytest
from ablation_fixture import build_ablations, build_run

from evaluation.ablation_results import AblationTable, read_runs, tabulate
from pipeline.errors import SourceError, StoreError
from pipeline.settings.evaluation import EvaluationSettings

SETTINGS = EvaluationSettings(bootstrap_samples=300)


def table_of(out: Path) -> AblationTable:
    table = tabulate(read_runs(out), SETTINGS)
    assert table is not None
    return table


def test_a_large_difference_is_found_and_a_small_one_is_not(tmp_path: Path) -> None:
    build_ablations(tmp_path)
    table = table_of(tmp_path)
    assert [row.name for row in table.rows] == [
        "full",
        "without-open-thoughts2",
        "without-promptcot",
    ]
    full, thoughts, promptcot = (row.scores[0] for row in table.rows)
    assert full.difference is None and full.mean.interval[0] < full.mean.mean
    assert full.mean.seed_spread is not None
    assert promptcot.difference is not None and thoughts.difference is not None
    assert promptcot.difference.mean == pytest.approx(promptcot.mean.mean - full.mean.mean)
    assert promptcot.difference.interval[1] < 0
    assert promptcot.p_holm is not None and promptcot.p_holm < 0.05
    assert promptcot.p_holm == pytest.approx(2 * (promptcot.difference.p_value or 0))
    assert thoughts.p_holm is not None and thoughts.p_holm > 0.05


def test_steps_and_tokens_are_those_of_all_phases(tmp_path: Path) -> None:
    build_ablations(tmp_path)
    rows = {row.name: row for row in table_of(tmp_path).rows}
    assert (rows["full"].num_steps, rows["full"].num_tokens) == (140, 140_000)
    assert rows["without-promptcot"].num_steps == 100
    assert rows["full"].seeds == (0, 1, 2)


def test_one_seed_says_that_it_is_one(tmp_path: Path) -> None:
    build_ablations(tmp_path, seeds=(0,))
    table = table_of(tmp_path)
    assert any("With one seed" in note for note in table.notes)
    (score,) = table.rows[-1].scores
    assert score.difference is not None and score.difference.seed_spread is None
    assert score.p_holm is not None and score.p_holm < 0.05


def test_matched_runs_are_rows_of_their_own(tmp_path: Path) -> None:
    build_run(tmp_path, "full", 0, rate=0.6)
    build_run(tmp_path, "without-promptcot", 0, rate=0.4)
    build_run(tmp_path, "without-promptcot", 0, matching="steps", rate=0.45)
    build_run(tmp_path, "without-promptcot", 1, matching="steps", rate=0.45)
    table = table_of(tmp_path)
    assert [(row.name, row.matching, row.num_steps) for row in table.rows] == [
        ("full", "none", 140),
        ("without-promptcot", "none", 100),
        ("without-promptcot", "steps", 140),
    ]
    assert any("run with the same seeds" in note for note in table.notes)
    assert any("length together" in note for note in table.notes)


def test_runs_of_other_settings_are_pointed_out(tmp_path: Path) -> None:
    build_ablations(tmp_path, seeds=(0,))
    assert not any("same settings" in note for note in table_of(tmp_path).notes)
    manifest = next((tmp_path / "ablations" / "full").rglob("manifest.json"))
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace('"temperature": 0.8', '"temperature": 0.1'), encoding="utf-8")
    assert '"temperature": 0.1' in manifest.read_text(encoding="utf-8")
    found = tabulate(
        read_runs(tmp_path),
        SETTINGS,
    )
    assert found is not None
    assert any("same settings" in note for note in found.notes)


def test_without_the_full_recipe_there_is_no_table(tmp_path: Path) -> None:
    assert tabulate(read_runs(tmp_path), SETTINGS) is None
    build_run(tmp_path, "without-promptcot", 0)
    assert tabulate(read_runs(tmp_path), SETTINGS) is None


def test_damaged_records_are_named(tmp_path: Path) -> None:
    folder = build_run(tmp_path, "full", 0)
    record = (folder / "run.json").read_text(encoding="utf-8")
    (folder / "run.json").write_text(record.replace("evaluation/phase-2", "evaluation/gone"))
    with pytest.raises(SourceError, match="gone"):
        read_runs(tmp_path)
    (folder / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"run\.json is not a valid record of an ablation"):
        read_runs(tmp_path)
