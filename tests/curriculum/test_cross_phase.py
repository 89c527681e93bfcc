"""A question that another phase holds in nearly the same words is held by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from curriculum_rows import OT2, make_recipe, ot2_row, questions, reasons_of, write
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mixing import make_features

from curriculum.build import build_phase
from curriculum.cross_phase import find_repeats
from curriculum.explain import explain_row
from pipeline.errors import ConfigError
from pipeline.manifest import Version
from pipeline.near_duplicates import NearRows
from pipeline.settings import Recipe, load_recipe

NEAR = (
    "In a small harbour town a ship sails due north for {} hours at an even speed, then turns "
    "east and sails on at the same speed until the evening, when the captain asks how far the ship "
    "is from the harbour. Explain how you would find the distance{} and give it as \\boxed{{n}}."
)
FIRST = [ot2_row(NEAR.format(4, "")), *questions(5)]
SECOND = [
    ot2_row(NEAR.format(4, " now")),
    ot2_row(NEAR.format(5, " now")),
    ot2_row(FIRST[2]["question"].upper()),
    *questions(12)[8:],
]


def recipe_of(folder: Path, phase_2: str, *overrides: str) -> Recipe:
    path = make_recipe(folder, ot2=FIRST).path
    write(folder / "more.parquet", SECOND, OT2)
    text = path.read_text(encoding="utf-8")
    entry = text[text.index("[[") : text.index("[curriculum.phases")]
    text += entry.replace("talk", "more")
    text += f'[curriculum.phases.2]\nsources = [{{ source = "more" }}]\nmax_tokens = 400\n{phase_2}'
    path.write_text(text, encoding="utf-8")
    small = ["curriculum.batch_rows=3", "curriculum.num_workers=1"]
    return load_recipe(str(path), [*small, *overrides])


def stand_ins(version: Version) -> list[dict[str, Any]]:
    files = sorted((version.folder / "duplicates").glob("*.parquet"))
    return [row for path in files for row in pq.read_table(path).to_pylist()]


def test_phases_are_distinct_in_nearly_the_same_words(tmp_path: Path) -> None:
    recipe, out = recipe_of(tmp_path / "r", 'distinct_from = ["1"]'), tmp_path / "out"
    first, second = (build_phase(recipe, phase, out) for phase in "12")
    assert reasons_of(second) == {"in_other_phase": 1, "near_in_other_phase": 1}
    by_reason = {row["reason"]: row for row in stand_ins(second)}
    ids = {row["question"]: row["id"] for row in first.rows(["id", "question"])}
    near, same = by_reason["near_in_other_phase"], by_reason["in_other_phase"]
    assert near["kept_id"] == ids[FIRST[0]["question"]] and 0.8 <= near["jaccard"] < 1
    assert same["kept_id"] == ids[FIRST[2]["question"]] and same["jaccard"] == 1
    # Another number makes another question.
    assert NEAR.format(5, " now") in {row["question"] for row in second.rows(["question"])}
    assert set(second.manifest.extra["sources"]) == {"more"}
    (place,) = explain_row(near["removed_id"], out)["places"]
    assert (place["reason"], place["kept_id"]) == ("near_in_other_phase", near["kept_id"])
    (place,) = explain_row(near["kept_id"], out)["places"]
    assert place["kept"] and place["phase"] == "phase 1"


def test_what_counts_as_near_is_the_recipes_choice(tmp_path: Path) -> None:
    for overrides, expected in (
        (["curriculum.near_duplicates=false"], {"in_other_phase": 1}),
        (["curriculum.deduplicate=false"], {"in_other_phase": 1}),
        (
            ["curriculum.near_duplicates_share_numbers=false"],
            # The two of phase 2 are one question there already.
            {"in_other_phase": 1, "near_in_other_phase": 1, "duplicate_trace": 1},
        ),
    ):
        recipe = recipe_of(tmp_path / "r", 'distinct_from = ["1"]', *overrides)
        assert reasons_of(build_phase(recipe, "2", tmp_path / "out")) == expected


def test_replay_repeats_no_question_in_other_words(tmp_path: Path) -> None:
    # Seven rows of its own; of the six of phase 1, four ask what phase 2 does not.
    recipe, out = (
        recipe_of(tmp_path / "r", f"replay = {{ phase = '1', ratio = {4 / 11} }}"),
        tmp_path,
    )
    version = build_phase(recipe, "2", out)
    replayed = {row["question"] for row in version.rows() if row["source"] == "talk"}
    assert replayed == {FIRST[place]["question"] for place in (1, 3, 4, 5)}
    more = recipe_of(tmp_path / "r", f"replay = {{ phase = '1', ratio = {5 / 12} }}")
    with pytest.raises(ConfigError, match="which has 4 to give"):
        build_phase(more, "2", out)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_a_repeat_is_whatever_is_like_a_row_of_the_other_phase(data: Any) -> None:
    """Questions are points on a line, alike within 1; rows of a phase are never alike."""
    spots = data.draw(st.lists(st.integers(0, 40), min_size=2, max_size=30))
    features = make_features(len(spots))
    features.question[:] = np.array(spots, np.uint64)
    theirs, ours = list[int](), list[int]()
    for row, spot in enumerate(spots):
        if data.draw(st.booleans()) and all(abs(spot - spots[one]) > 1 for one in theirs):
            theirs.append(row)
        else:
            ours.append(row)

    def find_near(order: Any) -> NearRows:
        kept = dict[int, int]()
        for place, row in enumerate(order.tolist()):
            for earlier in order[:place].tolist():
                if earlier not in kept and abs(spots[row] - spots[earlier]) <= 1:
                    kept[row] = earlier
                    break
        removed, stay = (np.array(list(rows), np.int64) for rows in (kept, kept.values()))
        return NearRows(removed, stay, np.full(len(kept), 0.9, np.float32))

    rows = np.array(ours, np.int64)
    found = find_repeats(features, rows, [np.array(theirs, np.int64)], find_near)
    wanted = [row for row in ours if any(abs(spots[row] - spots[one]) <= 1 for one in theirs)]
    assert found.rows.tolist() == wanted
    for row, kept, jaccard in zip(found.rows, found.kept, found.jaccard, strict=True):
        assert kept in theirs and abs(spots[row] - spots[kept]) <= 1
        assert (jaccard == 1) == (spots[row] in {spots[one] for one in theirs})
    alone = find_repeats(features, rows, [np.array(theirs, np.int64)], None)
    assert alone.rows.tolist() == [r for r in ours if spots[r] in {spots[one] for one in theirs}]
