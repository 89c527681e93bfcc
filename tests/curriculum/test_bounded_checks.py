"""Checks of files that no build reads: any size of file, and rows without ids."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from curriculum_rows import make_recipe, ot2_row, questions, write_lines

from curriculum import checking
from curriculum.__main__ import app
from curriculum.checking import SLICE_ROWS, check_source_file
from curriculum.decontaminating import decontaminate_file, read_texts
from curriculum.row_diff import _find_reasons, read_keys
from curriculum.sources import json_files
from pipeline.cli import exit_code_of
from pipeline.errors import SourceError
from pipeline.settings import load_recipe

FILLER = "Then look at it once more from another side, slowly. "


def long_rows(count: int) -> list[dict[str, Any]]:
    """Rows of 4 kB, every third of them refused."""
    rows = []
    for number, row in enumerate(questions(count)):
        text = row["conversations"][1]["value"].replace("<think>\n", "<think>\n" + FILLER * 80)
        text = text if number % 3 else text.replace("</think>", "")
        rows.append(ot2_row(row["question"], text))
    return rows


def peak_of(function: Callable[..., object], *arguments: object) -> int:
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_checking_a_file_holds_a_slice_of_its_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "SLICE_ROWS", 32)
    monkeypatch.setattr(json_files, "STREAMED_ROWS", 32)
    override = "curriculum.phases.1.max_tokens=9000"
    recipe = make_recipe(tmp_path / "r", ot2=questions(1), overrides=[override])
    rows = long_rows(640)
    paths = [write_lines(tmp_path / f"{count}.jsonl", rows[:count]) for count in (32, 160, 640)]
    small, large = [peak_of(check_source_file, recipe, "talk", path) for path in paths][1:]
    # Fifteen slices more are 2 MB of text, and each row is held several times over in a slice.
    assert large < small + 500_000


def test_a_repeated_row_of_an_early_slice_is_found(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path / "r", ot2=questions(1))
    rows = questions(2 * SLICE_ROWS + 5)
    rows[-1] = {**rows[3], "question": rows[3]["question"].upper()}
    report = check_source_file(recipe, "talk", write_lines(tmp_path / "a.jsonl", rows))
    (refused,) = report["rows"].refused()
    assert report["rejected"] == {"dedupe": {"duplicate_trace": 1}}
    assert {refused["row"], 4} == {4, len(rows)}
    other = report["rows"][3 if refused["row"] != 4 else -1]
    assert refused["detail"] == f"kept {other['row_id']} instead" and other["accepted"]
    assert len(report["rows"]) == len(list(report["rows"])) == len(rows)
    assert [row["row"] for row in report["rows"][:3]] == [1, 2, 3]


def test_the_report_is_json_row_by_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = make_recipe(tmp_path / "r", ot2=questions(1))
    # A name that looks like what the writer looks for.
    path = write_lines(tmp_path / 'x"rows": [].jsonl', [ot2_row("Too short"), *questions(3)])
    argv = ["ingest", "talk", "--path", str(path), "--recipe", str(recipe.path), "--json"]
    assert exit_code_of(app, "curriculum", argv) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["path"] == str(path)
    assert [row["accepted"] for row in report["rows"]] == [False, True, True, True]
    assert report["rows"] == list(check_source_file(recipe, "talk", path)["rows"])


TEXT = "Nadia packs 7 pears into one crate and 8 pears into another. How many pears in all?"


def decontaminate(folder: Path, rows: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    items = write_lines(folder / "bench.jsonl", [{"question": TEXT}])
    rows_path = write_lines(folder / "rows.jsonl", rows)
    return decontaminate_file(load_recipe("demo"), rows_path, items, **options)


def test_rows_without_ids_are_named_by_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for column in ("question", "problem", "text", "prompt"):
        rows = [{column: "Nothing to see."}, {column: f"Hello. {TEXT}"}]
        report = decontaminate(tmp_path, rows)
        assert report["flagged_ids"] == ["1"] and report["id_column"] is None
        assert [hit["item"] for hit in report["flagged"]] == ["0"]
    path, items = str(tmp_path / "rows.jsonl"), str(tmp_path / "bench.jsonl")
    assert exit_code_of(app, "curriculum", ["decontaminate", path, "--benchmark", items]) == 0
    assert "ids are row numbers, from 0" in " ".join(capsys.readouterr().out.split())


def test_any_column_can_be_named_and_a_missing_one_is_explained(tmp_path: Path) -> None:
    rows = [{"unique_id": "u", "body": TEXT, "text": "Nothing to see."}]
    assert decontaminate(tmp_path, rows)["flagged_ids"] == []
    assert decontaminate(tmp_path, rows, text_column="body")["flagged_ids"] == ["u"]
    with pytest.raises(SourceError, match=r"row 0 \(from 0\) has no text in story; it has unique"):
        decontaminate(tmp_path, rows, text_column="story")
    with pytest.raises(SourceError, match="has no text in text or question") as error:
        decontaminate(tmp_path, [{"words": "x"}])
    assert "--text-column" in error.value.hint
    mixed = write_lines(tmp_path / "m.jsonl", [{"id": 1, "text": "a"}, {"text": "b"}])
    with pytest.raises(SourceError, match=r"row 1 \(from 0\) has no id, which the first row has"):
        list(read_texts(mixed))


def test_decontaminating_a_file_holds_a_slice_of_it(tmp_path: Path) -> None:
    recipe = load_recipe("demo")
    items = write_lines(tmp_path / "bench.jsonl", [{"question": TEXT}])
    sizes = {}
    for count in (500, 2000, 6000):
        rows = [{"text": f"{number} {FILLER * 20}"} for number in range(count)]
        path = write_lines(tmp_path / f"{count}.jsonl", rows)
        sizes[count] = peak_of(decontaminate_file, recipe, path, items)
    assert sizes[6000] < sizes[2000] + 500_000


def test_what_became_of_many_rows_is_counted_in_arrays(tmp_path: Path) -> None:
    from curriculum.build import build_phase
    from curriculum.diff import compare_versions

    recipe = make_recipe(tmp_path / "r", ot2=questions(40))
    half = 'curriculum.phases.1.sources=[{source="talk",share=0.5}]'
    other = load_recipe(str(recipe.path), [half, "curriculum.num_workers=1"])
    whole, part = (build_phase(r, "1", tmp_path / "out") for r in (recipe, other))
    report = compare_versions(whole, part)
    removed = {"source": "talk", "stage": "mix", "reason": "not_drawn", "rows": 20}
    assert report["removed"]["by_reason"] == [removed]
    assert report["added"]["by_reason"] == []
    keys = read_keys(whole)
    codes, reasons = _find_reasons(read_keys(part), keys.base_ids)
    counts = {reasons[code]: int((codes == code).sum()) for code in set(codes.tolist())}
    assert counts == {("mix", "not_drawn"): 20, ("mix", "fewer copies"): 20}
