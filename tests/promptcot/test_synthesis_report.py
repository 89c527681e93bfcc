"""The synthesis page: complete, safe, self-contained, and the same bytes for the same versions."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import synthesis_fixture as fixture
from page_outline import Outline, flat

from pipeline.errors import SourceError
from pipeline.manifest import resolve_version
from pipeline.settings.recipe import Recipe
from promptcot.report import render_page, write_synthesis_report
from promptcot.report_data import collect_synthesis
from promptcot.report_samples import choose_accepted, choose_refused


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    folder = tmp_path_factory.mktemp("page")
    fixture.build_run(folder / "run", statement=fixture.HOSTILE)
    return fixture.write_recipe(folder), folder / "run"


@pytest.fixture(scope="module")
def page(run: tuple[Recipe, Path]) -> str:
    path = write_synthesis_report(*run)
    assert path == run[1] / "report" / "synthesis.html"
    return path.read_text(encoding="utf-8")


def test_the_page_stands_alone_and_runs_nothing(page: str) -> None:
    outline = Outline(page)
    assert all(address.startswith(("#", "data:,")) for address in outline.addresses)
    assert "script" not in outline.tags
    assert "<script>alert" not in page
    assert fixture.HOSTILE in outline.text
    assert len(outline.ids) == len(set(outline.ids))
    anchors = {a.removeprefix("#") for a in outline.addresses if a.startswith("#")}
    assert anchors <= set(outline.ids)


def test_every_stage_is_in_the_funnel_with_its_reasons(page: str) -> None:
    text = flat(page)
    for words in (
        "Seed problems 42 of 43",
        "Distinct problems 90 of 100 problems",
        "Judged problems 60 of 90 problems",
        "missing problem12",
        "near duplicate9",
    ):
        assert words in text, words


def test_judges_costs_and_refinement_are_told(page: str) -> None:
    text = flat(page)
    assert "default and second9076.7% (66.9% to 84.2%)0.60 (0.46 to 0.75)" in text
    assert "11 of the 12 that the judges kept were rightly kept: a precision of 91.7%" in text
    assert "60 of 240 solutions (25.0%) were cut off" in text
    assert "38 of the bank's 40 concepts are used (95.0% covered)" in text
    assert "2-128.50" not in text
    assert "-128.50" in text
    # 542 requests of 400 tokens each were read; the tests' requests count for their stage.
    assert "All stages5420216,800683,100" in text
    assert "math-500/test/3: equal statement" in text
    assert "kept from the verdict “acceptable” upwards" in text


def test_levels_count_problems_not_traces(run: tuple[Recipe, Path]) -> None:
    levels = collect_synthesis(*run).levels
    assert sum(counts.get("verified", 0) for counts in levels.values()) == 30
    assert sum(counts["combinations"] for counts in levels.values()) == 120
    assert levels["code", "CF-1600"]["problems"] == 25


def test_rows_are_chosen_by_content_and_spread_over_stages_and_reasons(
    run: tuple[Recipe, Path],
) -> None:
    versions = collect_synthesis(*run).versions
    accepted = choose_accepted(versions["verified"])
    assert len({trace.solution.problem.id for trace in accepted}) == 10
    assert accepted != [fixture.make_trace(n, 0, fixture.HOSTILE) for n in range(10)]
    assert choose_accepted(versions["verified"]) == accepted
    refused = choose_refused(versions)
    assert len(refused) == 10
    stages = [row.rejected.stage for row in refused]
    assert stages == sorted(
        stages, key=["problems", "distinct", "judged", "solutions", "verified"].index
    )
    assert len(set(stages)) == 5
    reasons = {row.rejected.reason for row in refused}
    assert {"missing_problem", "not_self_contained", "near_duplicate", "benchmark_item"} <= reasons
    for row in refused:
        if row.rejected.stage == "problems":
            assert row.combination is not None
        else:
            assert row.problem is not None
        assert (row.solution is not None) == (row.rejected.stage == "verified")


def test_equal_runs_have_equal_pages(run: tuple[Recipe, Path], page: str, tmp_path: Path) -> None:
    shutil.copytree(run[1], tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    again = write_synthesis_report(run[0], tmp_path / "run")
    assert again.read_text(encoding="utf-8") == page


def test_a_half_finished_run_says_what_is_missing(run: tuple[Recipe, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run[1] / "synthesis" / "combinations", out / "synthesis" / "combinations")
    text = flat(write_synthesis_report(run[0], out).read_text(encoding="utf-8"))
    assert "Verdicts and agreement appear here after python -m promptcot judge" in text
    assert "Nothing has been asked in this run folder." in text
    with pytest.raises(SourceError, match="no synthesis has been run"):
        write_synthesis_report(run[0], tmp_path / "empty")


def test_a_broken_shard_is_named(run: tuple[Recipe, Path], tmp_path: Path) -> None:
    shutil.copytree(run[1], tmp_path / "run")
    shard = resolve_version(tmp_path / "run" / "synthesis" / "verified").shard_paths()[0]
    shard.write_bytes(b"PAR1 not really")
    with pytest.raises(SourceError, match=re.escape(str(shard))):
        write_synthesis_report(run[0], tmp_path / "run")


def test_traces_that_nothing_confirmed_are_said_where_the_number_stands(
    run: tuple[Recipe, Path],
) -> None:
    facts = collect_synthesis(*run)
    text = flat(render_page(run[0], replace(facts, methods={"majority": 17, "unverified": 43})))
    assert "Traces kept60of 180 solutions43 confirmed by nothing" in text
    assert "43 of the 60 traces were confirmed by nothing" in text
    assert "17 confirmed by majority, 43 confirmed by nothing" in text
    assert "confirmed by nothing" not in flat(render_page(run[0], facts))
