"""What a run took and may take: the ledger's sums, and a budget that no run passes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_engines import ToyEngine, open_toy, questions, toy_recipe

from pipeline.errors import BudgetExceeded
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.account import Account
from promptcot.engines.ledger import cost_of, read_ledger
from promptcot.engines.protocol import Answer, Request
from promptcot.engines.teacher import Teacher

PRICES = """
[teachers.default]
usd_per_million_prompt_tokens = 1000.0
usd_per_million_completion_tokens = 10000.0
usd_per_hour = 0.0
[synthesis.budget]
"""


def talk(request: Request) -> Answer:
    """Some answers use what they may, others a part of it."""
    return Answer("text", "stop", 5, request.max_tokens if request.seed % 3 else 1)


def spent(out: Path) -> int:
    return sum(line.completion_tokens for line in read_ledger(out))


@settings(max_examples=15, deadline=None)
@given(limit=st.integers(100, 700), slots=st.integers(1, 12), group_size=st.sampled_from([None, 3]))
def test_a_budget_is_never_passed_and_raising_it_continues(
    tmp_path_factory: pytest.TempPathFactory, limit: int, slots: int, group_size: int | None
) -> None:
    out = tmp_path_factory.mktemp("run")
    requests = questions(12, max_tokens=50)
    needed = sum(talk(r).num_completion_tokens for r in requests)
    seeds: list[int] = []
    for allowed in (limit, 0):
        recipe = toy_recipe(out, f"[synthesis.budget]\nmax_completion_tokens = {allowed}\n")
        engine = ToyEngine(group_size, slots=slots, reply=talk)
        with open_toy(engine, out, recipe=recipe) as teacher:
            if allowed and needed > allowed:
                with pytest.raises(BudgetExceeded, match=r"max_completion_tokens = \d+") as caught:
                    teacher.answer_all(requests, "test")
                assert "same command" in caught.value.hint
            elif not allowed:
                teacher.answer_all(requests, "test")
        if allowed:
            assert spent(out) <= allowed
            worst_next = 50 * (group_size or 1)
            if needed > allowed:
                assert spent(out) > allowed - worst_next, "stopped although there was room"
        seeds += engine.seeds
    assert sorted(seeds) == list(range(12)), "an answer was paid for twice, or lost"


def test_money_counts_tokens_and_the_prompt_at_its_worst(tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path, PRICES + "max_usd = 1.2\n")
    engine = ToyEngine(reply=talk)
    with (
        pytest.raises(BudgetExceeded, match=r"max_usd = 1\.20"),
        open_toy(engine, tmp_path, recipe=recipe) as teacher,
    ):
        teacher.answer_all(questions(12, max_tokens=50), "test")
    lines = read_ledger(tmp_path)
    usd = sum(cost_of(line, recipe.settings.teachers["default"]).usd for line in lines)
    assert 0.5 < usd <= 1.2


def test_time_at_work_is_limited(tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path, f"[synthesis.budget]\nmax_hours = {0.2 / 3600}\n")
    engine = ToyEngine(slots=1, delay=lambda seed: 0.03)
    with (
        pytest.raises(BudgetExceeded, match="max_hours"),
        open_toy(engine, tmp_path, recipe=recipe) as teacher,
    ):
        teacher.answer_all(questions(40), "test")
    assert 5 <= len(engine.seeds) <= 9


def test_teachers_share_one_budget(tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path, "[synthesis.budget]\nmax_completion_tokens = 500\n")
    engines = [ToyEngine(reply=talk, delay=lambda seed: 0.01) for _ in range(2)]
    with Account(recipe, tmp_path) as account:
        teachers = [
            Teacher(engine, name=f"t{i}", account=account, owns_account=False)
            for i, engine in enumerate(engines)
        ]
        with teachers[0], teachers[1], ThreadPoolExecutor(2) as pool:
            calls = [
                pool.submit(teacher.answer_all, questions(30, 100 * i, max_tokens=50), "test")
                for i, teacher in enumerate(teachers)
            ]
            for call in calls:
                with pytest.raises(BudgetExceeded):
                    call.result()
    assert 450 < spent(tmp_path) <= 500


def test_what_is_in_flight_when_the_budget_ends_is_kept(tmp_path: Path) -> None:
    def reply(request: Request) -> Answer:
        return Answer("text", "stop", 0, 30 if request.seed else 50)

    recipe = toy_recipe(tmp_path, "[synthesis.budget]\nmax_completion_tokens = 110\n")
    # The first reply shows that a third request does not fit while the second is still running.
    engine = ToyEngine(slots=2, delay=lambda seed: 0.2 * seed, reply=reply)
    with (
        pytest.raises(BudgetExceeded),
        open_toy(engine, tmp_path, recipe=recipe) as teacher,
    ):
        teacher.answer_all(questions(9, max_tokens=50), "test")
    assert spent(tmp_path) == 80
    assert engine.seeds == [0, 1]


def test_ledger_sums_by_stage_and_counts_shared_time_once(tmp_path: Path) -> None:
    engine = ToyEngine(slots=32, delay=lambda seed: 0.15)
    start = time.monotonic()
    with open_toy(engine, tmp_path) as teacher, ThreadPoolExecutor(2) as pool:
        first = pool.submit(teacher.answer_all, questions(8), "problems")
        other = pool.submit(teacher.answer_all, questions(4, 100), "tests")
        first.result(), other.result()
        teacher.answer_all(questions(8), "problems")
    wall = time.monotonic() - start
    lines = {line.stage: line for line in read_ledger(tmp_path)}
    assert {name: line.requests for name, line in lines.items()} == {"problems": 8, "tests": 4}
    assert lines["problems"].completion_tokens == 16
    assert lines["problems"].teacher == "default"
    assert 0.1 < sum(line.seconds for line in lines.values()) < wall, "not the sum over requests"


def test_costs_follow_the_prices(tmp_path: Path) -> None:
    with open_toy(ToyEngine(slots=1, delay=lambda seed: 0.1), tmp_path) as teacher:
        teacher.answer_all(questions(2), "test")
    (line,) = read_ledger(tmp_path)
    prices = TeacherSettings(usd_per_million_prompt_tokens=1e6, usd_per_hour=3600.0, num_gpus=8)
    cost = cost_of(line, prices)
    assert cost.usd == pytest.approx(2 + line.seconds)
    assert cost.gpu_hours == pytest.approx(8 * line.seconds / 3600)


def test_no_answers_no_ledger(tmp_path: Path) -> None:
    assert read_ledger(tmp_path) == []
    assert not (tmp_path / "answers").exists()


def test_waiting_time_is_kept_before_any_answer(tmp_path: Path) -> None:
    engine = ToyEngine(delay=lambda seed: 60.0)
    with open_toy(engine, tmp_path) as teacher, ThreadPoolExecutor(1) as pool:
        call = pool.submit(teacher.answer_all, questions(1), "test")
        deadline = time.monotonic() + 5
        while not read_ledger(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert read_ledger(tmp_path)[0].seconds > 0.5
        teacher.cancel()
        assert call.exception() is not None
