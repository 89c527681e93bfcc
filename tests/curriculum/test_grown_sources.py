"""A source that gained or lost files: only new files are prepared, and the bytes are the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from curriculum_rows import (
    OT2,
    make_recipe,
    ot2_row,
    questions,
    reasons_of,
    tree,
    write,
    write_lines,
)

from curriculum import phases, preparing
from curriculum.build import build_phase
from curriculum.collecting import collect_garbage
from curriculum.earlier_parts import find_earlier_parts
from curriculum.preparation import use_lock
from curriculum.preparing import PartTask
from curriculum.selection import select_rows
from pipeline.errors import ManifestMismatch, StoreError
from pipeline.manifest import Version
from pipeline.settings import Recipe, load_recipe
from pipeline.store import shared_lock

SMALL = ["curriculum.batch_rows=4", "curriculum.shard_rows=9", "curriculum.num_workers=1"]
ROWS = [*questions(30), ot2_row("Too short"), ot2_row(questions(1)[0]["question"])]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe's folder with four files: Parquet, JSONL, and one that must be unpacked."""
    make_recipe(tmp_path / "r", ot2=questions(1))
    write(tmp_path / "r" / "a.parquet", ROWS[:10], OT2)
    write_lines(tmp_path / "r" / "b.jsonl", ROWS[10:19])
    write_lines(tmp_path / "r" / "c.jsonl", ROWS[19:25])
    (tmp_path / "r" / "d.json").write_text(json.dumps(ROWS[25:]), encoding="utf-8")
    return tmp_path / "r"


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose parts were worked on."""
    names: list[str] = []
    real = preparing.prepare_part

    def prepare(task: PartTask) -> None:
        assert task.part.file is not None
        names.append(task.part.file.name)
        real(task)

    monkeypatch.setattr(preparing, "prepare_part", prepare)
    return names


def recipe_of(folder: Path, files: Sequence[str], *overrides: str) -> Recipe:
    path = folder / f"{'-'.join(files).replace('.', '_')}.toml"
    listed = ", ".join(f'"{name}"' for name in files)
    text = (folder / "t.toml").read_text(encoding="utf-8")
    path.write_text(text.replace('"talk.parquet"', listed), encoding="utf-8")
    return load_recipe(str(path), [*SMALL, *overrides])


def build(folder: Path, files: Sequence[str], out: Path, *overrides: str) -> Version:
    return build_phase(recipe_of(folder, files, *overrides), "1", out)


def preparation_of(version: Version, out: Path) -> dict[str, bytes]:
    (name,) = [r.version for r in version.manifest.inputs if r.name == "prepared:talk"]
    return tree(out / "prepared" / "talk" / name)


def check_same(version: Version, folder: Path, files: Sequence[str], scratch: Path) -> None:
    anew = build(folder, files, scratch)
    assert tree(version.folder) == tree(anew.folder)
    assert preparation_of(version, version.folder.parents[2]) == preparation_of(anew, scratch)


def test_only_new_files_are_prepared(folder: Path, tmp_path: Path, prepared: list[str]) -> None:
    out = tmp_path / "out"
    build(folder, ["a.parquet", "b.jsonl"], out)
    assert set(prepared) == {"a.parquet", "b.jsonl"}
    steps = [
        (["a.parquet", "b.jsonl", "c.jsonl", "d.json"], {"c.jsonl", "d.json"}),
        (["d.json", "b.jsonl"], set()),
        (["c.jsonl", "d.json", "a.parquet"], set()),
    ]
    for number, (files, worked_on) in enumerate(steps):
        prepared.clear()
        version = build(folder, files, out)
        assert set(prepared) == worked_on
        check_same(version, folder, files, tmp_path / f"scratch-{number}")
    assert reasons_of(version)["question_too_short"] == 1


def test_a_changed_file_name_or_setting_is_prepared_anew(
    folder: Path, tmp_path: Path, prepared: list[str]
) -> None:
    out = tmp_path / "out"
    build(folder, ["a.parquet", "b.jsonl"], out)
    prepared.clear()
    write_lines(folder / "b.jsonl", ROWS[10:17])
    version = build(folder, ["a.parquet", "b.jsonl"], out)
    assert set(prepared) == {"b.jsonl"}
    check_same(version, folder, ["a.parquet", "b.jsonl"], tmp_path / "scratch")
    shutil.copy(folder / "b.jsonl", folder / "e.jsonl")
    prepared.clear()
    # Rows tell the name of their file.
    build(folder, ["a.parquet", "e.jsonl"], out)
    assert set(prepared) == {"e.jsonl"}
    prepared.clear()
    build(folder, ["a.parquet", "c.jsonl"], out, "curriculum.validation.max_chars=4000")
    assert set(prepared) == {"a.parquet", "c.jsonl"}


def test_one_file_listed_twice_counts_twice(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(folder, ["c.jsonl", "c.jsonl"], out)
    files = ["b.jsonl", "c.jsonl", "c.jsonl"]
    version = build(folder, files, out)
    assert version.manifest.extra["sources"]["talk"]["rows_in"] == 9 + 6 + 6
    check_same(version, folder, files, tmp_path / "scratch")


def test_without_hard_links_parts_are_copied(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepared: list[str]
) -> None:
    out = tmp_path / "out"
    build(folder, ["a.parquet"], out)
    prepared.clear()

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    version = build(folder, ["c.jsonl", "a.parquet"], out)
    assert set(prepared) == {"c.jsonl"}
    check_same(version, folder, ["c.jsonl", "a.parquet"], tmp_path / "scratch")


def test_a_take_over_that_was_cut_off_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, calls = tmp_path / "out", Path.hardlink_to, [0]
    build(folder, ["a.parquet", "b.jsonl"], out)

    def fail(self: Path, target: Path) -> None:
        calls[0] += 1
        if calls[0] in {2, 5}:
            raise KeyboardInterrupt
        real(self, target)

    monkeypatch.setattr(Path, "hardlink_to", fail)
    files = ["b.jsonl", "c.jsonl", "a.parquet"]
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            build(folder, files, out)
    version = build(folder, files, out)
    check_same(version, folder, files, tmp_path / "scratch")


def test_what_was_taken_over_outlives_its_origin(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(folder, ["a.parquet", "b.jsonl"], out)
    files = ["a.parquet", "b.jsonl", "c.jsonl"]
    version = build(folder, files, out)
    gone = [one for one in collect_garbage(out) if not one.keeps]
    assert sorted(one.kind for one in gone) == ["dataset", "prepared source"]
    # Its parts live on in the other preparation: half of each file is not the whole.
    assert all(one.num_bytes > 0 for one in gone)
    check_same(version, folder, files, tmp_path / "scratch")
    other = build(folder, files, out, "seed=5")
    assert sorted(r["id"] for r in other.rows(["id"])) == sorted(
        r["id"] for r in version.rows(["id"])
    )


def test_a_damaged_origin_is_named(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(folder, ["a.parquet"], out)
    (rows,) = out.glob("prepared/talk/*/part-000001.rows")
    rows.unlink()
    with pytest.raises(ManifestMismatch, match=r"part-000001\.rows is missing"):
        build(folder, ["a.parquet", "c.jsonl"], out)
    assert find_earlier_parts(out / "prepared" / "talk", "another basis").files == {}


def test_nothing_is_collected_while_a_build_is_between_its_stages(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "out", select_rows
    build(folder, ["a.parquet"], out)
    refused = []

    def select(*arguments: Any, **options: Any) -> Any:
        # No stage is at work here, and the new preparation is in no manifest yet.
        with pytest.raises(StoreError, match="another process"):
            collect_garbage(out)
        refused.append(True)
        # Another build may go on at the same time.
        with shared_lock(use_lock(out), "this run folder"):
            return real(*arguments, **options)

    monkeypatch.setattr(phases, "select_rows", select)
    build(folder, ["b.jsonl"], out)
    assert refused
    assert [one.kind for one in collect_garbage(out) if not one.keeps] == [
        "dataset",
        "prepared source",
    ]
