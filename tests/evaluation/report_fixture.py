"""A finished run folder for the report's tests: real stages, real records, invented content."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from pipeline.hashing import content_hash
from pipeline.manifest import InputRef, Version
from pipeline.records import (
    ConceptCombination,
    JudgedProblem,
    Judgement,
    Message,
    Problem,
    Provenance,
    Rating,
    Record,
    Rejected,
    Solution,
    TrainingRow,
    VerifiedTrace,
)
from pipeline.settings import Recipe, load_recipe
from pipeline.stages import Batch, BatchResult, Stage, run_stage
from pipeline.student import assistant_turn

RECIPE = """
name = "fixture"
description = "Whole loop on two CPU cores: embedded 135M teacher, tiny Mamba-2, bundled sources."

[synthesis.judging]
minimum_verdict = "acceptable"
[synthesis.solutions]
samples_per_problem = 2
[synthesis.verification]
keep_unverified = true

[[curriculum.sources]]
name = "open-code-reasoning"
kind = "open_code_reasoning"
paths = ["ocr.jsonl"]
[[curriculum.sources]]
name = "open-thoughts2"
kind = "open_thoughts2"
paths = ["ot2.jsonl"]
[[curriculum.sources]]
name = "promptcot"
kind = "synthesized"
[curriculum.phases.1]
sources = [{source = "open-code-reasoning"}, {source = "open-thoughts2"}]
max_tokens = 1024
[curriculum.phases.2]
sources = [{source = "promptcot"}, {source = "open-thoughts2", share = 0.2}]
max_tokens = 1280
"""

HOSTILE = "<script>alert('x')</script> & <b>bold</b>"


class Graded(Record):
    """Stands in for the evaluation's own rows, which the report does not read."""

    id: str


def write_recipe(folder: Path, text: str = RECIPE) -> Recipe:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "fixture.toml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(str(path))


def build_run(out: Path, *, statement: str = "") -> None:
    """Write a whole run: six stages, two phases, two checkpoints, two evaluations."""
    verified = build_synthesis(out)
    for phase in ("1", "2"):
        version = build_phase(out, phase, verified=verified, statement=statement)
        build_checkpoint(out, phase, version)
        build_evaluation(out, f"phase-{phase}", rate=0.04 * int(phase))


def publish(
    root: Path,
    name: str,
    rows: Sequence[Record],
    *,
    rejected: Sequence[Rejected] = (),
    inputs: Sequence[InputRef] = (),
    unit: str = "rows",
    extra: dict[str, object] | None = None,
    salt: int = 0,
    settings: dict[str, object] | None = None,
) -> Version:
    stage = Stage(
        name=name,
        root=root,
        record=type(rows[0]),
        settings={"salt": salt, **(settings or {})},
        inputs=inputs,
        packages=("pipeline",),
        unit=unit,
    )
    result = BatchResult(
        num_in=len(rows) + len(rejected),
        rows=rows,
        rejected=rejected,
        licences={"cc-by-4.0": len(rows)},
        tokens={"completion": 100},
    )
    batch = Batch(id=content_hash([name, salt]), rows=rows)
    return run_stage(stage, [batch], lambda _: result, extra=lambda counts: extra or {})


def reject(stage: str, **counts: int) -> list[Rejected]:
    return [
        Rejected(row_id=f"{reason}-{n}", stage=stage, reason=reason, detail="")
        for reason, count in counts.items()
        for n in range(count)
    ]


def make_problem(index: int) -> Problem:
    return Problem(
        id=f"p{index}",
        combination_id=f"c{index}",
        concepts=["modular arithmetic", "pigeonhole principle"],
        level="AIME",
        domain="math",
        rationale="Remainders first, boxes second.",
        statement=f"Show that among {index + 8} integers two differ by a multiple of 7.",
        teacher="smollm2-135m-instruct",
        prompt_hash="0123456789abcdef",
        seed=index,
    )


def make_solution(index: int) -> Solution:
    return Solution(
        id=f"s{index}",
        problem=make_problem(index),
        judgements=[make_judgement(index)],
        thinking="There are 7 remainders.",
        answer="\\boxed{7}",
        finish_reason="stop",
        teacher="smollm2-135m-instruct",
        temperature=0.6,
        top_p=0.95,
        prompt_hash="89abcdef01234567",
        seed=index,
        num_prompt_tokens=50,
        num_completion_tokens=120,
    )


def make_judgement(index: int) -> Judgement:
    ratings = dict.fromkeys(
        (
            "format",
            "factual_accuracy",
            "difficulty_alignment",
            "concept_coverage",
            "solvability",
            "verdict",
        ),
        Rating.ACCEPTABLE,
    )
    return Judgement(
        problem_id=f"p{index}",
        judge="default",
        model="smollm2-135m-instruct",
        vote=0,
        prompt_hash="fedcba9876543210",
        seed=index,
        **ratings,
    )


def make_judged(index: int) -> JudgedProblem:
    return JudgedProblem(problem=make_problem(index), judgements=[make_judgement(index)])


def build_synthesis(out: Path) -> Version:
    """The six stages, each made from the one before."""
    combinations = [
        ConceptCombination(id=f"c{n}", concepts=["a", "b"], domain="math", level="AIME")
        for n in range(96)
    ]
    plan: list[tuple[str, Sequence[Record], list[Rejected], str]] = [
        ("combinations", combinations, [], "combinations"),
        (
            "problems",
            [make_problem(n) for n in range(61)],
            reject("problems", statement_too_short=19, no_problem_section=11, repeats_example=5),
            "problems",
        ),
        (
            "distinct",
            [make_problem(n) for n in range(57)],
            reject("distinct", near_duplicate=3, benchmark_item=1),
            "problems",
        ),
        (
            "judged",
            [make_judged(n) for n in range(24)],
            reject("judged", verdict_bad=28, rating_missing=5),
            "problems",
        ),
        (
            "solutions",
            [make_solution(n) for n in range(31)],
            reject("solutions", cut_off=14, empty_answer=3),
            "solutions",
        ),
        (
            "verified",
            [
                VerifiedTrace(
                    solution=make_solution(n),
                    final_answer="7",
                    agreement=0.5,
                    num_samples=2,
                    method="unverified",
                    tests=[],
                )
                for n in range(14)
            ],
            reject("verified", no_final_answer=12, disagrees_with_majority=5),
            "solutions",
        ),
    ]
    inputs: list[InputRef] = []
    for name, rows, rejected, unit in plan:
        version = publish(
            out / "synthesis" / name, name, rows, rejected=rejected, inputs=inputs, unit=unit
        )
        inputs = [InputRef(name=name, version=version.name)]
    return version


def make_row(index: int, source: str, statement: str = "") -> TrainingRow:
    domain = "code" if source == "open-code-reasoning" else "math"
    question = statement or f"What is {index} + {index}?\nAnswer with one number."
    length = 60 + int(700 * abs(math.sin(index * 1.7)) ** 2)
    answer = "```python\nprint(2)\n```" if domain == "code" else f"It is $\\boxed{{{2 * index}}}$."
    return TrainingRow(
        id=content_hash([source, index]),
        prompt=[Message(role="user", content=question)],
        completion=[
            Message(
                role="assistant",
                content=assistant_turn(
                    f"Adding {index} twice.\n\n" + "So double it. " * 12, answer
                ),
            )
        ],
        question=question,
        source=source,
        source_revision="0f3c0a8be3b4",
        source_id=f"row-{index}",
        licence="cc-by-4.0" if domain == "code" else "apache-2.0",
        domain=domain,
        difficulty="AIME" if source == "promptcot" else None,
        num_prompt_tokens=40,
        num_completion_tokens=length - 40,
        num_tokens=length,
        provenance=Provenance(
            teacher="smollm2-135m-instruct" if source == "promptcot" else "DeepSeek-R1",
            concepts=["modular arithmetic", "parity"] if source == "promptcot" else [],
            level="AIME" if source == "promptcot" else None,
            verdicts=["acceptable"] if source == "promptcot" else [],
            agreement=0.5 if source == "promptcot" else None,
            seed=index if source == "promptcot" else None,
        ),
    )


def build_phase(
    out: Path, phase: str, *, verified: Version | None = None, statement: str = "", salt: int = 0
) -> Version:
    """One phase: two bundled sources, or our own rows with some replay."""
    if phase == "1":
        rows = [make_row(n, "open-code-reasoning") for n in range(40)]
        rows += [make_row(n, "open-thoughts2") for n in range(52)]
    else:
        rows = [make_row(n, "promptcot", statement) for n in range(14)]
        rows += [make_row(n, "open-thoughts2") for n in range(100, 110)]
    rejected = [
        *reject("validate", empty_reasoning=4, unbalanced_code_fence=3, runaway_repetition=2),
        *reject("deduplicate", same_question_and_answer=6),
        *reject("decontaminate", benchmark_item=3),
        *reject("measure", too_long=5),
    ]
    inputs = [InputRef(name="verified", version=verified.name)] if verified else []
    return publish(
        out / "datasets" / f"phase-{phase}",
        f"phase-{phase}",
        rows,
        rejected=rejected,
        inputs=inputs,
        extra={
            "decontamination": {
                "benchmarks": {
                    "demo-math": {"items": 24, "rows_flagged": 2, "template_twins": 1},
                    "demo-code": {"items": 8, "rows_flagged": 1, "template_twins": 0},
                }
            }
        },
        salt=salt,
    )


def build_checkpoint(out: Path, phase: str, version: Version) -> None:
    folder = out / "checkpoints" / f"phase-{phase}"
    folder.mkdir(parents=True, exist_ok=True)
    steps = 90 if phase == "1" else 40
    start, end = (10.4, 5.1) if phase == "1" else (6.0, 4.2)
    losses = [
        end + (start - end) * math.exp(-step / (steps / 4)) + 0.15 * math.sin(step * 2.3)
        for step in range(steps)
    ]
    record = {
        "phase": phase,
        "key": "abc",
        "dataset_version": version.name,
        "settings": {},
        "code_version": "0.1.0+abcdef012345",
        "num_rows": version.manifest.rows_out - 2,
        "rejected": {"too_long_for_model": 2},
        "num_steps": steps,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "num_parameters": 2_345_678,
        "documents_per_step": 8,
        "tokens_seen": 123_456,
        "init": {"kind": "random" if phase == "1" else "folder", "identity": "seed 42"},
    }
    (folder / "training.json").write_text(json.dumps(record), encoding="utf-8")
    lines = [
        json.dumps({"step": n + 1, "epoch": n / steps, "loss": loss, "learning_rate": 1e-3})
        for n, loss in enumerate(losses)
    ]
    (folder / "train_log.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def build_evaluation(out: Path, name: str, *, rate: float) -> None:
    scores = [
        {
            "benchmark": benchmark,
            "domain": domain,
            "num_items": items,
            "samples_per_item": 4,
            "avg_at_k": rate * factor,
            "interval": [max(0.0, rate * factor - spread), rate * factor + spread],
            "pass_at_k": min(1.0, rate * factor * 2),
            "majority_at_k": rate * factor if domain == "math" else None,
            "truncated_rate": 0.42,
            "format_rate": 0.5,
            "mean_tokens": 181.25,
        }
        for benchmark, domain, items, factor, spread in (
            ("demo-math", "math", 24, 1.0, 0.03),
            ("demo-code", "code", 8, 2.0, 0.12),
            ("demo-hard", "math", 12, 0.0, 0.0),
        )
    ]
    publish(
        out / "evaluation" / name,
        f"evaluation-{name}",
        [Graded(id=f"{name}-{n}") for n in range(176)],
        unit="answers",
        extra={"scores": scores},
    )


def make_score(benchmark: str, rate: float, **changes: object) -> dict[str, object]:
    """One benchmark's scores as an evaluation's manifest has them."""
    low, high = max(0.0, rate - 0.12), min(1.0, rate + 0.13)
    return {
        "benchmark": benchmark,
        "domain": "code" if benchmark.startswith(("humaneval", "livecode")) else "math",
        "num_items": 30,
        "samples_per_item": 16,
        "avg_at_k": rate,
        "interval": [low, high],
        "interval_note": "",
        "sampling_interval": [max(0.0, rate - 0.03), rate + 0.03],
        "pass_at_k": min(1.0, 2 * rate),
        "pass_at": {str(k): 1 - (1 - rate) ** (1 + k / 8) for k in (2, 4, 16)},
        "majority_at_k": rate + 0.05,
        "majority_unsettled": 0,
        "truncated_rate": 0.12,
        "format_rate": 0.85,
        "mean_tokens": 14_321.5,
        "mean_tokens_correct": 9_876.0,
        "token_quantiles": {"p10": 2100.0, "p50": 9800.0, "p90": 33_000.0, "max": 65_536.0},
        "by_label": {},
        "reasons": {"correct": 10},
        **changes,
    }


def build_comparable(out: Path, **settings: object) -> None:
    """Two checkpoints evaluated on some of the paper's benchmarks."""
    levels = {
        str(level): {
            "num_items": 100,
            "avg_at_k": 1.05 - 0.12 * level,
            "interval": [0.95 - 0.12 * level, 1.1 - 0.12 * level],
        }
        for level in range(1, 6)
    }
    sampling = {
        "temperature": 0.8,
        "top_p": 0.95,
        "repetition_penalty": 1.1,
        "max_new_tokens": 65_536,
    }
    for name, shift in (("phase-1", -0.1), ("phase-2", 0.0)):
        scores = [
            make_score("math500", 0.8 + shift, num_items=500, by_label={"level": levels}),
            make_score("aime24", 0.33 + shift),
            make_score("humaneval_plus", 0.7 + shift, num_items=164, samples_per_item=8),
            make_score("livecodebench-v5", 0.28 + shift, num_items=200, samples_per_item=4),
            make_score("own", 0.5 + shift, num_items=10),
        ]
        publish(
            out / "evaluation" / name,
            f"evaluation-{name}",
            [Graded(id=f"{name}-{n}") for n in range(10)],
            unit="answers",
            extra={"scores": scores},
            settings={**sampling, **settings},
        )
