"""What tells an item told in other words from a template twin, and from a stock phrase."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evaluation
from pipeline.contamination import BenchmarkIndex, ItemText, Match, RowFinding
from pipeline.contamination_rules import judge
from pipeline.item_texts import cut_explanations, cut_statement
from pipeline.problem_features import read
from pipeline.settings.decontamination import DecontaminationSettings
from pipeline.word_hashes import hash_words

TRAIN = (
    "Two trains start at the same time from stations 180 km apart and travel towards each other, "
    "one at 50 km/h and the other at 40 km/h. A swallow flies at 70 km/h from one train to the "
    "other and back until they meet. How far does the swallow fly?"
)
ROOTS = (
    "Let $r$ and $s$ be the roots of $3x^2 - 14x + 5 = 0$. Determine the value of "
    "$\\frac{1}{r^2} + \\frac{1}{s^2}$."
)
TRIANGLE = (
    "In triangle $ABC$ the angle at $B$ is $90^\\circ$, $AB = 20$ and $BC = 21$. The bisector of "
    "the angle at $C$ meets $AB$ in $D$. Find the area of triangle $BCD$."
)
TASK = '''def merge_shelves(shelves, limit):
    """You get a list of shelves, each a list of book widths. Merge neighbouring shelves from left
    to right as long as their total width stays within the limit, and return the merged shelves.

    >>> merge_shelves([[1, 2], [3], [9]], 6)
    [[1, 2, 3], [9]]
    """
'''
ITEMS = [
    ItemText("own", "train", TRAIN, "math"),
    ItemText("own", "roots", ROOTS, "math"),
    ItemText("own", "triangle", TRIANGLE, "math"),
    ItemText("own", "task", TASK, "code"),
]


@pytest.fixture(scope="module")
def index() -> BenchmarkIndex:
    return BenchmarkIndex(ITEMS, DecontaminationSettings())


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (
            "train",
            "A swallow flies back and forth between two approaching trains at 70 km/h. The trains, "
            "whose speeds are 50 km/h and 40 km/h, leave stations that are 180 km apart at the "
            "same moment. What distance has the swallow flown when the trains meet?",
        ),
        (
            "roots",
            "The quadratic equation $3t^2-14t+5=0$ has solutions $p$ and $q$. Compute "
            "$\\frac1{p^2}+\\frac1{q^2}$.",
        ),
        (
            "triangle",
            "$PQR$ is a triangle with $PQ=20$, $QR=21$ and $\\angle PQR=90^\\circ$. The bisector "
            "of angle $R$ intersects side $PQ$ at $S$. What is the area of the triangle $QRS$?",
        ),
        (
            "task",
            "Given a list of shelves, where every shelf is a list of book widths, write a Python "
            "function that merges neighbouring shelves from left to right while their total width "
            "is within a limit. Return the merged shelves.",
        ),
    ],
)
def test_items_told_in_other_words(index: BenchmarkIndex, item: str, text: str) -> None:
    assert [m.item_id for m in index.find(text) if m.is_contamination] == [item]
    without = BenchmarkIndex(ITEMS, DecontaminationSettings(find_rewordings=False))
    assert not any(match.rule == "rewording" for match in without.find(text))


@pytest.mark.parametrize(
    ("text", "differs"),
    [
        (TRAIN.replace("70", "60"), "numbers"),
        (TRIANGLE.replace("area", "perimeter"), "question"),
        (ROOTS.replace("- 14x", "- 11x"), "numbers"),
        (ROOTS.replace("\\frac{1}{r^2} + \\frac{1}{s^2}", "r^3 + s^3"), "numbers"),
    ],
)
def test_twins_say_what_differs(index: BenchmarkIndex, text: str, differs: str) -> None:
    (twin,) = index.find(text)
    assert (twin.rule, twin.differs) == ("twin", differs)


@pytest.mark.parametrize(
    "text",
    [
        "Find the area of triangle $BCD$.",
        "Two trains travel towards each other. How far apart are the stations?",
        "Let $r$ and $s$ be the roots of $x^2 - x - 1 = 0$. Find $r^2 + s^2$.",
        "In triangle $ABC$ the angle at $B$ is $90^\\circ$. Find the length of the altitude.",
        "Write a function that returns the longest shelf of a library.",
        "",
        "$",
        "\\frac{",
    ],
)
def test_stock_phrases_are_no_evidence(index: BenchmarkIndex, text: str) -> None:
    assert index.find(text) == []


@pytest.mark.parametrize(
    "text",
    [
        f"Tickets are $12 each and cost $30 at the door. {ROOTS} He paid $5.",
        f"SOLVE THIS NOW: {TRAIN.upper()}",
        ROOTS.replace("\\frac{1}{r^2}", "\\frac1{r²}"),
        TRIANGLE.replace("$AB = 20$ and $BC = 21$", "\\(AB=20\\) and \\(BC=21\\)"),
    ],
)
def test_notation_is_levelled(index: BenchmarkIndex, text: str) -> None:
    assert sum(match.is_contamination for match in index.find(text)) == 1


def test_a_task_is_known_by_its_statement_alone(index: BenchmarkIndex) -> None:
    statement = cut_statement(TASK)
    assert statement.startswith("You get") and ">>>" not in statement
    assert [m.item_id for m in index.find(f"Solve in Python. {statement}")] == ["task"]


def test_explanations_are_cut_but_never_the_question() -> None:
    note = "(A number is called odd here when dividing it by two leaves the remainder one.)"
    problem = f"How many odd numbers below 50 have a digit sum of exactly 7? {note}"
    assert cut_explanations(problem).endswith("7?")
    example = "Call 12 small. For example, 3 is small, so count the small numbers below $40$"
    assert cut_explanations(example) == example


def test_a_row_tells_where_the_item_stands(index: BenchmarkIndex) -> None:
    twin = TRAIN.replace("180", "240")
    rows = index.find_in_rows(
        ["Hello.", f"Please: {TRAIN}", "Hi.", twin, twin],
        [TRAIN, TRAIN, "Hi.", "Hi.", "Hi."],
        ["", "", f"The task says: {TRAIN}", "", ""],
    )
    parts = [(row.hit and row.hit.part, row.twin and row.twin.part) for row in rows]
    assert parts == [
        ("question", None),
        ("user turn", None),
        ("reasoning", None),
        (None, "user turn"),
        (None, "user turn"),
    ]
    users, questions = [TRAIN, "Hi.", "\\frac12 of it"], [TRAIN, TRAIN, "\\frac12 of it"]
    users[2] = questions[2]
    fresh = (index.find_in_rows(users, questions, [""] * 3),)
    words = hash_words(questions)
    assert (index.find_in_rows(users, questions, [""] * 3, words),) == fresh
    assert index.find_in_rows([], [], []) == []
    assert index.find_in_rows([""], [""], [""]) == [RowFinding()]


def demo_items() -> list[ItemText]:
    folder = Path(evaluation.__path__[0]) / "data"
    items = []
    for name in ("math", "code"):
        for line in (folder / f"demo_{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            items.append(ItemText(f"demo-{name}", row["id"], row["question"]))
    return items


DEMO = demo_items()
DEMO_INDEX = BenchmarkIndex(DEMO, DecontaminationSettings())


def items_in(matches: Sequence[Match]) -> list[Match]:
    """Twins left out: those told in other words are not all looked up."""
    return [match for match in matches if match.is_contamination]


def match_everything(text: str) -> list[Match]:
    """The items that the rules find when none is looked up."""
    every = list(range(len(DEMO_INDEX._entries)))
    return items_in(DEMO_INDEX._judge(text, every))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_looking_up_misses_nothing_that_the_rules_find(data: st.DataObject) -> None:
    item = data.draw(st.sampled_from(DEMO))
    words = item.question.split(" ")
    drops = data.draw(st.sets(st.integers(0, len(words) - 1), max_size=max(1, len(words) // 6)))
    kept = [word for place, word in enumerate(words) if place not in drops]
    around = data.draw(st.sampled_from(["", "Solve it. ", "It costs $3. ", DEMO[0].question + " "]))
    text = around + " ".join(kept)
    assert items_in(DEMO_INDEX.find(text)) == match_everything(text)


@given(st.text(alphabet="ab12 $\\{}frac^+=.?A\n", max_size=80))
def test_any_text_can_be_searched(text: str) -> None:
    assert items_in(DEMO_INDEX.find(text)) == match_everything(text)


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(8)))
def test_texts_do_not_touch_each_other(order: Sequence[int]) -> None:
    texts = [f"{DEMO[number].question} {'Thanks. ' * number}" for number in range(8)]
    alone = [DEMO_INDEX.find(text) for text in texts]
    assert DEMO_INDEX.find_in_texts([texts[n] for n in order]) == [alone[n] for n in order]


def test_every_item_finds_itself_in_clothes() -> None:
    for item in DEMO:
        text = f"1. Name a prime.\n\n2. {item.question}\n\n3. Name another one."
        hits = {match.item_id for match in DEMO_INDEX.find(text) if match.is_contamination}
        assert item.item_id in hits


def test_readings_do_not_depend_on_the_index() -> None:
    for entry in DEMO_INDEX._entries:
        found = judge(entry, read(entry.reading.text), DecontaminationSettings())
        assert entry.is_short or (found is not None and found.rule == "coverage")
