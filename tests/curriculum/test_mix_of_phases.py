"""Phases that refer to each other: replay, distinctness and ablations, built for real."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from curriculum_rows import make_recipe, ocr_row, questions, reasons_of, tree

from curriculum.__main__ import app
from curriculum.build import app as build_app
from curriculum.build import build_phase
from pipeline import console
from pipeline.cli import exit_code_of
from pipeline.errors import ConfigError
from pipeline.manifest import Version
from pipeline.settings import Recipe, load_recipe

CODE = [ocr_row(f"Print the number {n} and nothing else, please.", id=str(n)) for n in range(20)]
PHASE_2 = """
[curriculum.phases.2]
sources = [{ source = "code" }]
max_tokens = 500
replay = { phase = "1", ratio = 0.25 }
[curriculum.phases.2.variants.no-replay]
replay = { ratio = 0 }
[curriculum.phases.2.variants.apart]
replay = { ratio = 0 }
distinct_from = ["1"]
sources = [{ source = "code" }, { source = "talk" }]
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mix")


def recipe_of(out: Path, overrides: Sequence[str] = ()) -> Recipe:
    path = out / "r" / "t.toml"
    if not path.is_file():
        make_recipe(out / "r", ot2=questions(30), ocr=CODE)
        text = path.read_text(encoding="utf-8").replace('{ source = "code" }, ', "")
        path.write_text(text + PHASE_2, encoding="utf-8")
    near = ["curriculum.near_duplicates=false", "curriculum.num_workers=1"]
    return load_recipe(str(path), [*near, *overrides])


def sources_of(version: Version) -> Counter[str]:
    return Counter(row["source"] for row in version.rows(["source"]))


def test_a_quarter_of_phase_2_replays_phase_1(out: Path) -> None:
    first = build_phase(recipe_of(out), "1", out)
    second = build_phase(recipe_of(out), "2", out)
    assert sources_of(first) == {"talk": 30}
    counts = sources_of(second)
    assert counts["code"] + counts["talk"] == second.manifest.rows_out
    assert counts["talk"] == round(counts["code"] / 3)
    assert second.manifest.extra["replayed_rows"] == counts["talk"]
    ids = {row["id"] for row in first.rows(["id"])}
    assert {r["id"] for r in second.rows(["id", "source"]) if r["source"] == "talk"} <= ids
    # Nothing else of phase 1 came in, so nothing of it is rejected.
    assert second.manifest.rows_in == 20 + counts["talk"]
    assert f"{counts['talk']} rows are replayed" in (second.folder / "README.md").read_text("utf-8")


def test_replayed_rows_change_with_the_share_of_phase_1(out: Path) -> None:
    smaller = recipe_of(out, ['curriculum.phases.1.sources=[{source="talk",share=0.4}]'])
    first = build_phase(smaller, "1", out)
    second = build_phase(smaller, "2", out)
    ids = {row["id"] for row in first.rows(["id"])}
    assert len(ids) == 12
    assert {r["id"] for r in second.rows(["id", "source"]) if r["source"] == "talk"} <= ids


def test_variants_are_datasets_of_their_own(out: Path) -> None:
    base = build_phase(recipe_of(out), "2", out)
    without = build_phase(recipe_of(out), "2", out, "no-replay")
    assert without.folder.parent.name == "phase-2-no-replay"
    assert without.manifest.extra["variant"] == "no-replay"
    assert set(sources_of(without)) == {"code"}
    # What both take is the same rows.
    kept = {r["id"] for r in base.rows(["id", "source"]) if r["source"] == "code"}
    assert {r["id"] for r in without.rows(["id"])} == kept
    apart = build_phase(recipe_of(out), "2", out, "apart")
    assert set(sources_of(apart)) == {"code"}
    assert reasons_of(apart)["in_other_phase"] == 30
    more = recipe_of(out, ["curriculum.phases.2.variants.another.order=length"])
    again = build_phase(more, "2", out)
    assert again.reused and again.name == base.name
    with pytest.raises(ConfigError, match="no variant 'nope'"):
        build_phase(recipe_of(out), "2", out, "nope")


def test_tokens_weigh_sources(out: Path) -> None:
    override = 'curriculum.phases.1.sources=[{source="talk",weight=3},{source="code",weight=1}]'
    version = build_phase(recipe_of(out, [override, "curriculum.phases.1.mix_by=tokens"]), "1", out)
    tokens = {name: entry["tokens"] for name, entry in version.manifest.extra["sources"].items()}
    assert tokens["talk"] / tokens["code"] == pytest.approx(3, rel=0.1)


def test_copies_are_rows_with_ids_of_their_own(out: Path) -> None:
    override = 'curriculum.phases.1.sources=[{source="talk",share=1.5}]'
    version = build_phase(recipe_of(out, [override]), "1", out)
    rows = list(version.rows())
    assert len({row["id"] for row in rows}) == len(rows) == 45
    copies = [row for row in rows if row["id"].endswith("-2")]
    assert len(copies) == version.manifest.extra["sources"]["talk"]["copies"] == 15
    by_id = {row["id"]: row for row in rows}
    for row in copies:
        assert {**row, "id": ""} == {**by_id[row["id"].removesuffix("-2")], "id": ""}
    assert version.manifest.rows_in == 45


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('curriculum.phases.2.replay={phase="3",ratio=0.1}', "names phase '3'"),
        ("curriculum.phases.2.variants.x.distinct_from=['2']", "names phase '2'"),
        ('curriculum.phases.2.variants.x.sources=[{source="q"}]', "names source 'q'"),
        ('curriculum.phases.1.replay={phase="2",ratio=0.1}', "refer to each other"),
    ],
)
def test_phases_refer_to_what_exists_and_not_in_a_circle(
    out: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_phase(recipe_of(out, [override]), "2", out)


def call(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, dict[str, Any]]:
    console.reset()
    words = [str(word) for word in argv]
    chosen = build_app if words[0] == "build" else app
    code = exit_code_of(chosen, "curriculum", words[1:] if words[0] == "build" else words)
    text = capsys.readouterr().out
    console.reset()
    return code, json.loads(text) if text else {}


def test_the_commands_find_variants_and_move_them(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--recipe", recipe_of(out).path, "--out", out, "--json")
    code, built = call(capsys, "build", "--phase", "2", "--variant", "no-replay", *where)
    assert code == 0
    name, page = "phase-2-no-replay", tmp_path / "page.html"
    code, seen = call(capsys, "inspect", name, "--rows", 0, "--html", page, *where)
    assert (code, seen["version"], seen["html"]) == (0, built["version"], str(page))
    assert "phase 2, no-replay" in page.read_text(encoding="utf-8")
    assert call(capsys, "diff", "phase-2", name, *where)[1]["rows"]["only_in_b"] == 0
    code, pushed = call(capsys, "push", name, tmp_path / "store", *where)
    assert code == 0 and pushed["files_moved"] == pushed["files"]
    there = ("--recipe", recipe_of(out).path, "--out", tmp_path / "there", "--json")
    code, pulled = call(capsys, "pull", tmp_path / "store", *there)
    assert code == 0
    assert tree(Path(pulled["path"])) == tree(Path(built["path"]))
    assert call(capsys, "inspect", name, *there)[0] == 0
    code, swept = call(capsys, "gc", "--dry-run", *there)
    assert (code, [one["keeps"] for one in swept["found"]]) == (0, ["latest of its phase"])
    assert call(capsys, "gc", "--keep", 0, *there)[0] == 2
    assert call(capsys, "pull", tmp_path / "nowhere", *there)[0] == 2
