"""From steps to tokens a second, ratios and break-even lengths."""

from __future__ import annotations

from typing import Any

import pytest

from evaluation.throughput.curves import (
    Comparison,
    break_even_length,
    check_flatness,
    compare,
    make_rows,
    mean_ms,
)
from evaluation.throughput.plan import describe_plan
from evaluation.throughput.records import Group, Point
from evaluation.throughput.shapes import Subject
from pipeline.settings.recipe import load_recipe
from pipeline.settings.throughput import ThroughputSettings

SETTINGS = ThroughputSettings(budgets_gb=(24.0,), lengths=(100, 1000), prompt_tokens=10)


SUBJECTS = (
    Subject("Mamba-2", "mamba2", 5_000_000, 10_000_000, 10_000_000, 1000, 0, "bfloat16"),
    Subject("Transformer", "transformer", 5_000_000, 10_000_000, 9_000_000, 0, 20, "bfloat16"),
)


def make_point(position: int, ms: float) -> Point:
    return Point(
        position=position, median_ms=ms, low_ms=ms, high_ms=ms, steps=2, route="decode loop"
    )


def make_group(mode: str, length: int, batch: int, points: list[Point]) -> Group:
    is_mamba = mode == "constant"
    return Group(
        model="Mamba-2" if is_mamba else "Transformer",
        kind="mamba2" if is_mamba else "transformer",
        state_dtype="bfloat16",
        budget_gb=24.0,
        mode=mode,
        length=length,
        tokens=0 if is_mamba else 10 + length,
        batch=batch,
        peak_bytes=20 * 2**30,
        cache_bytes=batch * 1000,
        refused=(),
        points=tuple(points),
    )


def make_groups(*, last_mamba_ms: float = 10.0, reserved_batch: int = 2) -> list[Group]:
    mamba = [make_point(10, 10.0), make_point(109, 10.0), make_point(1009, last_mamba_ms)]
    groups = [make_group("constant", 0, 50, mamba)]
    for length in SETTINGS.lengths:
        end = 10 + length - 1
        points = [make_point(10, 5.0), make_point(10 + length // 2, 7.5), make_point(end, 10.0)]
        batch = reserved_batch if length == 1000 else 20
        groups.append(make_group("reserved", length, batch, points if batch else []))
        groups.append(make_group("paged", length, 40, [make_point(10 + length // 2, 8.0)]))
    return groups


def test_a_mean_step_weighs_positions_by_their_distance() -> None:
    points = [make_point(0, 1.0), make_point(10, 3.0), make_point(110, 3.0)]
    assert mean_ms(points, 0, 110) == pytest.approx((10 * 2 + 100 * 3) / 110)
    assert mean_ms(points, 5, 10) == pytest.approx(2.5)
    assert mean_ms(points, 10, 10) == 3.0
    assert mean_ms(points[:1], 0, 500) == 1.0


def test_tokens_a_second_are_batch_by_mean_step() -> None:
    rows = {(row.mode, row.length): row for row in make_rows(make_groups(), SUBJECTS, SETTINGS)}
    assert rows["constant", 1000].tokens_per_s == pytest.approx(50 / 10e-3)
    assert rows["reserved", 1000].tokens_per_s == pytest.approx(2 / 7.5e-3, rel=0.01)
    assert rows["paged", 100].tokens_per_s == pytest.approx(40 / 8e-3)
    assert rows["reserved", 100].first_ms == 5.0
    assert rows["reserved", 100].last_ms == 10.0
    # Weights, and twice the states; weights, and the keys and values of a half full cache.
    assert rows["constant", 100].moved_gb_per_s == pytest.approx(10_100_000 / 10e-3 / 1e9)
    assert rows["paged", 100].moved_gb_per_s == pytest.approx(9_048_000 / 8e-3 / 1e9)


def test_both_ways_of_reserving_are_compared() -> None:
    short, long = compare(make_rows(make_groups(), SUBJECTS, SETTINGS), SETTINGS)
    assert short.ratio == pytest.approx(5000 / (20 / 7.5e-3), rel=0.02)
    assert long.ratio_paged == pytest.approx(1.0)


def test_what_does_not_fit_has_no_rate_and_no_ratio() -> None:
    groups = make_groups(reserved_batch=0)
    _, long = compare(make_rows(groups, SUBJECTS, SETTINGS), SETTINGS)
    assert long.reserved == 0
    assert long.ratio is None


def make_comparisons(ratios: dict[int, float | None]) -> list[Comparison]:
    return [
        Comparison(
            budget_gb=24.0,
            length=length,
            mamba=1.0,
            reserved=0.0 if ratio is None else 1 / ratio,
            paged=1.0,
            ratio=ratio,
            ratio_paged=1.0,
        )
        for length, ratio in ratios.items()
    ]


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ({100: 0.5, 400: 2.0}, 200.0),
        ({100: 1.5, 400: 2.0}, 100.0),
        ({100: 0.5, 400: 0.9}, None),
        ({100: 0.5, 200: None}, 200.0),
        ({100: 2.0, 200: 0.5, 800: 2.0}, 400.0),
    ],
)
def test_break_even_is_where_the_ratio_passes_one_for_good(
    ratios: dict[int, float | None], expected: float | None
) -> None:
    found = break_even_length(make_comparisons(ratios))
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(("last_ms", "passes"), [(10.4, True), (10.6, False)])
def test_a_step_that_grows_with_length_fails_the_check(last_ms: float, passes: bool) -> None:
    rows = make_rows(make_groups(last_mamba_ms=last_ms), SUBJECTS, SETTINGS)
    (check,) = check_flatness(rows, [], SETTINGS)
    assert check.passed is passes


@pytest.mark.parametrize(
    ("change", "passes"),
    [({}, True), ({"last_ms": 12.0}, False), ({"grown_bytes": 1 << 30}, False)],
)
def test_a_walk_must_neither_slow_down_nor_grow(change: dict[str, Any], passes: bool) -> None:
    walk: dict[str, Any] = {
        "steps": 100,
        "batch": 4,
        "first_ms": 10.0,
        "last_ms": 10.1,
        "grown_bytes": 0,
    }
    walk |= {"state_dtype": "bfloat16"}
    rows = make_rows(make_groups(), SUBJECTS, SETTINGS)
    assert check_flatness(rows, [walk | change], SETTINGS)[-1].passed is passes


def test_the_plan_calculates_the_known_concurrency() -> None:
    """About 46 and 380 sequences against 12 / 6 / 3 / 1.5 and 110 / 55 / 27 / 14."""
    plan = describe_plan(load_recipe("paper", ["throughput.lengths=[8192, 16384, 32768, 65536]"]))
    found: dict[tuple[float, str], list[float]] = {}
    for one in plan["concurrency"]:
        found.setdefault((one["budget_gb"], one["model"]), []).append(one["sequences"])
    assert found[24.0, "Mamba-2"] == pytest.approx([46] * 4, rel=0.03)
    assert found[72.0, "Mamba-2"] == pytest.approx([380] * 4, rel=0.03)
    assert found[24.0, "Qwen2.5-7B"] == pytest.approx([12, 6, 3, 1.5], rel=0.05)
    assert found[72.0, "Qwen2.5-7B"] == pytest.approx([110, 55, 27, 14], rel=0.05)
    assert plan["memory_break_even_tokens"]["bfloat16"] == pytest.approx(2400, rel=0.01)
