"""An evaluation is a version: balanced, resumable to the same bytes, new when its inputs change."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from evaluation import run as module
from evaluation.checkpoints import find_checkpoints
from evaluation.decoding.batching import Batcher
from evaluation.run import evaluate_checkpoint, load_benchmarks, plan_batches
from evaluation.sampling import Sampler
from pipeline.errors import ConfigError, GateRefused, SourceError
from pipeline.settings.recipe import Recipe, load_recipe
from promptcot.verification.sandbox import find_sandbox

pytestmark = pytest.mark.skipif(
    find_sandbox() is None, reason="bubblewrap does not work on this machine"
)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def num_stored(out: Path) -> int:
    path = out / "evaluation" / "answers" / "answers.sqlite"
    if not path.is_file():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # the file has just been made


def with_settings(recipe: Recipe, *overrides: str) -> Recipe:
    return load_recipe(str(recipe.path), overrides)


def test_every_answer_is_a_row_and_every_benchmark_has_scores(
    recipe: Recipe, checkpoint: Path, tmp_path: Path
) -> None:
    version = evaluate_checkpoint(recipe, checkpoint, tmp_path / "out", "phase-1")
    rows = list(version.rows())
    assert [row["id"] for row in rows][:3] == ["sums/s0/0", "sums/s0/1", "sums/s1/0"]
    assert version.manifest.rows_in == version.manifest.rows_out == len(rows) == 8
    assert {row["reason"] for row in rows} <= {"truncated", "no_answer", "no_code", "wrong"}
    scores = {score["benchmark"]: score for score in version.manifest.extra["scores"]}
    assert (scores["sums"]["num_items"], scores["programs"]["num_items"]) == (3, 1)
    assert sum(scores["sums"]["reasons"].values()) == 6
    assert scores["programs"]["majority_at_k"] is None
    total = sum(row["num_tokens"] for row in rows)
    assert version.manifest.tokens["completion"] == total
    card = (version.folder / "README.md").read_text(encoding="utf-8")
    assert "| sums | 3 × 2 | 0.0% |" in card
    assert str(tmp_path) not in "".join(str(content) for content in contents(version.folder))


def test_the_second_time_nothing_is_sampled(
    recipe: Recipe, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate_checkpoint(recipe, checkpoint, tmp_path, "phase-1")
    monkeypatch.setattr(Sampler, "sample", None)
    again = evaluate_checkpoint(recipe, checkpoint, tmp_path, "phase-1")
    assert (again.reused, again.name) == (True, first.name)


def test_an_interrupted_run_continues_to_the_same_bytes(
    recipe: Recipe, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate_checkpoint(recipe, checkpoint, tmp_path / "whole", "phase-1")
    step = Batcher.step
    num_ended: list[int] = []

    def interrupted(self: Batcher[object]) -> object:
        if sum(num_ended) >= 3:
            raise RuntimeError("cut off")
        ended = step(self)
        num_ended.append(len(ended))
        return ended

    with monkeypatch.context() as patch:
        patch.setattr(Batcher, "step", interrupted)
        with pytest.raises(RuntimeError, match="cut off"):
            evaluate_checkpoint(recipe, checkpoint, tmp_path / "cut", "phase-1")
    continued = evaluate_checkpoint(recipe, checkpoint, tmp_path / "cut", "phase-1")
    assert contents(continued.folder) == contents(whole.folder)


def test_grading_again_samples_nothing(
    recipe: Recipe, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate_checkpoint(recipe, checkpoint, tmp_path, "phase-1")
    monkeypatch.setattr("evaluation.student_engine.load_student", None)
    changed = with_settings(recipe, "evaluation.bootstrap_samples=100")
    again = evaluate_checkpoint(changed, checkpoint, tmp_path, "phase-1")
    assert not again.reused and again.name != first.name
    assert list(again.rows()) == list(first.rows())


def test_each_benchmark_has_its_own_number_of_samples(recipe: Recipe) -> None:
    more = with_settings(recipe, "benchmarks.1.samples_per_item=5")
    batches = plan_batches(load_benchmarks(more), more)
    names = [request.item.benchmark for batch in batches for request in batch.rows]
    assert (names.count("sums"), names.count("programs")) == (6, 5)


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_bytes(
    recipe: Recipe, checkpoint: Path, tmp_path: Path
) -> None:
    whole = evaluate_checkpoint(recipe, checkpoint, tmp_path / "whole", "phase-1")
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "evaluation", "run", "--recipe", str(recipe.path)]
    command += ["--checkpoint", str(checkpoint), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not num_stored(out):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    continued = evaluate_checkpoint(recipe, checkpoint, out, "phase-1")
    assert contents(continued.folder) == contents(whole.folder)


def test_other_weights_settings_or_items_make_another_version(
    recipe: Recipe, checkpoint: Path, tmp_path: Path
) -> None:
    def name(recipe: Recipe, checkpoint: Path) -> str:
        return module._describe_stage(recipe, checkpoint, tmp_path, "phase-1").version

    first = name(recipe, checkpoint)
    assert name(with_settings(recipe, "evaluation.num_workers=1"), checkpoint) == first
    assert name(with_settings(recipe, "evaluation.seed=9"), checkpoint) != first
    moved = Path(shutil.copytree(checkpoint, tmp_path / "moved"))
    assert name(recipe, moved) == first
    config = (moved / "config.json").read_text(encoding="utf-8")
    (moved / "config.json").write_text(config + "\n", encoding="utf-8")
    assert name(recipe, moved) != first
    with (tmp_path / "sums.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "s9", "question": "2?", "answer": 2}\n')
    assert name(recipe, checkpoint) != first


def test_a_teacher_is_evaluated_without_a_checkpoint(recipe: Recipe, tmp_path: Path) -> None:
    rows = [
        {"match": "What is 1 + 1", "text": "easy\n</think>\n\n\\boxed{2}"},
        {"match": "What is", "text": "hard\n</think>\n\nNo idea."},
        {"match": "double", "text": "so\n</think>\n\n```python\nprint(2 * int(input()))\n```"},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "script.jsonl").write_text(text, encoding="utf-8")
    teacher = 'teachers.default={engine="scripted", model="m", script="script.jsonl"}'
    asking = with_settings(recipe, teacher, "evaluation.engine=default")
    version = evaluate_checkpoint(asking, None, tmp_path / "out", "default")
    scores = {score["benchmark"]: score["avg_at_k"] for score in version.manifest.extra["scores"]}
    assert scores == {"sums": pytest.approx(1 / 3), "programs": 1.0}
    assert version.manifest.inputs[0].name == "model:m"
    assert {row["finish_reason"] for row in version.rows()} == {"stop"}
    other = with_settings(recipe, teacher.replace('"m"', '"n"'), "evaluation.engine=default")
    again = module._describe_stage(other, None, tmp_path / "out", "default")
    assert again.version != version.name


def test_no_batch_mixes_benchmarks(recipe: Recipe) -> None:
    batches = plan_batches(load_benchmarks(recipe), recipe)
    assert [len(batch.rows) for batch in batches] == [4, 2, 2]
    assert all(len({trial.item.benchmark for trial in batch.rows}) == 1 for batch in batches)


def test_a_recipe_without_benchmarks_is_refused(
    recipe: Recipe, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no benchmarks"):
        evaluate_checkpoint(with_settings(recipe, "benchmarks=[]"), checkpoint, tmp_path, "x")
    with pytest.raises(ConfigError, match="two benchmarks named 'sums'"):
        load_benchmarks(with_settings(recipe, "benchmarks.1.name=sums"))


def test_a_changed_benchmark_is_a_gate(recipe: Recipe, checkpoint: Path, tmp_path: Path) -> None:
    pinned = with_settings(recipe, f"benchmarks.0.sha256={'0' * 64}")
    with pytest.raises(GateRefused, match="sha256"):
        evaluate_checkpoint(pinned, checkpoint, tmp_path, "x")


def test_checkpoints_are_found_as_far_as_they_are_trained(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no checkpoint under"):
        find_checkpoints(recipe, tmp_path)
    folder = tmp_path / "checkpoints" / "phase-2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert find_checkpoints(recipe, tmp_path) == [folder]
