"""Long texts as UTF-8 in shared memory say what the same texts say as strings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curriculum_rows import OCR, as_text, make_recipe, ocr_row, ot2_row
from hypothesis import given
from hypothesis import strategies as st

from curriculum.phases import build_version
from curriculum.sources.parquet_texts import read_exchanges, read_texts
from curriculum.texts import after_thinking, to_text, to_utf8
from pipeline.errors import SourceError, TooManyRejected
from pipeline.settings import Recipe

_TEXTS = st.lists(
    st.none() | st.sampled_from(["", "a", "é\n", "字" * 3, "😀", "<think>"]), max_size=6
)
_TURNS = st.lists(
    st.none()
    | st.lists(
        st.none()
        | st.fixed_dictionaries(
            {
                "from": st.sampled_from(["user", "gpt", None]),
                "value": st.sampled_from(["é", "", None]),
            }
        ),
        max_size=3,
    ),
    max_size=5,
)
_KINDS = (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()))


def _wanted(turns: list[Any]) -> list[Any]:
    """A turn that is nothing says as little as one without texts."""
    nothing = {"from": None, "value": None}
    return [row and [turn or nothing for turn in row] for row in turns]


@given(_TEXTS, st.sampled_from(_KINDS), st.integers(0, 6))
def test_views_of_a_column_are_its_texts(
    texts: list[str | None], kind: pa.DataType, cut: int
) -> None:
    column = pa.array(texts, pa.string()).cast(kind)
    assert [to_text(view) for view in read_texts(column)] == texts
    assert [to_text(view) for view in read_texts(column[cut:])] == texts[cut:]


@given(_TURNS, st.sampled_from([pa.list_, pa.large_list]), st.integers(0, 5))
def test_turns_are_read_as_they_stand(turns: list[Any], lists: Any, cut: int) -> None:
    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    column = pa.array(turns, lists(turn))
    assert as_text(read_exchanges(column)) == _wanted(turns)
    assert as_text(read_exchanges(column[cut:])) == _wanted(turns[cut:])


def test_what_is_no_exchange_is_handed_over_as_it_is() -> None:
    columns: tuple[list[Any], ...] = ([["a"], None], [[{}]], [[1, 2]])
    for values in columns:
        assert read_exchanges(pa.array(values)) == values


@given(st.lists(st.sampled_from(["</think>", "é", "a\n", "b" * 5000, "\ud800"]), max_size=6))
def test_what_follows_the_reasoning(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert after_thinking(to_utf8(text)) == text.rpartition("</think>")[2]
    assert after_thinking(None) == ""


def test_bytes_that_are_no_text_are_named_with_their_file(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, ocr=[ocr_row(f"Add {n} and one, print it.") for n in range(3)])
    table = pq.read_table(tmp_path / "code.parquet")
    bad = pa.array([b"<think>\nab\xff</think>c", b"x", b"y"]).view(pa.string())
    place = OCR.names.index("output")
    pq.write_table(table.set_column(place, "output", bad), tmp_path / "code.parquet")
    with pytest.raises(SourceError, match=r"code\.parquet.*UTF8"):
        build_version(recipe, "1", tmp_path / "out")


def test_a_rule_that_is_switched_off_refuses_nothing(tmp_path: Path) -> None:
    loop = "We add the two numbers and look at what comes out of it, then again. " * 20
    foreign = "Итак, найдём все корни этого уравнения и сложим их, как сказано в задаче."
    rows = [
        ot2_row(question, f"<think>\n{thinking}\n</think>\n\n\\boxed{{3}}")
        for question, thinking in [
            ("What is one plus two, when both are added?", loop),
            ("Add two and one, and give the sum of both.", foreign),
        ]
    ]
    kept = {}
    for name, overrides in {
        "on": (),
        "off": ("max_foreign_share=1", "min_distinct_ngrams=0"),
    }.items():
        settings = [f"curriculum.validation.{text}" for text in overrides]
        limit = "curriculum.phases.1.max_tokens=2000"
        recipe = make_recipe(tmp_path / name, rows, overrides=[limit, *settings])
        kept[name] = prepare(recipe, tmp_path / "out" / name)
    assert kept == {"on": 0, "off": 2}


def prepare(recipe: Recipe, out: Path) -> int:
    """Rows that are left of a recipe's phase 1."""
    try:
        return build_version(recipe, "1", out).manifest.rows_out
    except TooManyRejected:
        return 0
