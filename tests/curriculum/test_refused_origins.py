"""Every refused row names the file and row of its source, whichever stage refused it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from curriculum_rows import GOOD_MATH, OT2, make_recipe, ot2_row, questions, write

from curriculum.build import build_phase
from curriculum.explain import explain_row, show_places
from curriculum.sources.reading import read_file
from pipeline.settings import load_recipe

STEPS = " ".join(f"Adding {n} to {n * n} gives {n + n * n}." for n in range(60))
LONG = GOOD_MATH.replace("</think>", f"{STEPS}\n</think>")
BROKEN = {**ot2_row("What is one plus two? Explain."), "conversations": []}
FIRST = [*questions(6), ot2_row("Too short"), BROKEN]
SECOND = [
    ot2_row("Which of the two numbers is larger, and why is it so?", LONG),
    {**questions(3)[2], "question": questions(3)[2]["question"].upper()},
    *questions(12)[6:],
]


def test_rejected_rows_say_where_they_stand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(tmp_path / "r", ot2=FIRST)
    path = recipe.path
    write(path.parent / "more.parquet", SECOND, OT2)
    text = path.read_text(encoding="utf-8").replace(
        '"talk.parquet"', '"talk.parquet", "more.parquet"'
    )
    path.write_text(text, encoding="utf-8")
    share = 'curriculum.phases.1.sources=[{source="talk",share=0.5}]'
    small = ["curriculum.batch_rows=3", "curriculum.num_workers=1", share]
    version = build_phase(load_recipe(str(path), small), "1", tmp_path / "out")
    files = sorted((version.folder / "rejected").glob("*.parquet"))
    refused = [row for file in files for row in pq.read_table(file).to_pylist()]
    stages = {row["stage"] for row in refused}
    assert stages == {"parse", "validate", "measure", "dedupe", "mix"}
    asked = {
        name: [row["question"] for row in read_file(path.parent / name, {"question": "text"}, ())]
        for name in ("talk.parquet", "more.parquet")
    }
    told = {}
    for row in refused:
        assert row["source"] == "talk"
        told[row["stage"]] = row
        # No two rows of the files have one question, but for the repeated one.
        assert 0 <= row["source_position"] < len(asked[row["source_file"]])
    places = {stage: (row["source_file"], row["source_position"]) for stage, row in told.items()}
    assert places["parse"] == ("talk.parquet", 7)
    assert places["validate"] == ("talk.parquet", 6)
    assert places["measure"] == ("more.parquet", 0)
    assert places["dedupe"] in {("talk.parquet", 2), ("more.parquet", 1)}
    kept = [row["provenance"] for row in version.rows(["provenance"])]
    everywhere = {(p["source_file"], p["source_position"]) for p in [*kept, *refused]}
    assert everywhere == {(name, n) for name, rows in asked.items() for n in range(len(rows))}
    report = explain_row(told["measure"]["row_id"], tmp_path / "out")
    (place,) = report["places"]
    assert (place["source_file"], place["source_position"]) == ("more.parquet", 0)
    show_places(report)
    said = " ".join(capsys.readouterr().out.split())
    assert "source talk, row 0 of more.parquet" in said
    show_places(explain_row(told["parse"]["row_id"], tmp_path / "out"))
    assert "(talk, row 7 of talk.parquet) is out" in " ".join(capsys.readouterr().out.split())
