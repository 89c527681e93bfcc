"""Duplicates: spelling variants meet, different questions stay apart, order decides nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.dedupe import Entry, remove_duplicates
from pipeline.questions import question_key

entries = st.lists(
    st.builds(
        Entry,
        position=st.just(0),
        row_id=st.text("abc", min_size=1, max_size=2),
        question=st.sampled_from("QRS"),
        trace=st.sampled_from("xyz"),
        priority=st.integers(0, 1),
        is_verified=st.booleans(),
        num_tokens=st.integers(1, 3),
    ),
    max_size=25,
)


def survivors(rows: list[Entry], limit: int) -> list[tuple[object, ...]]:
    placed = [
        Entry(n, r.row_id, r.question, r.trace, r.priority, r.is_verified, r.num_tokens)
        for n, r in enumerate(rows)
    ]
    removed = {pair.removed.position for pair in remove_duplicates(placed, limit)}
    return sorted((r.question, *r.rank[:-1]) for r in placed if r.position not in removed)


@settings(max_examples=60, deadline=None)
@given(rows=entries, limit=st.integers(1, 3), data=st.data())
def test_survivors_do_not_depend_on_order(
    rows: list[Entry], limit: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(rows))
    kept = survivors(rows, limit)
    assert kept == survivors(list(shuffled), limit)
    for question in "QRS":
        traces = {r.trace for r in rows if r.question == question}
        assert sum(k[0] == question for k in kept) == min(limit, len(traces))


def test_the_survivor_is_first_source_then_verified_then_shorter() -> None:
    def entry(position: int, **changes: object) -> Entry:
        values = {"priority": 1, "is_verified": False, "num_tokens": 9, **changes}
        return Entry(position, f"r{position}", "q", f"t{position}", **values)  # type: ignore[arg-type]

    rows = [entry(0), entry(1, num_tokens=5), entry(2, is_verified=True), entry(3, priority=0)]
    for best in (3, 2, 1):
        pairs = remove_duplicates(rows[: best + 1], 1)
        assert {pair.kept.position for pair in pairs} == {best}


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Find $\\frac{1}{2}$ of 8.", "find \\(\\dfrac12\\)  of\n8"),
        ("Let $a_{1} \\leq 3, \\ldots$", "Let $a_1 \\le 3, \\dots$"),
        ("What is $2+2$?", "Return your final response within \\boxed{}. What is $2 + 2$?\n"),
        ("Solve $x\\,=\\,\\left(3\\right)$", "Solve $x=(3)$"),
    ],
)
def test_spellings_of_one_question(a: str, b: str) -> None:
    assert question_key(a) == question_key(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("5 balls in 3 boxes", "5 balls in 2 boxes"),
        ("Sort 2 3", "Sort 23"),
        ("Compute 5!", "Compute 5"),
        ("Compute $x^2 + 1$", "Compute $x^2 - 1$"),
    ],
)
def test_different_questions(a: str, b: str) -> None:
    assert question_key(a) != question_key(b)
