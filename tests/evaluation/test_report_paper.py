"""The paper's tables: quoted cells marked, ours with intervals, and what may not be compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import report_fixture as fixture
from ablation_fixture import build_ablations
from page_outline import Outline, flat

from evaluation.paper_results import load_paper, standard_error
from evaluation.report import write_report
from evaluation.report_data import collect_run
from evaluation.report_paper import describe_paper
from pipeline.settings import Recipe

PAPER = load_paper()
MATHS = """
name = "maths"
[[curriculum.sources]]
name = "own"
kind = "synthesized"
[curriculum.phases.1]
sources = [{source = "own"}]
domains = ["math"]
max_tokens = 64
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return fixture.write_recipe(tmp_path)


def write(recipe: Recipe, out: Path) -> tuple[str, str]:
    path = write_report(recipe, out)
    markdown = path.with_name("report.md")
    return path.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8")


def test_every_quoted_number_has_a_source() -> None:
    cells = [cell for row in PAPER.cells.values() for cell in row.values()]
    cells += [cell for ablation in PAPER.ablations for cell in ablation.cells.values()]
    assert len(cells) == 59
    assert all(PAPER.sources[cell.source] for cell in cells)
    assert all(0 < cell.value < 100 for cell in cells)


def test_own_averages_of_the_paper_are_averages_over_its_k() -> None:
    """What tells the paper's own AIME cells from the ones that it quotes."""
    for key in ("promptcot-mamba-7b", "promptcot-mamba-math-7b"):
        for benchmark in ("aime24", "aime25"):
            value = PAPER.cells[key][benchmark].value
            nearest = round(value * 4.8) / 4.8
            assert abs(nearest - value) < 0.06


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("AIME-2024", "aime24"),
        ("humaneval_plus", "humaneval-plus"),
        ("livecodebench_v5", "livecodebench-v5"),
        ("demo-math", None),
    ],
)
def test_benchmarks_are_known_by_what_recipes_call_them(name: str, key: str | None) -> None:
    found = PAPER.benchmark_of(name)
    assert (found.key if found else None) == key


def test_thirty_problems_leave_nearly_nine_points() -> None:
    assert standard_error(35.2, 30) == pytest.approx(8.72, abs=0.01)


def test_the_paper_is_held_against_its_own_table() -> None:
    (ahead,) = PAPER.rivals_ahead(PAPER.tables[0])
    assert (ahead[0].key, ahead[1].title) == ("math500", "Sky-T1-7B")


def test_ours_stand_beside_the_paper_with_intervals(recipe: Recipe, tmp_path: Path) -> None:
    fixture.build_comparable(tmp_path / "run")
    page, markdown = write(recipe, tmp_path / "run")
    text = flat(page)
    assert "phase-2this run 80.068.0–93.0avg@16" in text
    assert "PromptCoT-Mamba-7B 84.6q1 35.2q1 24.6q1" in text
    assert "Nothing here can be held" not in text
    assert "| phase-2 (this run) | **80.0** \\[68.0–93.0, avg@16\\] | **33.0**" in markdown
    assert "| PromptCoT-Mamba-7B | 84.6<sup>q1</sup> | 35.2<sup>q1</sup> |" in markdown
    quoted = re.findall(r'<td class="n quoted" title="([^"]+)">[^<]+<sup>q\d</sup></td>', page)
    assert len(quoted) == 59 + 7, "PromptCoT-Mamba-7B stands in two tables"
    assert "authors&#39; repository" in quoted[0]


def test_every_plot_is_in_both_reports(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "run"
    fixture.build_comparable(out)
    page, markdown = write(recipe, out)
    assert Outline(page).tags.count("svg") == 5
    files = re.findall(r"\]\((plots/[^)]+\.svg)\)", markdown)
    assert len(files) == 4
    for file in files:
        svg = (out / "report" / file).read_text(encoding="utf-8")
        assert svg.startswith('<svg xmlns="http://www.w3.org/2000/svg" viewBox=')
    assert "math500 by level" in markdown


def test_what_may_not_be_compared_is_said(recipe: Recipe, tmp_path: Path) -> None:
    fixture.build_comparable(tmp_path / "run", repetition_penalty=1.0, max_new_tokens=4096)
    text = flat(write(recipe, tmp_path / "run")[0])
    for words in (
        "sampled with a repetition penalty of 1.1, this run with 1",
        "a limit of new tokens of 65,536, this run with 4,096",
        "LCB v5: the paper averages 8 samples a problem, this run 4",
        "LCB v5: the paper's has 279 problems (contests of 2024-08-03 to 2025-01-04), this run's 200",
        "Graders differ",
        "some of them quoted there from other reports",
        "error of one score up to 8.7 points",
        "beats all 7B baselines on all tasks is not true of its own table: Sky-T1-7B has 85.0",
    ):
        assert words in text, words
    assert "AIME 24: the paper averages" not in text
    assert "temperature of" not in text


def test_a_run_with_other_benchmarks_gets_no_wall_of_tables(recipe: Recipe, tmp_path: Path) -> None:
    fixture.build_run(tmp_path / "run")
    page, markdown = write(recipe, tmp_path / "run")
    text = flat(page)
    assert "Nothing here can be held against the paper" in text
    assert "evaluated on demo-math, demo-code, demo-hard, which the paper does not report" in text
    before, after = page.split("<summary>The paper's numbers</summary>", 1)
    assert "<sup>" not in before.split('id="paper"')[1]
    assert "Ablation table" in after and "<details open>\n<summary>The paper" not in page
    assert "<details><summary>The paper's numbers</summary>" in markdown


def test_a_maths_only_run_stands_in_the_maths_table(tmp_path: Path) -> None:
    recipe = fixture.write_recipe(tmp_path, MATHS)
    fixture.build_comparable(tmp_path / "run")
    section = describe_paper(recipe, collect_run(recipe, tmp_path / "run"), PAPER, None)
    assert [(table.key, table.has_ours) for table in section.tables] == [
        ("main", False),
        ("maths", True),
        ("ablations", False),
    ]


def test_ablations_stand_under_the_papers(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "run"
    fixture.build_phase(out, "1")
    build_ablations(out)
    page, markdown = write(recipe, out)
    text = flat(page)
    assert "without PromptCoT 11.7 (-23.5)q2" in text
    assert re.search(r"without PromptCoTthis run, 3 seeds, 100 steps \d+\.\d \(-\d+\.\d\)", text)
    assert "full recipethis run, 3 seeds, 140 steps" in text
    assert "not matched: leaving PromptCoT out also leaves out phase 2's steps" in text
    assert "their difference is of the data and of the training's length together" in text
    assert re.search(r"\| without PromptCoT \(this run, 3 seeds, 100 steps\) \| \*\*", markdown)


def test_equal_runs_write_equal_reports(recipe: Recipe, tmp_path: Path) -> None:
    for name in ("a", "b"):
        fixture.build_comparable(tmp_path / name)
    assert write(recipe, tmp_path / "a") == write(recipe, tmp_path / "b")


def test_a_plot_that_is_not_drawn_any_more_is_removed(recipe: Recipe, tmp_path: Path) -> None:
    fixture.build_comparable(tmp_path / "run")
    old = tmp_path / "run" / "report" / "plots" / "label-7.svg"
    old.parent.mkdir(parents=True)
    old.write_text("<svg/>")
    write(recipe, tmp_path / "run")
    assert not old.exists()
