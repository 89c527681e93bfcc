"""Triples and the generator: one text form for training, asking and answering."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from seed_recipe import write_seed_recipe
from tiny_scorer import build_tiny_scorer

from pipeline.errors import SourceError
from pipeline.manifest import Version, verify_version
from pipeline.records import ConceptCombination, JudgedProblem, Judgement, Problem, Rating, Triple
from pipeline.settings.recipe import load_recipe
from pipeline.stages import Batch, BatchResult, run_stage, split_batches
from promptcot.problems import run_problems
from promptcot.run_context import SynthesisRun
from promptcot.triple_text import triple_completion, triple_prompt
from promptcot.triples import run_triples, triples_from_judged

WHY = "Equal groups call for a product, and what is sold calls for a difference at the end."
ASK = "A shelf has {n} boxes with 6 pens in each of them, and 5 pens are sold. How many are left?"
SEEDS: list[dict[str, Any]] = [
    {"concepts": ["products", "differences"], "problem": ASK.format(n=7), "rationale": WHY},
    {"concepts": ["products", "sums"], "problem": ASK.format(n=8), "source": "own", "source_id": "8", "licence": "MIT"},
    {"concepts": ["products", "primes"], "problem": ASK.format(n=9)},
    {"concepts": ["areas", "circles"], "problem": "In the figure below, what is the area of the circle?"},
    {"concepts": ["areas", "squares"]},
    {"concepts": ["marks", "sums"], "problem": "What is the sum of 3 and 4 <!-- END PROBLEM --> in the end?"},
]  # fmt: skip
RATIONALE = f"<!-- BEGIN RATIONALE -->\n{WHY}\n<!-- END RATIONALE -->"


def open_run(folder: Path, script: list[dict[str, Any]], *overrides: str) -> SynthesisRun:
    seeds = [{"domain": "math", "level": "AIME", **row} for row in SEEDS]
    recipe = write_seed_recipe(folder, seeds=seeds, script=script)
    return SynthesisRun(load_recipe(str(recipe), overrides), folder / "out")


def read(version: Version) -> list[Triple]:
    verify_version(version)
    return [Triple.model_validate(row) for row in version.rows()]


def reasons(version: Version) -> dict[str, int]:
    return next(iter(version.manifest.rejected.values()), {})


def test_every_seed_with_a_problem_becomes_a_triple(tmp_path: Path) -> None:
    script = [
        {"match": "9 boxes", "text": "I would start from primes."},
        {"match": "Foundational concepts", "text": RATIONALE},
    ]
    with open_run(tmp_path, script) as run:
        version = run_triples(run)
    rows = read(version)
    assert [row.teacher.split("@")[0] for row in rows] == ["seed", "script"]
    assert reasons(version) == {
        "missing_rationale": 1, "no_problem": 1, "not_self_contained": 1, "holds_marker": 1,
    }  # fmt: skip
    assert rows[1].source == "own"
    assert version.manifest.licences == {"MIT": 1}
    for row in rows:
        assert row.prompt == triple_prompt(row.concepts, row.level, row.domain)
        assert row.completion == triple_completion(row.rationale, row.problem)


def test_a_refused_rationale_is_asked_again(tmp_path: Path) -> None:
    script = [{"match": "Foundational concepts", "text": [RATIONALE, "nothing", "no", RATIONALE]}]
    with open_run(tmp_path / "one", script, "synthesis.triples.check_problems=false") as run:
        once = run_triples(run).manifest.rows_out
    settings = ("synthesis.triples.check_problems=false", "synthesis.triples.attempts=8")
    with open_run(tmp_path / "many", script, *settings) as run:
        version = run_triples(run)
    assert once <= version.manifest.rows_out == 4
    assert reasons(version) == {"no_problem": 1, "holds_marker": 1}


def test_a_rationale_that_quotes_its_problem_is_refused(tmp_path: Path) -> None:
    quoting = RATIONALE.replace(WHY, f"{WHY} So we write this: {ASK.format(n=8)}")
    script = [
        {"match": "8 boxes", "text": quoting},
        {"match": "Foundational concepts", "text": RATIONALE},
    ]
    with open_run(tmp_path, script) as run:
        assert reasons(run_triples(run))["quotes_problem"] == 1


def judged_problem() -> JudgedProblem:
    problem = Problem(
        id="p1", combination_id="c1", concepts=["sums", "pens"], level="AIME", domain="math",
        rationale=WHY, statement=ASK.format(n=11), teacher="t@1", prompt_hash="h", seed=5,
    )  # fmt: skip
    perfect = Rating.PERFECT
    judgement = Judgement(
        problem_id="p1", judge="j", format=perfect, factual_accuracy=perfect,
        difficulty_alignment=perfect, concept_coverage=perfect, solvability=perfect,
        verdict=perfect, model="m", vote=0, prompt_hash="h", seed=1,
    )  # fmt: skip
    return JudgedProblem(problem=problem, judgements=[judgement])


def test_accepted_problems_join_where_wanted(tmp_path: Path) -> None:
    script = [{"match": "Foundational concepts", "text": RATIONALE}]
    wanted = "synthesis.triples.include_accepted=true"
    with (
        open_run(tmp_path, script, wanted) as run,
        pytest.raises(SourceError, match="no judged ones"),
    ):
        run_triples(run)
    with open_run(tmp_path, script, wanted) as run:
        stage = run.stage("judged", record=JudgedProblem, settings={}, inputs=[])

        def take(batch: Batch) -> BatchResult:
            return BatchResult(num_in=1, rows=[judged_problem()])

        run_stage(stage, split_batches(["p1"], 1, key=str), take)
        exported = list(triples_from_judged(run))
        rows = read(run_triples(run))
    assert [row.source_id for row in rows if row.source == "synthesis"] == ["p1"]
    assert exported == [rows[-1]]
    assert rows[-1].completion == triple_completion(WHY, ASK.format(n=11))


@pytest.mark.slow
def test_the_set_loads_and_trains_in_trl(tmp_path: Path) -> None:
    """TRL takes the columns as they are and puts the loss on the completion alone."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    script = [{"match": "Foundational concepts", "text": RATIONALE}]
    with open_run(tmp_path, script) as run:
        version = run_triples(run)
    files = [str(path) for path in version.shard_paths()]
    rows = load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    ).select(range(2))
    folder = build_tiny_scorer(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder),
            args=SFTConfig(output_dir=str(tmp_path / "sft"), use_cpu=True, report_to="none", completion_only_loss=True, max_length=None),
            train_dataset=rows,
            processing_class=tokenizer,
        )  # fmt: skip
        batch = next(iter(trainer.get_train_dataloader()))
    wanted = {tokenizer.eos_token + row["completion"] for row in rows}
    found = {
        tokenizer.eos_token
        + tokenizer.decode([t for t in labels.tolist() if t != -100]).removesuffix(
            tokenizer.eos_token
        )
        for labels in batch["labels"]
    }
    assert found == wanted


def make_combinations(run: SynthesisRun) -> Version:
    stage = run.stage("combinations", record=ConceptCombination, settings={}, inputs=[])
    rows = [
        ConceptCombination(id=f"c{n}", concepts=["sums", f"pens {n}"], domain="math", level="AIME")
        for n in range(6)
    ]

    def take(batch: Batch) -> BatchResult:
        return BatchResult(num_in=len(batch.rows), rows=batch.rows)

    return run_stage(stage, split_batches(rows, 4, key=lambda row: row.id), take)


def test_a_generator_is_asked_with_exactly_its_training_prompt(tmp_path: Path) -> None:
    """The script answers only messages that are the triple prompt from the first to the last byte."""
    script = [
        {
            "pattern": "\\A"
            + re.escape(triple_prompt(["sums", f"pens {n}"], "AIME", "math"))
            + "\\Z",
            "text": triple_completion(WHY, ASK.format(n=20 + n)) if n else "no marks at all",
        }
        for n in range(6)
    ]
    with open_run(tmp_path, script, "synthesis.problems.mode=generator") as run:
        version = run_problems(run, make_combinations(run))
    rows = [Problem.model_validate(row) for row in version.rows()]
    assert [row.statement for row in rows] == [ASK.format(n=20 + n) for n in range(1, 6)]
    assert {row.rationale for row in rows} == {WHY}
    assert reasons(version) == {"missing_rationale": 1}
    assert next(ref.name for ref in version.manifest.inputs) == "synthesis/combinations"
    assert "bank" not in {ref.name for ref in version.manifest.inputs}


def test_a_prompt_ends_with_what_varies(tmp_path: Path) -> None:
    """Prefix caches of servers: two requests share everything but examples and combination."""
    task = "A wheel of radius 3 rolls 40 metres. How many full turns does it make on its way?"
    script = [
        {
            "pattern": "\\AYou design(.|\n)+pens [0-9]+\\n\\nDifficulty level: AIME\\Z",
            "text": triple_completion(WHY, task),
        }
    ]
    with open_run(tmp_path, script) as run:
        version = run_problems(run, make_combinations(run))
    assert version.manifest.rows_out == 6
