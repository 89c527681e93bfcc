"""Two scripted judges and some problems for the tests of the stage `judged`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.hashing import content_hash
from pipeline.manifest import Version
from pipeline.records import Problem
from pipeline.settings.recipe import load_recipe
from pipeline.stages import BatchResult, Stage, run_stage, split_batches
from promptcot.judging import run_judging
from promptcot.ratings import CRITERIA
from promptcot.run_context import SynthesisRun

STATEMENTS = [
    f"A shelf has {n} boxes with 6 pens each. How many pens are there?" for n in range(24)
]
RECIPE = """
name = "judges"
seed = 3
[teachers.default]
[teachers.strict]
engine = "scripted"
script = "strict.jsonl"
[teachers.kind]
engine = "scripted"
script = "kind.jsonl"
[synthesis]
batch_size = 5
min_rows = 0
[[synthesis.judging.judges]]
teacher = "strict"
[[synthesis.judging.judges]]
teacher = "kind"
votes = 3
"""


def reply(worst: str = "Perfect", reason: str = "as it should be") -> str:
    ratings = [worst, "Perfect", "Perfect", "Perfect", worst]
    lines = [f"{name}: {rating} - {reason}" for name, rating in zip(CRITERIA, ratings, strict=True)]
    return "\n".join([*lines, f"Final Judgement: {worst}"])


Script = list[dict[str, Any]]
ALWAYS: Script = [{"match": "", "text": reply()}]


def make_problem(number: int, statement: str, rationale: str = "Groups of one size.") -> Problem:
    return Problem(
        id=content_hash([number, statement]),
        combination_id=f"c{number}",
        concepts=["multiplication", "counting"],
        level="AMC12",
        domain="math",
        rationale=rationale,
        statement=statement,
        teacher="t",
        prompt_hash="p",
        seed=1,
    )


def write_script(path: Path, rows: Script) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def open_run(
    folder: Path, *overrides: str, strict: Script = ALWAYS, kind: Script = ALWAYS
) -> SynthesisRun:
    folder.mkdir(exist_ok=True, parents=True)
    write_script(folder / "strict.jsonl", strict)
    write_script(folder / "kind.jsonl", kind)
    (folder / "judges.toml").write_text(RECIPE, encoding="utf-8")
    return SynthesisRun(load_recipe(str(folder / "judges.toml"), overrides), folder / "out")


def store_problems(run: SynthesisRun, problems: Sequence[Problem]) -> Version:
    stage = Stage(
        name="distinct",
        root=run.folder("distinct"),
        record=Problem,
        settings={"ids": [problem.id for problem in problems]},
        inputs=[],
        packages=["pipeline"],
    )
    batches = split_batches(problems, 7, key=lambda row: row.id)
    return run_stage(
        stage, batches, lambda batch: BatchResult(num_in=len(batch.rows), rows=batch.rows)
    )


def judge(run: SynthesisRun, problems: Sequence[Problem] | None = None) -> Version:
    rows = problems or [make_problem(n, text) for n, text in enumerate(STATEMENTS)]
    with run:
        return run_judging(run, store_problems(run, rows))


def kept(version: Version) -> list[str]:
    return [row["problem"]["id"] for row in version.rows()]


def reasons(version: Version) -> dict[str, int]:
    return dict(next(iter(version.manifest.rejected.values()), {}))
