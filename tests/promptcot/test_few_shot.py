"""Few-shot examples: most shared concepts first, the same in every process, never the problem."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Seed
from promptcot.few_shot import ExampleIndex

NAMES = [f"concept {letter}" for letter in "abcdefghij"]


def seed(number: int, concepts: list[str], *, rationale: bool = True, problem: bool = True) -> Seed:
    return Seed(
        concepts=concepts, domain="math", level="AIME",
        problem=f"Problem {number}?" if problem else None,
        rationale="Because." if rationale else None,
    )  # fmt: skip


def test_most_shared_concepts_come_first_and_whole_triples_before_others() -> None:
    seeds = [
        seed(0, ["a", "b"]),
        seed(1, ["a", "b", "c"]),
        seed(2, ["a", "b", "c", "d"], rationale=False),
        seed(3, ["x", "y"]),
        seed(4, ["a", "b", "c", "d"], problem=False),
    ]
    index = ExampleIndex(seeds)
    assert len(index) == 4
    found = index.nearest(["a", "b", "c", "d"], 4, seed=1)
    assert [s.problem for s in found] == ["Problem 1?", "Problem 0?", "Problem 2?", "Problem 3?"]
    assert index.nearest(["a", "b"], 2, seed=1, exclude="Problem 1?")[0].problem == "Problem 0?"
    assert index.nearest(["nothing"], 0, seed=1) == ()
    assert ExampleIndex([]).nearest(["a"], 3, seed=1) == ()


def test_seeds_without_rationales_are_used_where_there_are_no_others() -> None:
    index = ExampleIndex([seed(n, ["a", f"b{n}"], rationale=False) for n in range(5)])
    found = index.nearest(["a", "b3"], 2, seed=9)
    assert found[0].problem == "Problem 3?"
    assert len(found) == 2


def test_equals_come_in_an_order_that_the_seed_decides() -> None:
    seeds = [seed(n, ["a", f"own {n}"]) for n in range(50)]
    first = [[s.problem for s in ExampleIndex(seeds).nearest(["a"], 3, seed=n)] for n in range(20)]
    assert first == [
        [s.problem for s in ExampleIndex(seeds).nearest(["a"], 3, seed=n)] for n in range(20)
    ]
    assert len({tuple(found) for found in first}) > 15


@given(
    st.lists(st.lists(st.sampled_from(NAMES), min_size=2, max_size=5, unique=True), max_size=25),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True),
    st.integers(0, 6),
)
def test_the_index_finds_what_a_full_scan_finds(
    lists: list[list[str]], wanted: list[str], count: int
) -> None:
    seeds = [seed(n, concepts, rationale=n % 3 > 0) for n, concepts in enumerate(lists)]
    found = ExampleIndex(seeds).nearest(wanted, count, seed=3)

    def grade(one: Seed) -> tuple[bool, int]:
        shared = len(set(one.concepts) & set(wanted))
        return (shared > 0 and one.rationale is not None, shared)

    best = sorted((grade(one) for one in seeds), reverse=True)[:count]
    assert [grade(one)[1] for one in found] == [shared for _, shared in best]
    assert len({one.problem for one in found}) == len(found) == min(count, len(seeds))


def test_ten_thousand_seeds_take_no_time() -> None:
    seeds = [
        seed(n, [f"c{n * k % 700}" for k in (1, 3, 7, 11)] + ["common"]) for n in range(10_000)
    ]
    index = ExampleIndex(seeds)
    start = time.perf_counter()
    for n in range(200):
        index.nearest(seeds[n].concepts, 4, seed=n)
    # 0.2 ms each alone on a machine; hashing every seed took 10 ms.
    assert (time.perf_counter() - start) / 200 < 0.005
