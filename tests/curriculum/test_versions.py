"""Versions as others meet them: readers, validators, differences, stories, pages."""

from __future__ import annotations

import logging
import re
import shutil
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from curriculum_rows import make_recipe, ocr_row, ot2_row, questions

from curriculum.build import build_phase
from curriculum.diff import compare_versions, show_comparison
from curriculum.explain import explain_row, show_places
from curriculum.inspect_page import render_inspection
from pipeline.errors import SourceError
from pipeline.manifest import Version
from pipeline.records import TrainingRow, arrow_schema
from pipeline.settings import load_recipe
from pipeline.store import read_rows, write_table

ORDER = "Sort the numbers of the second line and print them in one line, please."
ROWS = [*questions(12), ot2_row("Too short"), ot2_row(questions(1)[0]["question"])]
CODE = [
    ocr_row(ORDER, id="a"),
    ocr_row(ORDER.upper(), id="b"),
    ocr_row("Read a line with | and print it.", id="c", license="MIT"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Version:
    folder = tmp_path_factory.mktemp("versions")
    overrides = ["curriculum.shard_rows=6"]
    recipe = make_recipe(folder / "r", ot2=ROWS, ocr=CODE, overrides=overrides)
    return build_phase(recipe, "1", folder / "out")


def ids(version: Version) -> list[str]:
    return [row["id"] for row in version.rows(["id"])]


def test_four_readers_read_the_same_rows(built: Version, tmp_path: Path) -> None:
    import duckdb
    import polars
    import pyarrow.dataset
    from datasets import load_dataset

    wanted = ids(built)
    assert len(built.manifest.shards) > 1
    glob = str(built.folder / "data" / "*.parquet")
    cache = str(tmp_path / "cache")
    loaded = load_dataset(str(built.folder), split="train", cache_dir=cache)
    assert loaded["id"] == wanted
    assert loaded[0]["prompt"][0]["role"] == "user"
    assert polars.scan_parquet(glob).collect()["id"].to_list() == wanted
    query = "select id, prompt[1].content as asked from read_parquet(?) order by filename"
    found = duckdb.execute(query, [glob]).fetchall()
    assert sorted(row[0] for row in found) == sorted(wanted)
    assert all(asked for _, asked in found)
    table = pyarrow.dataset.dataset(built.folder / "data").to_table()
    assert table["id"].to_pylist() == wanted
    rejected = load_dataset(str(built.folder), "rejected", split="rejected", cache_dir=cache)
    assert len(rejected) == built.manifest.rows_rejected
    pairs = load_dataset(str(built.folder), "duplicates", split="duplicates", cache_dir=cache)
    assert set(pairs["kept_id"]) <= set(wanted)


def test_croissant_is_valid_and_its_library_reads_the_rows(built: Version) -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Its own dependencies warn about themselves.
        warnings.simplefilter("ignore")
        import mlcroissant

        dataset = mlcroissant.Dataset(jsonld=str(built.folder / "croissant.json"))
        assert not dataset.metadata.ctx.issues.errors
        # Dates have no place in a version; nothing else is missing.
        assert all("datePublished" in text for text in dataset.metadata.ctx.issues.warnings)
        read = list(dataset.records("rows"))
    rows = {row["id"]: row for row in built.rows()}
    assert sorted(r["rows/id"].decode() for r in read) == sorted(rows)
    for record in read:
        row = rows[record["rows/id"].decode()]
        assert record["rows/num_tokens"] == row["num_tokens"]
        said = record["rows/completion"][0]["rows/completion/content"]
        assert said.decode() == row["completion"][0]["content"]
        place = record["rows/provenance"]["rows/provenance/source_position"]
        assert place == row["provenance"]["source_position"]


def test_the_card_is_valid_whatever_a_licence_is_called(tmp_path: Path, built: Version) -> None:
    from huggingface_hub import DatasetCard, DatasetCardData

    card = DatasetCard.load(built.folder / "README.md")
    assert isinstance(card.data, DatasetCardData)
    values: Any = card.data
    assert card.data.license == ["apache-2.0", "mit"]
    configs = values.to_dict()["configs"]
    assert [c["config_name"] for c in configs] == ["default", "rejected", "duplicates"]
    odd = [ocr_row("Print the line, please.", license='odd: "one" | two')]
    recipe = make_recipe(tmp_path / "r", ocr=odd)
    found = DatasetCard.load(build_phase(recipe, "1", tmp_path / "out").folder / "README.md")
    assert found.data.license == "other"
    assert found.data.to_dict()["license_name"] == 'odd:-"one"-|-two'
    (line,) = (line for line in found.text.splitlines() if line.startswith("| odd"))
    assert len(re.findall(r"(?<!\\)\|", line)) == 3


def test_a_difference_is_told_by_source_and_reason(tmp_path: Path, built: Version) -> None:
    recipe = make_recipe(tmp_path / "r", ot2=[*ROWS[3:], *questions(14)[12:]], ocr=CODE)
    overrides = [
        "curriculum.num_workers=1",
        'curriculum.phases.1.sources=[{source="code"},{source="talk",share=0.5}]',
    ]
    other = build_phase(load_recipe(str(recipe.path), overrides), "1", tmp_path / "out")
    told = compare_versions(built, other)
    rows = told["rows"]
    assert rows["in_both"] + rows["only_in_a"] == built.manifest.rows_out
    assert rows["in_both"] + rows["only_in_b"] == other.manifest.rows_out
    removed = {(r["source"], r["stage"], r["reason"]): r["rows"]
               for r in told["removed"]["by_reason"]}  # fmt: skip
    assert removed["talk", "", "not among the inputs"] == 3
    assert removed["talk", "mix", "not_drawn"] == rows["only_in_a"] - 3
    added = {r["reason"]: r["rows"] for r in told["added"]["by_reason"]}
    # The question's other trace comes in because the first one's row is gone.
    assert added == {"not among the inputs": 2, "duplicate_question": 1}
    # The file is another one, and rows moved up in it; texts are the same.
    assert told["changed"]["labels"] == told["changed"]["provenance"] > 0
    assert told["changed"]["text"] == told["changed"]["tokens"] == 0
    assert set(told["removed"]["examples"]) <= set(ids(built)) - set(ids(other))
    assert set(told["mix"]["sources"]) == {"code", "talk"}
    show_comparison(told)
    same = compare_versions(built, built)
    assert same["same_order"] and not same["removed"]["by_reason"] and not same["mix"]["sources"]


def test_changed_and_reordered_rows_are_told(tmp_path: Path, built: Version) -> None:
    recipe = make_recipe(tmp_path / "r", ot2=ROWS, ocr=CODE)
    text = recipe.path.read_text(encoding="utf-8").replace("apache-2.0", "cc0-1.0")
    recipe.path.write_text(text, encoding="utf-8")
    other = build_phase(
        load_recipe(str(recipe.path), ["curriculum.num_workers=1", "seed=3"]), "1", tmp_path / "out"
    )
    told = compare_versions(built, other)
    assert not told["same_order"]
    changed = told["changed"]
    assert changed["rows"] == changed["labels"] > 0
    assert changed["text"] == changed["tokens"] == 0
    show_comparison(told)


def test_copies_are_told_and_explained(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path / "r", ot2=questions(6))
    override = 'curriculum.phases.1.sources=[{source="talk",share=2.5}]'
    twice = load_recipe(str(recipe.path), ["curriculum.num_workers=1", override])
    one = build_phase(recipe, "1", tmp_path / "a")
    many = build_phase(twice, "1", tmp_path / "a")
    assert (one.manifest.rows_out, many.manifest.rows_out) == (6, 15)
    assert len(set(ids(many))) == 15
    told = compare_versions(many, one)
    (reason,) = told["removed"]["by_reason"]
    assert (reason["reason"], reason["rows"]) == ("fewer copies", 9)
    third = next(row for row in ids(many) if row.endswith("-3"))
    places = explain_row(third, tmp_path / "a")["places"]
    assert sorted(place["id"].partition("-")[2] for place in places) == ["", "2", "3"]
    says = [step["says"] for place in places for step in place["story"] if step["stage"] == "mix"]
    assert any(text.startswith("copy 3 of") for text in says)


def test_a_rows_story_names_stage_reason_and_stand_in(
    built: Version, capsys: pytest.CaptureFixture[str]
) -> None:
    out = built.folder.parents[2]
    pairs = [r for p in (built.folder / "duplicates").glob("*.parquet") for r in read_rows(p)]
    assert pairs
    for pair in pairs:
        (lost,) = explain_row(pair["removed_id"], out)["places"]
        assert pair["removed_id"] != pair["kept_id"] and not lost["kept"]
        assert lost["kept_id"] == pair["kept_id"]
        *passed, last = lost["story"]
        assert last["stage"] == "dedupe" and not last["passed"]
        assert [step["stage"] for step in passed][:3] == ["parse", "normalize", "validate"]
        (kept,) = (p for p in explain_row(pair["kept_id"], out)["places"] if p["kept"])
        assert pair["removed_id"] in {d["removed_id"] for d in kept["stands_for"]}
        assert all(step["passed"] for step in kept["story"])
        assert "row " in kept["story"][0]["says"] and ".parquet" in kept["story"][0]["says"]
    show_places(explain_row(pairs[0]["kept_id"][:10].upper(), out))
    assert "dedupe" in capsys.readouterr().out
    with pytest.raises(SourceError, match="too short"):
        explain_row("abc", out)
    with pytest.raises(SourceError, match="no row starts with"):
        explain_row("f" * 32, out)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "link", "br", "img", "path", "use", "rect"}:
            self.open.append(tag)
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        loads = [values.get("src"), values.get("href") if tag == "link" else None]
        self.loads += [url for url in loads if url and not url.startswith("data:")]

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_the_page_shows_the_version_and_loads_nothing(built: Version) -> None:
    page = render_inspection(built)
    assert page == render_inspection(built)
    parser = _Page()
    parser.feed(page)
    assert parser.loads == [] and parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    manifest = built.manifest
    for shown in (built.name, f"{manifest.rows_out:,}", f"{manifest.tokens['total']:,}",
                  "question too short", "talk", "Reasoning"):  # fmt: skip
        assert shown in page
    assert page.count("<svg") == 2
    assert page.count("<article>") == 3 + 2
    for stage, reasons in manifest.rejected.items():
        assert f"Rows refused by {stage}: {sum(reasons.values()):,}" in page


def test_a_page_escapes_what_rows_say(tmp_path: Path) -> None:
    nasty = "Print <script>alert('x')</script> & a \x00 line, then stop at once."
    recipe = make_recipe(tmp_path / "r", ocr=[ocr_row(nasty)])
    page = render_inspection(build_phase(recipe, "1", tmp_path / "out"))
    assert "<script" not in page and "&lt;script&gt;" in page and "\x00" not in page


def test_a_changed_letter_is_found(built: Version, tmp_path: Path) -> None:
    folder = tmp_path / built.name
    shutil.copytree(built.folder, folder)
    shard = folder / built.manifest.shards[1].path
    rows = list(read_rows(shard))
    rows[2]["completion"][0]["content"] += "."
    rows[3]["num_completion_tokens"] += 1
    write_table(shard, pa.Table.from_pylist(rows, schema=arrow_schema(TrainingRow)))
    changed = compare_versions(built, Version(folder=folder, manifest=built.manifest))["changed"]
    assert changed["examples"] == [rows[2]["id"], rows[3]["id"]]
    counts = {part: changed[part] for part in ("rows", "text", "labels", "tokens", "provenance")}
    assert counts == {"rows": 2, "text": 1, "labels": 0, "tokens": 1, "provenance": 0}
