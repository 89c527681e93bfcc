"""Refinement: the best rationale is kept, rounds never fall under a fixed p, kills change nothing."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from seed_recipe import REPLIES, SHOP_SCRIPT, SHOP_SEEDS, WHYS, write_seed_recipe
from tiny_scorer import build_tiny_scorer

from pipeline.errors import TeacherError
from pipeline.manifest import Version, verify_version
from pipeline.records import Triple
from pipeline.settings.recipe import load_recipe
from pipeline.settings.refinement import ScorerSettings
from promptcot.refine import run_refinement
from promptcot.run_context import SynthesisRun
from promptcot.scoring import ScoreBook, open_scorer
from promptcot.triple_text import join_triple

SEEDS = [
    *SHOP_SEEDS,
    {"concepts": ["a", "b"], "domain": "math", "level": "AIME", "problem": None},
]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_scorer(tmp_path_factory.mktemp("scorer"))


def open_run(
    folder: Path, scorer: Path, *overrides: str, script: list[dict[str, Any]] | None = None
) -> SynthesisRun:
    recipe = write_seed_recipe(folder, seeds=SEEDS, script=script or SHOP_SCRIPT, scorer=scorer)
    return SynthesisRun(load_recipe(str(recipe), overrides), folder / "out")


def read(version: Version) -> list[Triple]:
    verify_version(version)
    return [Triple.model_validate(row) for row in version.rows()]


def tree(folder: Path) -> dict[str, bytes]:
    root = folder / "out" / "synthesis"
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()
    }


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, scorer: Path
) -> tuple[Path, list[Version]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    with open_run(folder, scorer) as run:
        return folder, run_refinement(run)


def test_the_best_of_the_drawn_rationales_is_kept(
    undisturbed: tuple[Path, list[Version]], scorer: Path
) -> None:
    folder, versions = undisturbed
    rows = read(versions[0])
    assert [row.source_id for row in rows] == [str(n) for n in range(5, 14) if n != 10]
    assert next(iter(versions[0].manifest.rejected.values())) == {"missing_rationale": 1}
    recipe = load_recipe(str(folder / "tiny.toml"), ())
    with ScoreBook(
        open_scorer(ScorerSettings(model=str(scorer)), recipe), folder / "fresh"
    ) as book:
        for row in rows:
            texts = [
                join_triple(row.concepts, row.level, "math", rationale=why, problem=row.problem)
                for why in WHYS
            ]
            values = {
                why: score.objective("sum")
                for why, score in zip(WHYS, book.score_all(texts), strict=True)
                if score is not None
            }
            assert row.score is not None
            assert row.mean_score is not None
            assert row.score == pytest.approx(values[row.rationale], rel=1e-4)
            assert row.mean_score <= row.score
            assert row.score <= max(values.values()) + 1e-3
            assert 1 <= row.num_candidates <= 4


def test_under_a_fixed_model_the_objective_never_falls(
    undisturbed: tuple[Path, list[Version]],
) -> None:
    folder, versions = undisturbed
    kept = [{row.source_id: row for row in read(version)} for version in versions]
    for former, latter in pairwise(kept):
        for name, row in former.items():
            score = latter[name].score
            assert score is not None
            assert row.score is not None
            assert score >= row.score
    chosen = [version.manifest.extra["objective"]["chosen"] for version in versions]
    assert chosen == sorted(chosen)
    assert chosen[-1] > chosen[0]
    written = json.loads((folder / "out/synthesis/refinement/rounds.json").read_text())
    assert [entry["objective"]["chosen"] for entry in written["rounds"]] == chosen
    for version in versions:
        found = version.manifest.extra["objective"]
        assert found["gain"] == pytest.approx(found["chosen"] - found["drawn"], abs=1e-5)
        low, high = found["gain_interval"]
        assert low <= found["gain"] <= high
    assert (folder / "out/synthesis/refinement/objective.svg").read_text().startswith("<svg")


def test_later_rounds_are_shown_the_best_of_other_seeds(tmp_path: Path, scorer: Path) -> None:
    """Round 1 has no seed with a rationale to show; the script answers by what it is shown."""
    own = "(?s)\\b(\\d+) boxes.*Problem:\\n[^\\n]*\\b\\1 boxes[^\\n]*\\Z"
    shown = [
        {"pattern": own, "text": "shown its own problem"},
        {"match": "Example\nFoundational concepts", "text": REPLIES[1]},
        {"match": "Problem:", "text": REPLIES[0]},
    ]
    with open_run(tmp_path, scorer, "synthesis.refinement.rounds=2", script=shown) as run:
        first, second = run_refinement(run)
    assert {row.rationale for row in read(first)} == {WHYS[0]}
    assert second.manifest.rejected == {}
    assert second.manifest.extra["counts"] == {"drawn": 36, "well_formed": 36}
    assert {row.rationale for row in read(second)} <= {WHYS[0], WHYS[1]}


def test_a_stopped_run_ends_with_the_same_bytes(
    undisturbed: tuple[Path, list[Version]],
    tmp_path: Path,
    scorer: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped while it scores, in the middle of every round, until it is through."""
    calls = 0
    whole = ScoreBook._score_group

    def stop_at_times(self: ScoreBook, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls % 4 == 3:
            raise TeacherError("stopped", hint="go on")
        whole(self, *args)

    monkeypatch.setattr(ScoreBook, "_score_group", stop_at_times)
    stops = 0
    for _ in range(60):
        with open_run(tmp_path, scorer) as run:
            try:
                run_refinement(run)
            except TeacherError:
                stops += 1
                continue
        break
    assert stops > 3
    assert tree(tmp_path) == tree(undisturbed[0])


def test_more_rounds_reuse_the_ones_before(
    undisturbed: tuple[Path, list[Version]], scorer: Path
) -> None:
    folder, versions = undisturbed
    with open_run(folder, scorer, "synthesis.refinement.rounds=4") as run:
        again = run_refinement(run)
    assert [version.name for version in again[:3]] == [version.name for version in versions]
    assert all(version.reused for version in again[:3])


def test_a_draw_of_seeds_is_seeded(tmp_path: Path, scorer: Path) -> None:
    settings = ("synthesis.refinement.max_problems=3", "synthesis.refinement.rounds=1")
    with open_run(tmp_path / "a", scorer, *settings) as run:
        first = run_refinement(run)[0]
    assert first.manifest.rows_in == 3
    with open_run(tmp_path / "b", scorer, *settings) as run:
        assert run_refinement(run)[0].name == first.name


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_fitting_raises_the_objective_of_what_was_kept(tmp_path: Path, scorer: Path) -> None:
    settings = [
        "synthesis.refinement.rounds=2",
        "synthesis.refinement.fit.enabled=true",
        "synthesis.refinement.fit.learning_rate=3e-3",
        "synthesis.refinement.fit.epochs=3",
        "synthesis.refinement.fit.documents_per_step=2",
        "synthesis.refinement.fit.max_length=1024",
    ]
    with open_run(tmp_path, scorer, *settings) as run:
        versions = run_refinement(run)
    written = json.loads((tmp_path / "out/synthesis/refinement/rounds.json").read_text())["rounds"]
    assert written[0]["after_fit"] > written[0]["objective"]["chosen"]
    # The second round scores with the fitted model, so the same texts score higher there.
    assert written[1]["objective"]["drawn"] > written[0]["objective"]["drawn"]
    model = tmp_path / "out/synthesis/generator/round-1"
    assert (model / "model.safetensors").is_file()
    before = (model / "fit.json").stat().st_mtime_ns
    with open_run(tmp_path, scorer, *settings) as run:
        assert [v.name for v in run_refinement(run)] == [v.name for v in versions]
    assert (model / "fit.json").stat().st_mtime_ns == before
