"""Agreement statistics against published examples, and where they cannot be had."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptcot.agreement import cohen_kappa, fleiss_kappa, wilson_interval

# Cohen (1960), 200 patients in three categories.
COHEN_1960 = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]
# Fleiss, Levin and Paik, "Statistical Methods for Rates and Proportions", 100 diagnoses.
FLEISS_TWO_RATERS = [[75, 1, 4], [5, 4, 1], [0, 0, 10]]
# The worked example of Fleiss' κ that textbooks reprint: 10 subjects, 14 raters, 5 categories.
FLEISS_MANY = [
    (0, 0, 0, 0, 14),
    (0, 2, 6, 4, 2),
    (0, 0, 3, 5, 6),
    (0, 3, 9, 2, 0),
    (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0),
    (3, 2, 6, 3, 0),
    (2, 5, 3, 2, 2),
    (6, 5, 2, 1, 0),
    (0, 2, 2, 3, 7),
]


def test_cohen_1960() -> None:
    found = cohen_kappa(COHEN_1960)
    assert found.num_items == 200
    assert found.observed == pytest.approx(0.70)
    assert found.by_chance == pytest.approx(0.41)
    assert found.kappa == pytest.approx(0.29 / 0.59)


def test_fleiss_two_raters_with_its_standard_error() -> None:
    found = cohen_kappa(FLEISS_TWO_RATERS)
    assert (found.observed, found.by_chance) == (pytest.approx(0.89), pytest.approx(0.66))
    assert found.kappa == pytest.approx(0.23 / 0.34)
    assert found.kappa_interval is not None
    low, high = found.kappa_interval
    # Fleiss, Cohen and Everitt's large-sample error, written out as in the book.
    n = [[cell / 100 for cell in row] for row in FLEISS_TWO_RATERS]
    rows, columns = [sum(r) for r in n], [sum(c) for c in zip(*n, strict=True)]
    kappa, chance = found.kappa, 0.66
    a = sum(n[i][i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in range(3))
    b = (1 - kappa) ** 2 * sum(
        n[i][j] * (columns[i] + rows[j]) ** 2 for i in range(3) for j in range(3) if i != j
    )
    c = (kappa - chance * (1 - kappa)) ** 2
    error = math.sqrt(a + b - c) / ((1 - chance) * math.sqrt(100))
    assert error == pytest.approx(0.088, abs=0.001)
    assert (high - low) / 2 == pytest.approx(1.959964 * error, rel=1e-5)


def test_fleiss_many_raters() -> None:
    found = fleiss_kappa(dict.fromkeys(FLEISS_MANY, 1))
    assert found.observed == pytest.approx(0.378, abs=5e-4)
    assert found.by_chance == pytest.approx(0.213, abs=5e-4)
    assert found.kappa == pytest.approx(0.210, abs=5e-4)
    assert found.kappa_interval is not None
    assert found.kappa_interval[0] < 0.210 < found.kappa_interval[1]


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    # Newcombe (1998), table I, Wilson's score method.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_of_newcombe(hits: int, total: int, low: float, high: float) -> None:
    found = wilson_interval(hits / total, total)
    assert found == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_intervals_cover_the_truth() -> None:
    """200 samples of 150 items from known shares: about 95 % of the intervals hold the true κ."""
    cells = [(a, b) for a in range(3) for b in range(3)]
    weights = [cell / 200 for row in COHEN_1960 for cell in row]
    draw = random.Random(5)
    covered = 0
    for _ in range(200):
        table = [[0] * 3 for _ in range(3)]
        for a, b in draw.choices(cells, weights, k=150):
            table[a][b] += 1
        interval = cohen_kappa(table).kappa_interval
        assert interval is not None
        covered += interval[0] <= 0.29 / 0.59 <= interval[1]
    assert 180 <= covered <= 199


@pytest.mark.parametrize("table", [[[7, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0], [0, 3]]])
def test_one_verdict_for_all_is_said_in_words(table: list[list[int]]) -> None:
    found = cohen_kappa(table)
    assert (found.observed, found.kappa, found.kappa_interval) == (1.0, None, None)
    assert "every vote is the same" in found.note
    assert "every vote is the same" in found.describe()
    assert "NaN" not in json.dumps(found.as_json(), allow_nan=False)


def test_no_items_are_said_in_words() -> None:
    for found in (cohen_kappa([[0, 0], [0, 0]]), fleiss_kappa({}), fleiss_kappa({(3, 0): 0})):
        assert (found.num_items, found.observed, found.kappa) == (0, None, None)
        assert found.describe() == "no item has votes that can be compared"


def test_perfect_agreement_on_a_few_items_is_not_certain() -> None:
    found = cohen_kappa([[4, 0], [0, 4]])
    assert found.kappa == pytest.approx(1.0)
    assert found.kappa_interval is not None
    assert found.kappa_interval[0] < 0.5
    assert found.kappa_interval[1] == pytest.approx(1.0)


def test_judges_who_always_differ() -> None:
    found = cohen_kappa([[0, 5], [5, 0]])
    assert found.kappa == pytest.approx(-1.0)


def test_votes_must_be_of_one_number() -> None:
    with pytest.raises(ValueError, match="same number of votes"):
        fleiss_kappa({(2, 0): 1, (2, 1): 1})
    with pytest.raises(ValueError, match="two or more"):
        fleiss_kappa({(1, 0): 1})


small = st.integers(0, 12)


@given(st.lists(st.lists(small, min_size=3, max_size=3), min_size=3, max_size=3))
def test_figures_stay_in_bounds_and_do_not_depend_on_who_is_first(table: list[list[int]]) -> None:
    found = cohen_kappa(table)
    turned = cohen_kappa([list(column) for column in zip(*table, strict=True)])
    json.dumps(found.as_json(), allow_nan=False)
    assert (found.kappa is None) == (turned.kappa is None)
    if found.kappa is not None and turned.kappa is not None:
        assert found.kappa == pytest.approx(turned.kappa)
        assert found.kappa_interval is not None
        assert -1 <= found.kappa_interval[0] <= found.kappa + 1e-9
        assert found.kappa - 1e-9 <= found.kappa_interval[1] <= 1
    if found.observed is not None and found.observed_interval is not None:
        assert 0 <= found.observed_interval[0] <= found.observed <= found.observed_interval[1] <= 1


@given(st.lists(st.tuples(small, small, small), min_size=1, max_size=8))
def test_counting_items_together_or_apart_is_the_same(profiles: list[tuple[int, int, int]]) -> None:
    same = [(a, b, 40 - a - b) for a, b, _ in profiles]
    counted = fleiss_kappa({profile: 2 * same.count(profile) for profile in same})
    assert counted.num_items == 2 * len(same)
    once = fleiss_kappa({profile: same.count(profile) for profile in same})
    assert (counted.kappa is None) == (once.kappa is None)
    if counted.kappa is not None:
        assert counted.kappa == pytest.approx(once.kappa)


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_holds_the_share_and_narrows(hits: int, total: int) -> None:
    share = min(hits, total) / total
    low, high = wilson_interval(share, total)
    assert 0 <= low <= share <= high <= 1
    assert high - low > wilson_interval(share, total * 4)[1] - wilson_interval(share, total * 4)[0]
