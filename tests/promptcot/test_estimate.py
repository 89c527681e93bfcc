"""Estimates: bounds that hold, a pilot whose forecast meets the run, and a budget in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_synthesis import SCRIPT, make_recipe

from pipeline import console
from pipeline.cli import exit_code_of
from pipeline.errors import ConfigError, StoreError
from promptcot.__main__ import app
from promptcot.costs import collect_costs, total_cost
from promptcot.estimate import Estimate, bound_stages, estimate_run
from promptcot.estimate_view import short_number, show_estimate, show_time
from promptcot.extrapolate import Forecast, Range
from promptcot.pilot import find_pilot, run_pilot
from promptcot.stage_names import STAGES
from promptcot.synthesis import synthesize_all

PILOT = 24
WHOLE = 96


@pytest.fixture(scope="module")
def piloted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder in which a pilot has ended."""
    folder = tmp_path_factory.mktemp("piloted")
    recipe = make_recipe(folder, f"synthesis.combinations.num_combinations={WHOLE}")
    run_pilot(recipe, folder / "out", PILOT)
    return folder


def estimate_of(folder: Path, *overrides: str) -> Estimate:
    recipe = make_recipe(folder, f"synthesis.combinations.num_combinations={WHOLE}", *overrides)
    return estimate_run(recipe, folder / "out")


def forecast_of(folder: Path, *overrides: str) -> Forecast:
    found = estimate_of(folder, *overrides).forecast
    assert found is not None
    return found


def test_the_run_lies_within_the_pilots_forecast(piloted: Path, tmp_path: Path) -> None:
    found = forecast_of(piloted)
    recipe = make_recipe(tmp_path, f"synthesis.combinations.num_combinations={WHOLE}")
    versions = synthesize_all(recipe, tmp_path / "out")
    for stage in found.stages:
        rows = versions[stage.stage].manifest.rows_out
        assert stage.rows_out.low <= rows <= stage.rows_out.high, stage.stage
    total = total_cost(collect_costs(recipe, tmp_path / "out"))
    for name in ("requests", "prompt_tokens", "completion_tokens"):
        assert found.total[name].low <= getattr(total, name) <= found.total[name].high, name


def test_the_pilots_answers_are_the_runs(piloted: Path) -> None:
    recipe = make_recipe(piloted, f"synthesis.combinations.num_combinations={WHOLE}")
    before = total_cost(collect_costs(recipe, piloted / "out")).requests
    assert before > 0
    synthesize_all(recipe, piloted / "out")
    costs = {cost.stage: cost for cost in collect_costs(recipe, piloted / "out")}
    # Every combination is asked about once, those of the pilot included.
    assert costs["problems"].requests == WHOLE
    assert (piloted / "out" / "pilot" / "answers").exists() is False


def test_a_pilots_log_is_not_written_through_a_link(piloted: Path, tmp_path: Path) -> None:
    (name,) = (path.name for path in (piloted / "out" / "pilot" / "logs").glob("asked-*.jsonl"))
    log = tmp_path / "out" / "pilot" / "logs" / name
    log.parent.mkdir(parents=True)
    log.symlink_to(tmp_path / "victim")
    recipe = make_recipe(tmp_path, f"synthesis.combinations.num_combinations={WHOLE}")
    with pytest.raises(StoreError, match=r"asked-.*\.jsonl is a symbolic link"):
        run_pilot(recipe, tmp_path / "out", PILOT)
    assert not (tmp_path / "victim").exists()


def test_a_finished_pilot_is_used_until_a_setting_changes(piloted: Path) -> None:
    assert estimate_of(piloted).forecast is not None
    assert estimate_of(piloted, "synthesis.judging.temperature=0.1").forecast is None
    more = make_recipe(piloted, "synthesis.combinations.num_combinations=480")
    found = find_pilot(more, piloted / "out")
    assert found is not None
    assert found.num_combinations == PILOT
    larger, smaller = estimate_run(more, piloted / "out").forecast, forecast_of(piloted)
    assert larger is not None
    assert larger.total["requests"].expected == pytest.approx(
        5 * smaller.total["requests"].expected, rel=0.05
    )


def test_a_pilot_must_be_smaller_than_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no smaller than the run"):
        run_pilot(make_recipe(tmp_path), tmp_path / "out", 24)
    assert not (tmp_path / "out").exists()


def test_a_pilot_that_accepts_nothing_says_where_it_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console.reset()
    script = [{"match": "You write", "text": ""}]
    recipe = make_recipe(tmp_path, script=script)
    run_pilot(recipe, tmp_path / "out", 8)
    found = estimate_run(recipe, tmp_path / "out")
    show_estimate(found)
    assert "no row of the pilot reached stage distinct" in capsys.readouterr().out
    assert found.forecast is not None
    assert found.forecast.total["traces"].low < 0.5


def test_money_and_what_the_budget_allows(piloted: Path) -> None:
    prices = (
        "teachers.default.usd_per_million_prompt_tokens=1000.0",
        "teachers.default.usd_per_million_completion_tokens=4000.0",
    )
    found = forecast_of(piloted, *prices)
    usd = found.total["usd"]
    assert usd.expected == pytest.approx(
        (found.total["prompt_tokens"].expected + 4 * found.total["completion_tokens"].expected)
        / 1000,
        rel=1e-6,
    )
    half = estimate_of(piloted, *prices, f"synthesis.budget.max_usd={usd.expected / 2}")
    (allowance,) = half.allowances
    assert allowance.stops_in in STAGES
    assert allowance.low <= WHOLE / 2 <= allowance.high
    fits = estimate_of(piloted, *prices, f"synthesis.budget.max_usd={usd.high * 2}")
    assert fits.allowances[0].stops_in is None


def test_bounds_follow_the_settings(tmp_path: Path) -> None:
    recipe = make_recipe(
        tmp_path,
        "synthesis.problems.attempts=3",
        "synthesis.judging.judges=[{votes = 2}, {name = 'b'}]",
        "teachers.default.usd_per_million_completion_tokens=2.0",
    )
    bounds = {bound.stage: bound for bound in bound_stages(recipe)}
    assert tuple(bounds) == STAGES
    assert bounds["problems"].requests == 72
    assert bounds["judged"].requests == 72
    assert bounds["judged"].usd == pytest.approx(72 * 2048 * 2e-6)
    assert bounds["solutions"].requests == 96
    assert bounds["verified"].requests == 6
    assert bound_stages(recipe, ["triples"])[0].requests > 0
    assert (
        bound_stages(recipe, ["refine"])[0].requests > bound_stages(recipe, ["triples"])[0].requests
    )


def test_the_command_runs_the_pilot_and_prints_one_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_recipe(tmp_path)
    console.reset()
    args = ["estimate", "--recipe", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "out")]
    assert exit_code_of(app, "python -m promptcot", [*args, "--pilot", "12", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["forecast"]
    assert found["pilot_combinations"] == 12
    assert [stage["stage"] for stage in found["stages"]] == list(STAGES)
    for stage in found["stages"]:
        pilot = stage["pilot"]
        low, high = pilot["accepted_interval"]
        assert low <= pilot["accepted"] <= high
    assert set(found["total"]) >= {"requests", "completion_tokens", "usd", "bytes", "traces"}
    console.reset()


def test_a_pilot_without_a_bank_takes_some_seeds_and_counts_all(tmp_path: Path) -> None:
    problems = [
        f"A {thing} holds {n} rows of {n + 4} {what}, and {n - 3} of them are taken. How many are left?"
        for thing, what in (("shelf", "books"), ("field", "trees"), ("hall", "chairs"))
        for n in range(7, 17)
    ]
    named = '{"concepts": ["groups", "products", "differences", "grids", "counting"]}'
    script = [*SCRIPT, *({"match": problem, "text": named} for problem in problems)]
    path = tmp_path / "seeds.jsonl"
    path.write_text("\n".join(json.dumps({"problem": p}) for p in problems), encoding="utf-8")
    recipe = make_recipe(
        tmp_path,
        f"synthesis.seeds=[{{name = 'own', path = '{path}', domain = 'math'}}]",
        "synthesis.combinations={num_combinations = 12, size = 2}",
        script=script,
    )
    run_pilot(recipe, tmp_path / "out", 5)
    found = estimate_run(recipe, tmp_path / "out").forecast
    assert found is not None
    stages = {stage.stage: stage for stage in found.stages}
    assert stages["extracted"].pilot_in == 5
    assert stages["extracted"].rows_in.expected == 30
    assert stages["extracted"].amounts["requests"].expected == 30
    assert stages["concepts"].rows_in.high <= 30
    assert stages["problems"].rows_in.expected == 12


@given(st.floats(min_value=0, max_value=1e18))
def test_numbers_and_times_stay_short(value: float) -> None:
    assert len(short_number(value)) <= 12
    assert len(show_time(min(value, 1e9))) <= 14


@given(st.lists(st.floats(min_value=0, max_value=1e9), min_size=2, max_size=50))
def test_a_range_is_in_order(values: list[float]) -> None:
    import numpy as np

    found = Range.of(np.array(values))
    assert found.low <= found.high
    assert min(values) - 1e-6 <= found.expected <= max(values) + 1e-6
