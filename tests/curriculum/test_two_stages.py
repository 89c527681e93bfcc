"""Sources are prepared once for all phases; phases choose, repeat, replay and say what they left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from curriculum_rows import make_recipe, ot2_row, questions, reasons_of, tree

from curriculum.build import build_phase
from pipeline.errors import ConfigError, ManifestMismatch
from pipeline.manifest import LATEST, Version
from pipeline.settings import Recipe, load_recipe

SMALL = ["curriculum.batch_rows=7", "curriculum.shard_rows=9"]
PHASE_2 = 'curriculum.phases.2={sources=[{source="talk"}],max_tokens=400}'


def reload(recipe: Recipe, *overrides: str) -> Recipe:
    return load_recipe(str(recipe.path), ["curriculum.num_workers=1", *overrides])


def prepared_folders(out: Path) -> list[Path]:
    return sorted(path.parent for path in out.glob("prepared/*/*/manifest.json"))


def read_folder(version: Version, kind: str) -> list[dict[str, Any]]:
    files = sorted((version.folder / kind).glob("*.parquet"))
    return [row for path in files for row in pq.read_table(path).to_pylist()]


def ids_of(version: Version) -> list[str]:
    return [row["id"] for row in version.rows(["id"])]


def test_phases_share_what_is_prepared(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path / "r", ot2=questions(20), overrides=[PHASE_2])
    one = build_phase(recipe, "1", tmp_path / "out")
    (folder,) = prepared_folders(tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    two = build_phase(recipe, "2", tmp_path / "out")
    longer = reload(recipe, PHASE_2, "curriculum.phases.1.order=length", "seed=3")
    build_phase(longer, "1", tmp_path / "out")
    assert prepared_folders(tmp_path / "out") == [folder]
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sorted(ids_of(one)) == sorted(ids_of(two))
    assert {"prepared:talk": folder.name}.items() <= {
        ref.name: ref.version for ref in one.manifest.inputs
    }.items()
    stricter = reload(recipe, PHASE_2, "curriculum.validation.min_thinking_chars=5000")
    build_phase(reload(stricter, PHASE_2, "curriculum.batch_rows=5"), "1", tmp_path / "out")
    assert len(prepared_folders(tmp_path / "out")) == 2


NEAR = (
    "In a small harbour town a ship sails due north for several hours at an even speed, then turns "
    "east and sails on at the same speed until the evening, when the captain asks how far the ship "
    "is from the harbour. Explain how you would find the distance{} and give it as \\boxed{{n}}."
)


def test_what_stands_for_each_removed_row_is_listed(tmp_path: Path) -> None:
    again = questions(3)[1]["question"].replace("Explain", " explain")
    rows = [*questions(6), {**questions(3)[1], "question": again}]
    rows += [ot2_row(NEAR.format("")), ot2_row(NEAR.format(" now"))]
    recipe = make_recipe(tmp_path / "r", ot2=rows, overrides=SMALL)
    version = build_phase(recipe, "1", tmp_path / "out")
    assert reasons_of(version) == {"duplicate_trace": 2}
    kept, listed = set(ids_of(version)), read_folder(version, "duplicates")
    assert [row["jaccard"] == 1 for row in listed] == [True, False]
    refused = {row["row_id"]: row for row in read_folder(version, "rejected")}
    for row in listed:
        assert row["kept_id"] in kept and row["removed_id"] not in kept
        assert refused[row["removed_id"]]["detail"] == f"kept {row['kept_id']} instead"
    apart = reload(recipe, *SMALL, "curriculum.near_duplicates=false")
    assert reasons_of(build_phase(apart, "1", tmp_path / "out")) == {"duplicate_trace": 1}


def test_copies_have_ids_of_their_own_and_count_on_both_sides(tmp_path: Path) -> None:
    override = 'curriculum.phases.1.sources=[{source="talk",share=2.5}]'
    recipe = make_recipe(tmp_path / "r", ot2=questions(8), overrides=[override, *SMALL])
    version = build_phase(recipe, "1", tmp_path / "out")
    ids = ids_of(version)
    assert len(ids) == len(set(ids)) == version.manifest.rows_out == version.manifest.rows_in == 20
    assert len({name[:32] for name in ids}) == 8
    assert version.manifest.extra["sources"]["talk"]["copies"] == 12
    assert {row["question"] for row in version.rows()} == {row["question"] for row in questions(8)}


def test_a_phase_can_replay_or_avoid_another(tmp_path: Path) -> None:
    from curriculum_rows import ocr_row

    code = [ocr_row(f"Print the number {n} and the word for it.", f"<think>\nPrint the {n} as the "
            f"task says.\n</think>\n\n```python\nprint({n})\n```") for n in range(12)]  # fmt: skip
    sources = 'sources=[{source="talk"}],max_tokens=400'
    replay = f'curriculum.phases.2={{{sources},replay={{phase="1",ratio=0.5}}}}'
    only_code = 'curriculum.phases.1.sources=[{source="code"}]'
    recipe = make_recipe(
        tmp_path / "r", ocr=code, ot2=questions(5), overrides=[only_code, replay, *SMALL]
    )
    mixed = build_phase(recipe, "2", tmp_path / "out")
    assert mixed.manifest.rows_out == 10
    assert mixed.manifest.extra["replayed_rows"] == 5
    first = build_phase(recipe, "1", tmp_path / "out")
    from_code = [row["id"] for row in mixed.rows() if row["source"] == "code"]
    assert len(from_code) == 5 and set(from_code) < set(ids_of(first))
    other = f'curriculum.phases.2={{{sources},distinct_from=["1"]}}'
    with_talk = 'curriculum.phases.1.sources=[{source="talk",share=0.4}]'
    apart = reload(recipe, *SMALL, with_talk, other)
    version = build_phase(apart, "2", tmp_path / "out")
    assert reasons_of(version) == {"in_other_phase": 2}
    assert not set(ids_of(version)) & set(ids_of(build_phase(apart, "1", tmp_path / "out")))
    circle = 'curriculum.phases.1.distinct_from=["2"]'
    with pytest.raises(ConfigError, match="refer to each other"):
        build_phase(reload(recipe, with_talk, other, circle), "2", tmp_path / "out")


def test_a_variant_is_a_dataset_of_its_own(tmp_path: Path) -> None:
    variant = "curriculum.phases.1.variants.short.max_tokens=300"
    recipe = make_recipe(tmp_path / "r", ot2=questions(9), overrides=[variant])
    plain = reload(recipe)
    whole = build_phase(plain, "1", tmp_path / "out")
    short = build_phase(recipe, "1", tmp_path / "out", "short")
    assert short.folder.parent.name == "phase-1-short"
    assert short.name != whole.name
    assert build_phase(recipe, "1", tmp_path / "out").name == whole.name
    newest = (tmp_path / "out" / "datasets" / "phase-1" / LATEST).read_text(encoding="utf-8")
    assert newest.strip() == whole.name
    with pytest.raises(ConfigError, match="no variant 'long'"):
        build_phase(recipe, "1", tmp_path / "out", "long")


@pytest.mark.parametrize("is_cut", [True, False])
@pytest.mark.parametrize("compress", ["true", "false"])
def test_damaged_prepared_rows_are_refused(tmp_path: Path, compress: str, *, is_cut: bool) -> None:
    overrides = [PHASE_2, f"curriculum.compress_prepared={compress}"]
    recipe = make_recipe(tmp_path / "r", ot2=questions(9), overrides=overrides)
    build_phase(recipe, "1", tmp_path / "out")
    (folder,) = prepared_folders(tmp_path / "out")
    rows = folder / "part-000000.rows"
    data = bytearray(rows.read_bytes())
    data[-40] ^= 1
    rows.write_bytes(data[:-40] if is_cut else data)
    with pytest.raises(ManifestMismatch, match=r"part-000000\.rows is damaged"):
        build_phase(recipe, "2", tmp_path / "out")
    assert not (tmp_path / "out" / "datasets" / "phase-2" / LATEST).exists()


def test_compressing_what_is_prepared_changes_no_version(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path / "r", ot2=questions(20))
    plain = build_phase(recipe, "1", tmp_path / "plain")
    packed = build_phase(
        reload(recipe, "curriculum.compress_prepared=true"), "1", tmp_path / "packed"
    )
    assert tree(packed.folder) == tree(plain.folder)
    sizes = [
        sum(path.stat().st_size for path in (tmp_path / name).rglob("*.rows"))
        for name in ("plain", "packed")
    ]
    assert sizes[1] < sizes[0]


BUILD = """
import sys
from pathlib import Path
from curriculum.build import build_phase
from pipeline.settings import load_recipe
if __name__ == "__main__":
    build_phase(load_recipe(sys.argv[1], sys.argv[3:]), "1", Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("target", ["parent", "worker"])
def test_kill_9_with_processes_then_the_same_bytes(tmp_path: Path, target: str) -> None:
    overrides = [*SMALL, "curriculum.num_workers=2"]
    recipe = make_recipe(tmp_path / "r", ot2=questions(60), overrides=overrides)
    calm = build_phase(reload(recipe, *SMALL), "1", tmp_path / "calm")
    out, script = tmp_path / "killed", tmp_path / "run.py"
    script.write_text(BUILD, encoding="utf-8")
    command = [sys.executable, str(script), str(recipe.path), str(out), *overrides]
    for pattern in ("prepared/*/.staging-*/*.table.parquet", "datasets/*/.staging-*/receipts/*"):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and not list(out.glob(pattern)):
                time.sleep(0.002)
            if target == "parent":
                process.kill()
            else:
                _kill_a_worker(process.pid)
                assert process.wait(60) == 0
    version = build_phase(recipe, "1", out)
    assert tree(version.folder) == tree(calm.folder)
    assert tree(out / "prepared") == tree(tmp_path / "calm" / "prepared")


def _kill_a_worker(pid: int) -> None:
    with suppress(FileNotFoundError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        for child in children:
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)
                return
