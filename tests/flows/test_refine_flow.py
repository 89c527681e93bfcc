"""The flow ``refine-rationales`` on a real server: a task a round, its files, and a second run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from seed_recipe import SHOP_SCRIPT, SHOP_SEEDS, write_seed_recipe
from test_flows import read_run, run_flow
from tiny_scorer import build_tiny_scorer

from pipeline.manifest import resolve_version, verify_version
from pipeline.records import Triple

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
    pytest.mark.timeout(300),
]


@pytest.fixture
def refine_recipe(tmp_path: Path) -> Path:
    """Nine problems, three rounds, and a scoring model with random weights."""
    scorer = build_tiny_scorer(tmp_path / "scorer")
    return write_seed_recipe(tmp_path, seeds=SHOP_SEEDS, script=SHOP_SCRIPT, scorer=scorer)


def tasks_in_order(state: Any) -> list[Any]:
    return sorted(read_run(state)[1], key=lambda task: task.start_time)


def test_each_round_is_a_task_and_a_second_run_reuses_them_all(
    refine_recipe: Path, tmp_path: Path
) -> None:
    from flows.refine_rationales import refine_rationales

    out = tmp_path / "out"
    parameters = {"recipe": str(refine_recipe), "out": str(out)}
    first = run_flow(refine_rationales, **parameters)
    assert first.is_completed(), first.message
    run, _, artifacts = read_run(first)
    assert run.name == "tiny-refine-3x4"
    tasks = tasks_in_order(first)
    assert [task.name for task in tasks] == ["refined-1", "refined-2", "refined-3"]
    assert [task.state_name for task in tasks] == ["Completed"] * 3

    chosen = []
    for number, task in enumerate(tasks, start=1):
        version = resolve_version(out / "synthesis" / f"refined-{number}")
        verify_version(version)
        rows = [Triple.model_validate(row) for row in version.rows()]
        objective = version.manifest.extra["objective"]
        chosen.append(objective["chosen"])
        assert task.state.message == (
            f"8 of 9 problems, objective {objective['chosen']:.2f}, "
            f"of a random choice {objective['drawn']:.2f}"
        )
        scores = [row.score for row in rows if row.score is not None]
        assert sum(scores) / len(rows) == pytest.approx(objective["chosen"], abs=1e-4)
    assert chosen == sorted(chosen)
    assert first.message == f"refinement, round 3: {tasks[-1].state.message}"

    folder = out / "synthesis" / "refinement"
    rounds = json.loads((folder / "rounds.json").read_text(encoding="utf-8"))["rounds"]
    assert [entry["objective"]["chosen"] for entry in rounds] == chosen
    assert (folder / "objective.svg").read_text(encoding="utf-8").startswith("<svg")

    assert set(artifacts) == {"resolved-config", "sample", "objective"}
    assert "`synthesis.refinement.rounds` | `3`" in artifacts["resolved-config"].data
    table = json.loads(artifacts["objective"].data)
    assert [row["kept"].split()[0] for row in table] == [f"{value:.2f}" for value in chosen]
    assert str(folder / "objective.svg") in artifacts["objective"].description
    sample = json.loads(artifacts["sample"].data)
    assert len(sample) == 8
    assert {"problem", "rationale", "score"} <= sample[0].keys()

    before = {path: path.stat().st_mtime_ns for path in (out / "synthesis").rglob("*.parquet")}
    second = run_flow(refine_rationales, **parameters)
    assert second.is_completed(), second.message
    tasks = tasks_in_order(second)
    assert [task.state_name for task in tasks] == ["Reused"] * 3
    assert [task.state.message for task in tasks][-1] == first.message.removeprefix(
        "refinement, round 3: "
    )
    after = {path: path.stat().st_mtime_ns for path in (out / "synthesis").rglob("*.parquet")}
    assert after == before
    assert set(read_run(second)[2]) == set(artifacts)


def test_a_scoring_model_that_is_missing_is_said_in_one_sentence(
    refine_recipe: Path, tmp_path: Path
) -> None:
    from flows.refine_rationales import refine_rationales

    state = run_flow(
        refine_rationales,
        recipe=str(refine_recipe),
        out=str(tmp_path / "out"),
        overrides=["synthesis.refinement.scorer.model=nowhere"],
    )
    assert state.is_failed()
    assert state.message.startswith("refinement, round 1: scoring model 'nowhere'")
    assert " — remedy: " in state.message
