"""Phase versions: shares, order, licences, kill -9, and what other tools read."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from curriculum_rows import make_recipe, ocr_row, questions, reasons_of, tree

from curriculum.build import build_phase
from curriculum.difficulty import rank_difficulty
from pipeline.errors import ConfigError, LicenceRefused
from pipeline.manifest import mark_latest
from pipeline.records import Judgement, Problem, Solution, VerifiedTrace
from pipeline.settings import Recipe, load_recipe
from pipeline.stages import Batch, BatchResult, Stage, run_stage

SMALL = ["curriculum.batch_rows=7", "curriculum.shard_rows=9"]
KILLER = """
import os, signal, sys
from pathlib import Path
from curriculum.build import build_phase
from pipeline import store
from pipeline.settings import load_recipe
left, real = [int(sys.argv[3])], store.fsync
def fsync(path):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(path)
store.fsync = fsync
build_phase(load_recipe(sys.argv[1], sys.argv[4:]), "1", Path(sys.argv[2]))
"""


def test_kill_9_anywhere_then_the_same_bytes(tmp_path: Path) -> None:
    overrides = [*SMALL, "curriculum.num_workers=1"]
    recipe = make_recipe(tmp_path / "r", ot2=questions(30), overrides=overrides)
    calm = build_phase(recipe, "1", tmp_path / "calm")
    killed = tmp_path / "killed"
    # Every file takes two: the file, then its folder. 5: pass one; 14: scattering; 25: shards.
    for count in (5, 14, 25):
        command = [sys.executable, "-c", KILLER, str(recipe.path), str(killed), str(count)]
        done = subprocess.run([*command, *overrides], check=False, timeout=60)
        assert done.returncode == -signal.SIGKILL
        assert not list(killed.rglob("LATEST"))
    again = build_phase(recipe, "1", killed)
    assert not again.reused
    assert tree(again.folder) == tree(calm.folder)
    assert [p.name for p in again.folder.parent.iterdir() if p.name.startswith(".")] == []


def test_processes_change_nothing(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path / "r", ot2=questions(30), overrides=SMALL)
    alone = build_phase(recipe, "1", tmp_path / "a")
    many = load_recipe(str(recipe.path), [*SMALL, "curriculum.num_workers=2"])
    assert tree(build_phase(many, "1", tmp_path / "b").folder) == tree(alone.folder)


def test_shards_are_whole_and_in_order(tmp_path: Path) -> None:
    overrides = [*SMALL, "curriculum.phases.1.order=as-is"]
    recipe = make_recipe(tmp_path / "r", ot2=questions(30), overrides=overrides)
    version = build_phase(recipe, "1", tmp_path / "out")
    assert [shard.rows for shard in version.manifest.shards] == [9, 9, 9, 3]
    asked = [row["question"] for row in version.rows()]
    assert asked == [row["question"] for row in questions(30)]
    shuffled = build_phase(
        make_recipe(tmp_path / "r", ot2=questions(30), overrides=SMALL), "1", tmp_path / "out"
    )
    assert [row["question"] for row in shuffled.rows()] != asked
    assert sorted(row["question"] for row in shuffled.rows()) == sorted(asked)


def test_batches_bound_what_is_read_together(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path / "r", ot2=questions(30), overrides=["curriculum.batch_rows=4"])
    other = load_recipe(str(recipe.path), ["curriculum.num_workers=1"])
    a, b = (build_phase(r, "1", tmp_path / "out") for r in (recipe, other))
    assert a.name != b.name
    assert list(a.rows()) == list(b.rows())


def test_shares_are_drawn_by_seed_and_counted(tmp_path: Path) -> None:
    override = 'curriculum.phases.1.sources=[{source="talk",share=0.25}]'
    recipe = make_recipe(tmp_path / "r", ot2=questions(20), overrides=[override])
    version = build_phase(recipe, "1", tmp_path / "out")
    assert version.manifest.rows_out == 5
    assert reasons_of(version) == {"not_drawn": 15}
    other = load_recipe(str(recipe.path), [override, "seed=1", "curriculum.num_workers=1"])
    drawn = {row["id"] for row in build_phase(other, "1", tmp_path / "out").rows()}
    assert drawn != {row["id"] for row in version.rows()}
    none = load_recipe(str(recipe.path), [override.replace("0.25", "0.01")])
    with pytest.raises(
        ConfigError, match=r"share 0\.01 of the 20 accepted rows .* rounds to no rows"
    ):
        build_phase(none, "1", tmp_path / "out")


def test_difficulty_orders_from_easy_to_hard(tmp_path: Path) -> None:
    levels = ["VERY_HARD", "EASY", "2400", "MEDIUM", "800"]
    rows = [ocr_row(f"Print line number {n}.", difficulty=d) for n, d in enumerate(levels)]
    override = "curriculum.phases.1.order=difficulty"
    recipe = make_recipe(tmp_path / "r", ocr=rows, overrides=[override])
    found = [row["difficulty"] for row in build_phase(recipe, "1", tmp_path / "out").rows()]
    assert found == sorted(levels, key=rank_difficulty)
    assert found[0] == "EASY" and found[-1] == "VERY_HARD"


def test_a_foreign_licence_refuses_the_build(tmp_path: Path) -> None:
    rows = [ocr_row("Print the line.", license="GPL-3.0"), ocr_row("Print it once.")]
    allowed = 'curriculum.phases.1.allowed_licences=["mit"]'
    recipe = make_recipe(tmp_path / "r", ocr=rows, overrides=[allowed])
    with pytest.raises(LicenceRefused, match=r"1 rows 'gpl-3\.0'") as error:
        build_phase(recipe, "1", tmp_path / "out")
    assert error.value.exit_code == 3
    assert not list((tmp_path / "out" / "datasets").rglob("manifest.json"))


def test_traces_per_question_keeps_more(tmp_path: Path) -> None:
    rows = [
        ocr_row(
            "Print the line.",
            f"<think>\nThought number {n} of this.\n</think>\n\n```python\nprint({n})\n```",
        )
        for n in (1, 2, 3, 3)
    ]
    for limit, expected in ((1, {"duplicate_question": 2, "duplicate_trace": 1}), (2, None)):
        override = f"curriculum.traces_per_question={limit}"
        recipe = make_recipe(tmp_path / "r", ocr=rows, overrides=[override])
        version = build_phase(recipe, "1", tmp_path / "out")
        assert version.manifest.rows_out == limit
        assert expected is None or sum(reasons_of(version).values()) == sum(expected.values())
    details = [
        row["detail"]
        for path in (version.folder / "rejected").glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    ]
    kept = {row["id"] for row in version.rows()}
    assert all(detail.split()[1] in kept for detail in details)


def verified(number: int, method: str) -> VerifiedTrace:
    problem = Problem(
        id=f"p{number}", combination_id="c", concepts=["a", "b"], level="AIME", domain="math",
        rationale="r", statement=f"How much is {number} added to {number}?", teacher="t",
        prompt_hash="h", seed=1,
    )  # fmt: skip
    ratings = dict.fromkeys(
        ("format", "factual_accuracy", "difficulty_alignment", "concept_coverage", "solvability"),
        "perfect",
    )
    judgement = Judgement.model_validate(
        {"problem_id": problem.id, "judge": "strict", "verdict": "perfect", "model": "m",
         "vote": 0, "prompt_hash": "h", "seed": 1, **ratings}
    )  # fmt: skip
    solution = Solution(
        id=f"s{number}", problem=problem, judgements=[judgement], prompt_hash="asked",
        thinking=f"Adding {number} twice gives {2 * number}.", answer=f"\\boxed{{{2 * number}}}",
        finish_reason="stop", teacher="t", temperature=1.0, top_p=1.0, seed=1,
        num_prompt_tokens=1, num_completion_tokens=1,
    )  # fmt: skip
    return VerifiedTrace.model_validate(
        {"solution": solution, "final_answer": "x", "agreement": 1.0, "num_samples": 4,
         "method": method, "tests": []}
    )  # fmt: skip


def test_phase_2_reads_verified_traces_and_keeps_their_provenance(tmp_path: Path) -> None:
    traces = [verified(n, "majority" if n % 2 else "unverified") for n in range(6)]
    stage = Stage(
        name="verified", root=tmp_path / "synthesis" / "verified", record=VerifiedTrace,
        settings={}, inputs=[], packages=["pipeline"],
    )  # fmt: skip
    made = run_stage(
        stage, [Batch("b", traces)], lambda b: BatchResult(num_in=len(b.rows), rows=b.rows)
    )
    mark_latest(stage.root, made.name)
    version = build_phase(load_recipe("demo"), "2", tmp_path)
    assert version.manifest.rows_out == 6
    assert version.manifest.extra["sources"]["promptcot"]["verified"] == 3
    row = next(iter(version.rows()))
    assert row["provenance"]["concepts"] == ["a", "b"]
    assert row["provenance"]["verdicts"] == ["strict: perfect"]
    assert row["provenance"]["prompt_hash"] == "asked"
    assert row["source_revision"] == made.name
    assert {"promptcot:synthesis/verified": made.name}.items() <= {
        ref.name: ref.version for ref in version.manifest.inputs
    }.items()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    folder = tmp_path_factory.mktemp("demo")
    recipe = load_recipe("demo")
    build_phase(recipe, "1", folder)
    return recipe, folder


def test_the_card_agrees_with_the_manifest(demo: tuple[Recipe, Path]) -> None:
    from huggingface_hub import DatasetCard

    version = build_phase(*_args(demo))
    card = DatasetCard.load(version.folder / "README.md")
    assert card.data.configs[0]["data_files"][0]["path"] == "data/*.parquet"
    assert card.data.license == ["apache-2.0", "cc-by-4.0"]
    for number in (version.manifest.rows_in, version.manifest.rows_out):
        assert f"{number:,}" in card.text
    for part in ("OpenCodeReasoning", "OpenThoughts2-1M", "template twins"):
        assert part in card.text


def test_croissant_lists_the_shards(demo: tuple[Recipe, Path]) -> None:
    version = build_phase(*_args(demo))
    described = json.loads((version.folder / "croissant.json").read_text(encoding="utf-8"))
    files = {f["contentUrl"]: f["sha256"] for f in described["distribution"] if "sha256" in f}
    assert files == {shard.path: shard.sha256 for shard in version.manifest.shards}


def test_nothing_of_this_machine_is_in_a_version(demo: tuple[Recipe, Path]) -> None:
    version = build_phase(*_args(demo))
    for name in ("manifest.json", "README.md", "croissant.json"):
        text = (version.folder / name).read_text(encoding="utf-8")
        assert str(Path.home()) not in text and str(version.folder.parents[2]) not in text


def test_figures_add_up(demo: tuple[Recipe, Path]) -> None:
    manifest = build_phase(*_args(demo)).manifest
    extra = manifest.extra
    assert sum(b["rows"] for b in extra["token_histogram"]) == manifest.rows_out
    assert sum(extra["domains"].values()) == manifest.rows_out
    assert sum(s["rows_in"] for s in extra["sources"].values()) == manifest.rows_in
    assert sum(s["tokens"] for s in extra["sources"].values()) == manifest.tokens["total"]
    assert Counter(manifest.licences).total() == manifest.rows_out


def _args(demo: tuple[Recipe, Path]) -> tuple[Recipe, str, Path]:
    return demo[0], "1", demo[1]
