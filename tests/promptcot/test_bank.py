"""The bank counts what a dictionary of pairs would count, and gives seeds back as they were."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Seed, arrow_schema
from promptcot.bank import SeedTable, build_bank

NAMES = [f"concept {letter}" for letter in "dcbafegh"]
LISTS = st.lists(st.lists(st.sampled_from(NAMES), min_size=2, max_size=6, unique=True), min_size=1)


def make_seeds(lists: list[list[str]]) -> list[Seed]:
    return [Seed(concepts=concepts, domain="math", level="AIME") for concepts in lists]


@given(LISTS)
@settings(deadline=None)
def test_compressed_rows_hold_every_pair(lists: list[list[str]]) -> None:
    bank = build_bank(make_seeds(lists), "math")
    expected: Counter[tuple[str, str]] = Counter()
    for concepts in lists:
        for a, b in combinations(concepts, 2):
            expected[a, b] += 1
            expected[b, a] += 1
    found = {}
    for index, name in enumerate(bank.concepts):
        others, counts = bank.neighbours(index)
        assert list(others) == sorted(set(others.tolist()))
        for other, count in zip(others.tolist(), counts.tolist(), strict=True):
            found[name, bank.concepts[other]] = count
    assert found == dict(expected)
    assert list(bank.concepts) == sorted({name for names in lists for name in names})
    mentions = Counter(name for names in lists for name in names)
    assert dict(zip(bank.concepts, bank.frequency.tolist(), strict=True)) == dict(mentions)


def test_a_table_of_seeds_reads_like_the_list_it_was_made_of() -> None:
    seeds = make_seeds([[NAMES[i % 8], NAMES[(i + 1) % 8]] for i in range(20)])
    seeds[3] = seeds[3].model_copy(update={"domain": "code", "problem": "Print 3."})
    pieces = [seeds[:7], [], seeds[7:]]
    batches = [
        pa.RecordBatch.from_pylist([s.model_dump() for s in piece], schema=arrow_schema(Seed))
        for piece in pieces
    ]
    table = SeedTable(pa.Table.from_batches(batches))
    assert list(table) == seeds
    assert [table[i] for i in range(-20, 20)] == seeds + seeds
    assert table[2:9:3] == seeds[2:9:3]
    assert list(table.of_domain("code")) == [seeds[3]]
    assert len(table.of_domain("math")) == 19
    assert list(table.of_domain("other")) == []
