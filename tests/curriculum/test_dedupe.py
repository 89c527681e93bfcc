"""Duplicates: spelling variants meet, different questions stay apart, order decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.dedupe import REASONS, Duplicates, find_duplicates
from curriculum.features import Features, Rows
from curriculum.near_questions import HashedQuestions, make_search
from curriculum.question_hashes import hash_questions
from pipeline.near_duplicates import NearRows
from pipeline.questions import question_key
from pipeline.settings.curriculum import CurriculumSettings


@dataclass(frozen=True)
class Row:
    row_id: int
    question: int
    trace: int
    source: int
    is_verified: bool
    num_tokens: int

    @property
    def rank(self) -> tuple[int, bool, int, int, int, int]:
        quality = (self.source, not self.is_verified, self.num_tokens)
        return (*quality, self.row_id, self.trace, self.question)


def features_of(rows: list[Row]) -> Features:
    size = len(rows)
    return Features(
        source=np.array([row.source for row in rows], np.uint8),
        row_id=np.array([[0, row.row_id] for row in rows], np.uint64).reshape(size, 2),
        question=np.array([row.question for row in rows], np.uint64),
        trace=np.array([row.trace for row in rows], np.uint64),
        num_prompt_tokens=np.zeros(size, np.uint32),
        num_completion_tokens=np.array([row.num_tokens for row in rows], np.uint32),
        is_verified=np.array([row.is_verified for row in rows], np.bool_),
        domain=np.zeros(size, np.uint8),
        licence=np.zeros(size, np.uint16),
        difficulty_rank=np.zeros(size, np.float32),
        licences=("mit",),
    )


def near_even(features: Features) -> object:
    """Questions 2n and 2n + 1 are nearly the same."""

    def search(rows: Rows) -> NearRows:
        removed, kept = [], []
        first: dict[int, int] = {}
        for row in rows.tolist():
            family = int(features.question[row]) // 2
            if family in first:
                removed.append(row)
                kept.append(first[family])
            first.setdefault(family, row)
        jaccard = np.full(len(removed), 0.9, np.float32)
        return NearRows(np.array(removed, np.int64), np.array(kept, np.int64), jaccard)

    return search


def deduplicate(rows: list[Row], limit: int, *, is_near: bool = False) -> Duplicates:
    features = features_of(rows)
    search = near_even(features) if is_near else None
    return find_duplicates(features, np.arange(len(rows)), limit, find_near=search)  # type: ignore[arg-type]


rows_of_three_questions = st.lists(
    st.builds(
        Row,
        row_id=st.integers(0, 3),
        question=st.integers(0, 3),
        trace=st.integers(0, 2),
        source=st.integers(0, 1),
        is_verified=st.booleans(),
        num_tokens=st.integers(1, 3),
    ),
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(rows=rows_of_three_questions, limit=st.integers(1, 3), near=st.booleans(), data=st.data())
def test_survivors_do_not_depend_on_order(
    rows: list[Row], limit: int, near: bool, data: st.DataObject
) -> None:
    def survivors(some: list[Row]) -> list[Row]:
        removed = set(deduplicate(some, limit, is_near=near).removed.tolist())
        return [row for number, row in enumerate(some) if number not in removed]

    kept = survivors(rows)
    shuffled = data.draw(st.permutations(rows))
    assert sorted(kept, key=repr) == sorted(survivors(list(shuffled)), key=repr)
    for family in {row.question // (2 if near else 1) for row in rows}:
        mine = [row for row in rows if row.question // (2 if near else 1) == family]
        best: dict[int, Row] = {}
        for row in sorted(mine, key=lambda row: row.rank):
            best.setdefault(row.trace, row)
        expected = list(best.values())[:limit]
        found = [row for row in kept if row.question // (2 if near else 1) == family]
        assert sorted(row.rank for row in found) == sorted(row.rank for row in expected)


@settings(max_examples=80, deadline=None)
@given(rows=rows_of_three_questions, limit=st.integers(1, 3), near=st.booleans())
def test_what_stands_for_a_removed_row_stays(rows: list[Row], limit: int, near: bool) -> None:
    found = deduplicate(rows, limit, is_near=near)
    removed = found.removed.tolist()
    assert removed == sorted(set(removed))
    assert not set(found.kept.tolist()) & set(removed)
    for gone, kept, reason, jaccard in zip(
        removed, found.kept.tolist(), found.reasons.tolist(), found.jaccard.tolist(), strict=True
    ):
        assert rows[kept].rank <= rows[gone].rank
        assert (jaccard == 1) == (rows[kept].question == rows[gone].question)
        if REASONS[reason] == "duplicate_trace":
            assert rows[kept].trace == rows[gone].trace
        else:
            is_same = rows[kept].question == rows[gone].question
            assert REASONS[reason] == f"{'' if is_same else 'near_'}duplicate_question"


def test_the_survivor_is_first_source_then_verified_then_shorter() -> None:
    rows = [
        Row(0, 7, 0, source=1, is_verified=False, num_tokens=9),
        Row(1, 7, 1, source=1, is_verified=False, num_tokens=5),
        Row(2, 7, 2, source=1, is_verified=True, num_tokens=9),
        Row(3, 7, 3, source=0, is_verified=False, num_tokens=9),
    ]
    for best in (3, 2, 1):
        assert set(deduplicate(rows[: best + 1], 1).kept.tolist()) == {best}


LONG = (
    "A farmer has a long field beside a river and wants to fence it on three sides with {} metres "
    "of wire, leaving the side along the water open, so that the area of the field is as large as "
    "it can be. How long should the side that runs along the river be, in metres{}"
)


def test_nearly_the_same_words_are_one_question_and_other_numbers_are_two() -> None:
    texts = [LONG.format(80, "?"), LONG.format(80, ", please?"), LONG.format(90, "?")]
    for shares, expected in ((True, [1]), (False, [1, 2])):
        chosen = CurriculumSettings(near_duplicates_share_numbers=shares)
        search = make_search(HashedQuestions(hash_questions(texts)), chosen)
        assert search is not None
        found = search(np.arange(3))
        assert found.removed.tolist() == expected
        assert set(found.kept.tolist()) == {0}
    none = CurriculumSettings(near_duplicates=False)
    assert make_search(HashedQuestions(hash_questions(texts)), none) is None


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
