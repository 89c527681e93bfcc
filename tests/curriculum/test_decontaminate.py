"""Benchmark items are found in every disguise; other numbers are another problem."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pipeline.benchmark_index import load_benchmark_index, stored_index
from pipeline.contamination import BenchmarkIndex, ItemText, find_in_row
from pipeline.settings.decontamination import DecontaminationSettings
from pipeline.settings.recipe import load_recipe

LONG = (
    "A bookshop sells $\\frac{3}{4}$ of its 240 copies of a novel in the first week and "
    "a third of the remaining copies in the second week. How many copies are left?"
)
SHORT = "Compute $\\sin 60^\\circ$."
FIGURE = "[asy]draw((0,0)--(4,0)--(4,3)--cycle);[/asy] " * 6


@pytest.fixture(scope="module")
def index() -> BenchmarkIndex:
    items = [ItemText("b", "long", LONG), ItemText("b", "short", SHORT)]
    return BenchmarkIndex(items, DecontaminationSettings())


def found(index: BenchmarkIndex, text: str) -> list[str]:
    return [match.item_id for match in index.find(text) if match.is_contamination]


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        LONG.upper(),
        LONG.replace("\\frac", "\\dfrac").replace("$", "\\("),
        LONG.replace("A bookshop", "A small bookshop").replace("novel", "famous novel"),
        f"Please solve this for my class: {LONG} Show all steps. I am 12 years old.",
        "Many words first. " * 80 + LONG + " And many words after it." * 80,
        f"{FIGURE}{LONG}",
    ],
)
def test_items_in_disguise(index: BenchmarkIndex, text: str) -> None:
    assert found(index, text) == ["long"]
    assert "novel" in index.find(text)[0].span


@pytest.mark.parametrize(
    "text",
    [
        LONG.replace("240", "360"),
        LONG.replace("a third", "a fifth").replace("\\frac{3}{4}", "\\frac{2}{5}"),
        "How many copies are left? A novel of 240 pages is copied 3 times by 4 monks.",
        "Compute $\\sin 61^\\circ$.",
        "Compute $\\cos 60^\\circ$.",
        FIGURE + "What is the area of the triangle?",
    ],
)
def test_other_problems_stay(index: BenchmarkIndex, text: str) -> None:
    assert found(index, text) == []


def test_twins_are_reported(index: BenchmarkIndex) -> None:
    (twin,) = index.find(LONG.replace("240", "360"))
    assert (twin.item_id, twin.rule) == ("long", "twin")


WORDY = "Determine the number of ways to arrange the letters of the word ELLIPSE."
LABELLED = (
    "In triangle ABC the side AB has length 13, the side BC has length 14 and the altitude from A "
    "meets BC in the point D. Find the length of the segment BD given that the side CA is 15."
)


@pytest.mark.parametrize(
    ("item", "text", "rule"),
    [
        (WORDY, WORDY.replace("ELLIPSE", "RADII"), "twin"),
        (WORDY, WORDY.replace("ELLIPSE", "ALABAMA"), "twin"),
        (WORDY, WORDY.replace("ELLIPSE", '"tartar"'), "twin"),
        (WORDY, WORDY.upper(), "coverage"),
        (WORDY, WORDY.replace("ELLIPSE", "ellipse"), "coverage"),
        (WORDY, WORDY.replace("the word ELLIPSE", "a word. HURRY up!"), "twin"),
        (WORDY, WORDY.replace(" ELLIPSE", ""), "coverage"),
        (LABELLED, LABELLED.replace("ABC", "PQR"), "coverage"),
        (LABELLED, LABELLED.replace("In triangle ABC the", "The"), "coverage"),
    ],
)
def test_words_in_capitals_or_quotes_tell_twins_from_items(item: str, text: str, rule: str) -> None:
    index = BenchmarkIndex([ItemText("b", "i", item)], DecontaminationSettings())
    assert [match.rule for match in index.find(text)] == [rule]


@pytest.mark.parametrize("text", [SHORT, "compute sin 60 degrees", f"Hello! {SHORT} Thanks."])
def test_short_items_match_whole(index: BenchmarkIndex, text: str) -> None:
    assert found(index, text) == ["short"]


def test_the_reasoning_is_searched(index: BenchmarkIndex) -> None:
    hit, twin = find_in_row(index, user_text="Hi", question="Hi", thinking=f"The task: {LONG}")
    assert hit is not None and twin is None
    assert hit.part == "reasoning"


def test_known_duplicates_between_real_sets(shared_data: Path) -> None:
    with (shared_data / "benchmarks/math500_original.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    index = BenchmarkIndex(
        [ItemText("math500", row["unique_id"], row["problem"]) for row in rows],
        DecontaminationSettings(),
    )
    with gzip.open(shared_data / "seeds/aime_train_rllm.json.gz", "rt", encoding="utf-8") as file:
        problems = [row["problem"] for row in json.load(file)]
    flagged = [m for m in index.find_in_texts(problems) if m and m[0].is_contamination]
    # Nine by character ratio and a tenth of other wording, all read by hand.
    assert len(flagged) == 10
    found = index.find_in_texts([row["problem"] for row in rows])
    for row, matches in zip(rows, found, strict=True):
        ids = {match.item_id for match in matches if match.is_contamination}
        assert row["unique_id"] in ids, "every item finds itself"


def test_a_stored_index_finds_the_same(tmp_path: Path) -> None:
    texts = [
        "A crate holds 12 rows of 17 melons each, and 9 melons are sold. How many are left in it?",
        "Compute 7!",
        "Write a function that returns the longest run of equal numbers in a list of integers.",
    ]
    items = [ItemText("b", str(n), text) for n, text in enumerate(texts)]
    made = BenchmarkIndex(items, DecontaminationSettings())
    made.store(tmp_path / "tables.npz")
    read = BenchmarkIndex(items, DecontaminationSettings(), tmp_path / "tables.npz")
    asked = [*texts, texts[0].replace("12", "13"), f"First: {texts[1]} Then: {texts[2]}", "Why?"]
    assert made.find_in_texts(asked) == read.find_in_texts(asked)
    assert any(made.find_in_texts(asked))


def test_an_index_of_many_items_is_kept_and_a_damaged_one_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = [
        "ships",
        "crates",
        "melons",
        "lamps",
        "rivers",
        "stones",
        "wheels",
        "pages",
        "doors",
        "boats",
    ]
    rows = [
        {"id": str(n), "question": f"How many {words[n % 10]} have {n} {words[n // 10 % 10]}?"}
        for n in range(500)
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {"name": "b", "path": "items.jsonl", "domain": "math", "answer_field": ""}
    fields = "\n".join(f"{key} = {json.dumps(value)}" for key, value in entry.items())
    (tmp_path / "recipe.toml").write_text(f'name = "r"\n[[benchmarks]]\n{fields}\n')
    recipe = load_recipe(str(tmp_path / "recipe.toml"))
    asked = [row["question"] for row in rows[:20]] + ["How many doors have 7 wheels, then?"]

    made = load_benchmark_index(recipe).find_in_texts(asked)
    kept = stored_index(recipe)
    assert kept.is_file()
    assert load_benchmark_index(recipe).find_in_texts(asked) == made
    kept.write_bytes(b"torn")
    assert load_benchmark_index(recipe).find_in_texts(asked) == made
    assert kept.stat().st_size > 1000, "the damaged one is replaced"
