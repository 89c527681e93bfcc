"""The commands: their JSON, their messages, their exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from curriculum_rows import make_recipe, ot2_row, questions, write_lines

from curriculum.__main__ import app
from curriculum.build import app as build_app
from pipeline import console
from pipeline.cli import exit_code_of


@pytest.fixture(autouse=True)
def fresh_console() -> None:
    console._state.clear()


def call(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, dict[str, Any]]:
    words = [str(word) for word in argv]
    chosen = build_app if words[0] == "build" else app
    code = exit_code_of(chosen, "curriculum", words[1:] if words[0] == "build" else words)
    text = capsys.readouterr().out
    return code, json.loads(text) if text else {}


def test_build_diff_inspect_explain_and_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*questions(6), ot2_row("Too short")]
    recipe, out = make_recipe(tmp_path / "r", ot2=rows).path, tmp_path / "out"
    where = ("--recipe", recipe, "--out", out, "--json")
    code, plan = call(capsys, "build", "--phase", "1", *where, "--dry-run")
    assert code == 0 and not plan["exists"] and not out.exists()
    code, built = call(capsys, "build", "--phase", "1", *where)
    assert (code, built["rows_in"], built["rows_out"]) == (0, 7, 6)
    assert built["version"] == plan["version"]
    assert built["rejected"] == {"validate": {"question_too_short": 1}}
    _, changed = call(capsys, "build", "--phase", "1", *where, "--set", "curriculum.seed=1")
    assert changed == {}
    _, changed = call(
        capsys, "build", "--phase", "1", *where, "--set", "curriculum.validation.max_chars=5000"
    )
    _, delta = call(capsys, "diff", built["version"], changed["path"], *where)
    assert delta["settings"] == {"validation.max_chars": [400_000, 5000]}
    assert delta["rows"] == {"in_both": 6, "only_in_a": 0, "only_in_b": 0}
    _, seen = call(capsys, "inspect", "phase-1", "--rows", 1, *where)
    kept = seen["samples"][0]["id"]
    _, place = call(capsys, "explain", kept[:10], *where)
    assert place["places"][0]["kept"]
    readme = Path(built["path"]) / "README.md"
    before = readme.read_text(encoding="utf-8")
    readme.unlink()
    assert call(capsys, "card", built["version"], *where)[0] == 0
    assert readme.read_text(encoding="utf-8") == before


def test_explain_a_rejected_and_an_unknown_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [ot2_row("Too short"), *questions(2)])
    recipe = make_recipe(tmp_path / "r", ot2=[ot2_row("Too short"), *questions(2)]).path
    where = ("--recipe", recipe, "--json")
    code, report = call(capsys, "ingest", "talk", "--path", path, *where)
    assert (code, report["accepted"], report["rows_in"]) == (0, 2, 3)
    assert report["rejected"] == {"validate": {"question_too_short": 1}}
    refused = report["rows"][0]
    assert not refused["accepted"] and refused["detail"]
    out = ("--out", tmp_path / "out")
    call(capsys, "build", "--phase", "1", *where, *out)
    _, place = call(capsys, "explain", refused["row_id"], *where, *out)
    assert place["places"][0]["reason"] == "question_too_short"
    assert call(capsys, "explain", "ffffffffff", *where, *out)[0] == 2
    assert call(capsys, "diff", "phase-1", "nope", *where, *out)[0] == 2


def test_decontaminate_flags_ids_with_item_and_span(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "Nadia packs 7 pears into one crate and 8 pears into another. How many pears in all?"
    items = [{"id": "i1", "question": text}]
    rows = [
        {"id": 1, "text": f"Hello. {text}"},
        {"id": 2, "text": text.replace("7", "9")},
        {"id": 3, "text": "Nothing to see."},
    ]
    code, report = call(
        capsys, "decontaminate", write_lines(tmp_path / "rows.jsonl", rows),
        "--benchmark", write_lines(tmp_path / "bench.jsonl", items), "--json",
    )  # fmt: skip
    assert code == 0
    assert report["flagged_ids"] == ["1"]
    (hit,) = report["flagged"]
    assert (hit["benchmark"], hit["item"]) == ("bench", "i1")
    assert "8 pears into another" in hit["span"]
    assert [twin["id"] for twin in report["template_twins"]] == ["2"]
    bad = write_lines(tmp_path / "bad.jsonl", [{"id": 1, "words": "x"}])
    assert call(capsys, "decontaminate", bad, "--json")[0] == 2


def test_decontaminate_names_a_file_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_lines(tmp_path / "rows.jsonl", [{"text": "one"}])
    for arguments, remedy in (
        (["nowhere.jsonl"], "FILE"),
        ([str(rows), "--benchmark", "nowhere.jsonl"], "--benchmark"),
    ):
        assert exit_code_of(app, "curriculum", ["decontaminate", *arguments]) == 2
        shown = capsys.readouterr().err
        assert "no file nowhere.jsonl" in shown
        assert remedy in shown
        assert "recipe" not in shown


def test_user_mistakes_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", tmp_path / "out", "--json")
    assert call(capsys, "build", "--phase", "3", *out)[0] == 2
    assert call(capsys, "build", "--phase", "1", "--recipe", "nope", *out)[0] == 2
    assert call(capsys, "ingest", "talk", "--path", tmp_path / "no.parquet", "--json")[0] == 2


def test_phase_2_dry_run_says_that_synthesis_comes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, plan = call(
        capsys, "build", "--phase", "2", "--out", tmp_path / "out", "--dry-run", "--json"
    )
    assert code == 0 and plan["runs_synthesis"]
    assert not (tmp_path / "out").exists()
