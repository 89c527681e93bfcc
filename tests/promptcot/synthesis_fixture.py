"""A finished synthesis run for the tests of what reads one: real stages, invented content."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.hashing import content_hash
from pipeline.manifest import InputRef, Version
from pipeline.records import (
    ConceptCombination,
    JudgedProblem,
    Judgement,
    Problem,
    ProgramTest,
    Rating,
    Record,
    Rejected,
    Seed,
    Solution,
    Triple,
    VerifiedTrace,
)
from pipeline.settings.recipe import Recipe, load_recipe
from pipeline.stages import Batch, BatchResult, CardWriter, Stage, run_stage
from promptcot.engines.answers import AnswerStore, Purpose, StoredAnswer
from promptcot.engines.protocol import Answer
from promptcot.stage_names import STAGES

RECIPE = """
name = "fixture"
description = "Two judges, one solver, 120 combinations."
[teachers.default]
engine = "http"
model = "Qwen2.5-72B-Instruct"
num_gpus = 4
usd_per_million_prompt_tokens = 0.4
usd_per_million_completion_tokens = 1.6
[teachers.second]
engine = "http"
model = "Llama-3.1-70B-Instruct"
[[benchmarks]]
name = "math-500"
path = "math500.jsonl"
domain = "math"
[synthesis]
seeds = [{ name = "contest", path = "contest.jsonl", licence = "cc-by-4.0" }]
[synthesis.combinations]
num_combinations = 120
math_share = 0.75
[[synthesis.judging.judges]]
teacher = "default"
[[synthesis.judging.judges]]
teacher = "second"
[synthesis.judging]
minimum_verdict = "acceptable"
"""
HOSTILE = "<script>alert('x')</script> & <b>bold</b>"
TEACHER = "Qwen2.5-72B-Instruct"
CONCEPTS = {
    "math": [f"concept {n}" for n in range(30)],
    "code": [f"technique {n}" for n in range(12)],
}


def write_recipe(folder: Path, *overrides: str) -> Recipe:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "fixture.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return load_recipe(str(path), overrides)


def publish(
    root: Path,
    rows: Sequence[Record],
    rejected: Sequence[Rejected] = (),
    *,
    record: type[Record],
    **stage: Any,
) -> Version:
    """One version under ``root``; ``stage`` holds what else there is to say of it."""
    name = root.name
    extra: Mapping[str, Any] = stage.pop("extra", {})
    card: CardWriter | None = stage.pop("card", None)
    licences = {"cc-by-4.0": len(rows)} if record is Seed else {}
    result = BatchResult(
        num_in=len(rows) + len(rejected), rows=rows, rejected=rejected, licences=licences
    )
    made = Stage(name=name, root=root, record=record, packages=("pipeline",), **stage)
    batch = Batch(id=content_hash([name]), rows=rows)
    return run_stage(made, [batch], lambda _: result, card=card, extra=lambda counts: extra)


def make_problem(index: int, statement: str = "") -> Problem:
    domain = "code" if index % 4 == 3 else "math"
    names = CONCEPTS[domain]
    return Problem(
        id=content_hash(["problem", index]),
        combination_id=f"c{index}",
        concepts=[names[(index * step + index // step) % len(names)] for step in (1, 2, 3, 5, 7)],
        level=("AIME", "AMC12", "USAMO")[index % 3] if domain == "math" else "CF-1600",
        domain=domain,
        rationale="Remainders first, boxes second; the bound keeps everything finite.",
        statement=statement
        or f"Let $n = {index + 8}$. Show how many of the first $n$ positive integers have a "
        "remainder of 3 when divided by 7, and give that number.",
        teacher=TEACHER,
        prompt_hash="0123456789abcdef",
        seed=index,
    )


def make_judgements(index: int) -> list[Judgement]:
    return [
        Judgement(
            problem_id=content_hash(["problem", index]),
            judge=judge,
            format=Rating.PERFECT,
            factual_accuracy=Rating.PERFECT,
            difficulty_alignment=Rating.ACCEPTABLE,
            concept_coverage=Rating.PERFECT,
            solvability=Rating.PERFECT,
            verdict=Rating.PERFECT,
            reasons=["one task", "true", "a little easy", "all five are needed", "one number"],
            model=model,
            vote=0,
            prompt_hash="fedcba9876543210",
            seed=index,
        )
        for judge, model in (("default", TEACHER), ("second", "Llama-3.1-70B-Instruct"))
    ]


def make_solution(index: int, sample: int, statement: str = "") -> Solution:
    problem = make_problem(index, statement)
    is_code = problem.domain == "code"
    return Solution(
        id=content_hash(["solution", index, sample]),
        problem=problem,
        judgements=make_judgements(index),
        thinking="There are 7 remainders. " * 12,
        answer="```python\nprint(int(input()) // 7)\n```" if is_code else "It is $\\boxed{7}$.",
        finish_reason="stop",
        teacher=TEACHER,
        temperature=0.6,
        top_p=0.95,
        prompt_hash="89abcdef01234567",
        seed=index * 10 + sample,
        num_prompt_tokens=50,
        num_completion_tokens=400 + int(5000 * abs(math.sin(index * 1.7 + sample)) ** 3),
    )


def make_trace(index: int, sample: int, statement: str = "") -> VerifiedTrace:
    solution = make_solution(index, sample, statement)
    is_code = solution.problem.domain == "code"
    test = ProgramTest(
        input="20\n", output="2\n", votes=3, stated_output="2", prompt_hash="00ff", seed=1
    )
    return VerifiedTrace(
        solution=solution,
        final_answer=solution.answer if is_code else "7",
        agreement=(0.5, 0.75, 1.0)[index % 3],
        num_samples=4,
        method="tests" if is_code else "majority",
        tests=[test] if is_code else [],
    )


def use(num_concepts: int, name: str) -> dict[str, Any]:
    return {
        "concepts": num_concepts,
        "concepts_used": num_concepts - 2,
        "coverage": (num_concepts - 2) / num_concepts,
        "entropy_bits": 3.1,
        "max_entropy_bits": math.log2(num_concepts),
        "usage_histogram": [
            {"from": 0, "to": 0, "concepts": 2},
            {"from": 1, "to": 1, "concepts": 3},
            {"from": 2, "to": 3, "concepts": num_concepts - 5},
        ],
        "top_concepts": [{"concept": f"{name} {n}", "used": 9 - n} for n in range(9)],
    }


def reject(stage: str, reason: str, ids: Sequence[str], detail: str = "") -> list[Rejected]:
    return [Rejected(row_id=i, stage=stage, reason=reason, detail=detail) for i in ids]


def build_run(out: Path, *, statement: str = "", card: CardWriter | None = None) -> Version:
    """Every stage, made from the one before it; returns the verified traces."""
    problems = [make_problem(n, statement) for n in range(100)]
    ids = [problem.id for problem in problems]
    judged = [n for n in range(90) if n % 3]
    traces = [make_trace(n, s, statement) for n in judged[:30] for s in range(2)]
    plan: dict[str, tuple[list[Any], list[Rejected], dict[str, Any]]] = {
        "extracted": (
            [Seed(concepts=["a", "b"], domain="math", level="AIME") for _ in range(42)],
            reject("extracted", "benchmark_item", ["seed-7"], "math-500/test/12: 13-grams, 97 %"),
            {"record": Seed},
        ),
        "concepts": (
            [Seed(concepts=["a", "b"], domain="math", level="AIME") for _ in range(40)],
            reject("concepts", "too_few_concepts", ["seed-8", "seed-9"]),
            {"record": Seed},
        ),
        "combinations": (
            [
                ConceptCombination(id=f"c{n}", **_of(make_problem(n), "concepts domain level"))
                for n in range(120)
            ],
            [],
            {
                "record": ConceptCombination,
                "extra": {"domains": {"math": use(40, "concept"), "code": use(12, "technique")}},
            },
        ),
        "problems": (
            problems,
            reject("problems", "missing_problem", [f"c{n}" for n in range(100, 112)], "no tags")
            + reject("problems", "not_self_contained", [f"c{n}" for n in range(112, 120)]),
            {"record": Problem, "settings": {"problems": {"temperature": 0.6, "top_p": 1.0}}},
        ),
        "distinct": (
            problems[:90],
            reject("distinct", "near_duplicate", ids[90:99], f"similar to {ids[3]}")
            + reject("distinct", "benchmark_item", ids[99:], "math-500/test/3: equal statement"),
            {"record": Problem},
        ),
        "judged": (
            [JudgedProblem(problem=problems[n], judgements=make_judgements(n)) for n in judged],
            reject("judged", "verdict_bad", [ids[n] for n in range(90) if n % 3 == 0]),
            {
                "record": JudgedProblem,
                "extra": {"agreement": AGREEMENT, "calibration": CALIBRATION},
            },
        ),
        "solutions": (
            [make_solution(n, s, statement) for n in judged for s in range(3)],
            reject("solutions", "truncated", [f"{ids[n]}-3" for n in judged], "4,096 tokens"),
            {"record": Solution},
        ),
        "verified": (
            traces,
            reject(
                "verified",
                "minority_answer",
                [make_solution(n, 2).id for n in judged[:30]]
                + [make_solution(n, s).id for n in judged[30:] for s in range(3)],
                "answers agree 2 / 1 of 4 asked",
            ),
            {"record": VerifiedTrace, "card": card},
        ),
    }
    inputs: list[InputRef] = []
    for name, (rows, rejected, stage) in plan.items():
        teachers = {} if name in ("concepts", "combinations", "distinct", "verified") else _TEACHERS
        settings = {"seed": 7, "teachers": teachers} | stage.pop("settings", {})
        version = publish(
            out / "synthesis" / name,
            rows,
            rejected,
            settings=settings,
            inputs=inputs,
            unit="problems" if name in STAGES[1:4] else name,
            **stage,
        )
        inputs = [InputRef(name=f"synthesis/{name}", version=version.name)]
    build_refinement(out)
    build_ledger(out)
    return version


def build_refinement(out: Path) -> None:
    triple = Triple(
        prompt="p",
        completion="c",
        concepts=["a", "b"],
        level="AIME",
        domain="math",
        rationale="r",
        problem="x",
        teacher=TEACHER,
        prompt_hash="00",
        seed=1,
        score=-120.0,
    )
    for number, (chosen, drawn) in enumerate(((-141.0, -190.0), (-128.5, -171.0)), start=1):
        publish(
            out / "synthesis" / f"refined-{number}",
            [triple],
            record=Triple,
            settings={"round": number},
            inputs=[],
            extra={
                "objective": {
                    "chosen": chosen,
                    "chosen_interval": [chosen - 9, chosen + 8],
                    "drawn": drawn,
                    "drawn_interval": [drawn - 12, drawn + 11],
                    "gain": chosen - drawn,
                    "gain_interval": [30.0, 60.0],
                }
            },
        )


def build_ledger(out: Path) -> None:
    store = AnswerStore(out / "answers")
    entries: list[StoredAnswer] = []
    seconds = {}
    for stage, teacher, count, tokens in (
        ("extracted", "default", 40, 90),
        ("problems", "default", 120, 700),
        ("judged", "default", 90, 300),
        ("judged", "second", 90, 280),
        ("solutions", "default", 180, 3000),
        ("tests", "default", 22, 150),
    ):
        purpose = Purpose(stage, teacher, "http", TEACHER)
        seconds[purpose] = count * tokens / 900
        entries += [
            StoredAnswer(
                content_hash([stage, teacher, n]), Answer("…", "stop", 400, tokens), purpose, 1.0
            )
            for n in range(count)
        ]
    store.put(entries, seconds=seconds)
    store.close()


def _of(record: Record, names: str) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names.split()}


_TEACHERS = {"default": {"engine": "http", "model": TEACHER}}
AGREEMENT = {
    "judges": [
        {
            "judge": name,
            "teacher": name,
            "votes_per_problem": 1,
            "verdicts": {"perfect": 40, "acceptable": 9, "bad": bad},
            "unreadable": {"missing_rating": 1},
            "ratings": {
                field: {"perfect": 60, "acceptable": 20, "bad": 10}
                for field in ("format", "factual_accuracy", "solvability")
            },
        }
        for name, bad in (("default", 40), ("second", 41))
    ],
    "pairs": [
        {
            "judges": ["default", "second"],
            "table": [[30, 5, 5], [3, 4, 2], [4, 2, 35]],
            "num_items": 90,
            "observed": 0.7667,
            "observed_interval": [0.669, 0.842],
            "by_chance": 0.41,
            "kappa": 0.6045,
            "kappa_interval": [0.46, 0.75],
            "note": "",
        }
    ],
}
CALIBRATION = {
    "labels": {"file": "labelled.jsonl", "sha256": "00"},
    "num_problems": 26,
    "panel": {"precision": {"hits": 11, "total": 12, "value": 0.9167, "low": 0.65, "high": 0.98}},
}
