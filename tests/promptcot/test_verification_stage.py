"""Solutions and their verification as stages, with a scripted teacher and real graders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pipeline.errors import ConfigError, TooManyRejected
from pipeline.manifest import Version
from pipeline.records import (
    Domain,
    JudgedProblem,
    Judgement,
    Problem,
    Rejected,
    Solution,
    VerifiedTrace,
)
from pipeline.settings.recipe import load_recipe
from pipeline.stages import BatchResult, Stage, run_stage, split_batches
from pipeline.store import read_rows
from promptcot.run_context import SynthesisRun
from promptcot.solutions import run_solutions
from promptcot.verification.sandbox import find_sandbox
from promptcot.verify import run_verification

needs_sandbox = pytest.mark.skipif(
    find_sandbox() is None, reason="bubblewrap does not work on this machine"
)
RECIPE = """
name = "tiny"
seed = 7
[teachers.default]
engine = "scripted"
script = "script.jsonl"
[synthesis]
batch_size = 2
"""
ADD = "a, b = map(int, input().split())\nprint(a + b)"
BIG_ADD = "a, b = map(int, input().split())\nprint(a + b if a < 100 else 'overflow')"
SUB = "a, b = map(int, input().split())\nprint(a - b)"


def problem(name: str, domain: Domain) -> Problem:
    return Problem(
        id=name, combination_id="c", concepts=["a", "b"], level="easy", domain=domain,
        rationale="r", statement=f"Task {name}: two numbers are given.", teacher="t",
        prompt_hash="h", seed=1,
    )  # fmt: skip


def judged(name: str, domain: Domain) -> JudgedProblem:
    criteria = (
        "format", "factual_accuracy", "difficulty_alignment", "concept_coverage", "solvability"
    )  # fmt: skip
    judgement = Judgement.model_validate(
        {"problem_id": name, "judge": "j", "model": "m", "vote": 0, "prompt_hash": "h", "seed": 1,
         "verdict": "perfect", **dict.fromkeys(criteria, "perfect")}
    )  # fmt: skip
    return JudgedProblem(problem=problem(name, domain), judgements=[judgement])


def solutions(name: str, domain: Domain, answers: Sequence[str]) -> list[Solution]:
    """One sample per answer; the n-th thinks n + 1 tokens longer."""
    form = "\\boxed{{{}}}" if domain == "math" else "```python\n{}\n```"
    row = judged(name, domain)
    return [
        Solution(
            id=f"{name}-{n}", problem=row.problem, judgements=row.judgements, thinking="I think.",
            answer=form.format(answer), finish_reason="stop", teacher="t", temperature=1.0,
            top_p=1.0, prompt_hash="h", seed=n, num_prompt_tokens=1, num_completion_tokens=n + 1,
        )
        for n, answer in enumerate(answers)
    ]  # fmt: skip


class Bench:
    """A run folder with a scripted teacher, and earlier stages' versions put there by hand."""

    def __init__(self, folder: Path, script: Sequence[dict[str, Any]], *overrides: str) -> None:
        lines = [json.dumps(row) + "\n" for row in script or [{"match": "x", "text": "x"}]]
        (folder / "script.jsonl").write_text("".join(lines), encoding="utf-8")
        (folder / "tiny.toml").write_text(RECIPE, encoding="utf-8")
        recipe = load_recipe(str(folder / "tiny.toml"), [f"synthesis.{o}" for o in overrides])
        self.run = SynthesisRun(recipe, folder / "out")

    def publish(self, name: str, rows: Sequence[BaseModel]) -> Version:
        stage = Stage(
            name=name, root=self.run.folder(name), record=type(rows[0]), settings={}, inputs=[],
            packages=["pipeline"],
        )  # fmt: skip
        batches = split_batches(rows, 3, key=lambda row: row.model_dump_json())
        return run_stage(stage, batches, lambda b: BatchResult(num_in=len(b.rows), rows=b.rows))

    def verify(self, *groups: Sequence[Solution]) -> Version:
        version = self.publish("solutions", [row for group in groups for row in group])
        with self.run:
            return run_verification(self.run, version)

    def solve(self, *rows: JudgedProblem) -> Version:
        with self.run:
            return run_solutions(self.run, self.publish("judged", rows))


def traces(version: Version) -> dict[str, VerifiedTrace]:
    rows = (VerifiedTrace.model_validate(row) for row in version.rows())
    return {row.solution.id: row for row in rows}


def refusals(version: Version) -> dict[str, str]:
    paths = sorted((version.folder / "rejected").glob("*.parquet"))
    rows = (Rejected.model_validate(row) for path in paths for row in read_rows(path))
    return {row.row_id: row.reason for row in rows}


def written(name: str, *cases: tuple[str, str] | str) -> list[dict[str, Any]]:
    """Script rows: the n-th test of a task is this (input, stated output), or this text."""
    return [
        {
            "pattern": rf"test {n} of [\s\S]*Task {name}:",
            "text": case
            if isinstance(case, str)
            else json.dumps({"input": case[0], "output": case[1]}),
        }
        for n, case in enumerate(cases, start=1)
    ]


@needs_sandbox
def test_programs_outvote_the_teacher_and_disputed_tests_are_dropped(tmp_path: Path) -> None:
    script = written(
        "A",
        ("2 3", "5"),
        ("10 4", "13"),  # the teacher miscounts
        ("500 1", "501"),  # two say 501, two overflow
        ("1 1", "2"),
        ("1  1\n", "3"),  # the same input again
        "I cannot think of one.",
    )
    bench = Bench(tmp_path, script, "verification.code_tests=6", "solutions.samples_per_problem=5")
    programs = [ADD, BIG_ADD, ADD + "  # again", BIG_ADD + "  # too", SUB]
    version = bench.verify(solutions("A", "code", programs))
    assert set(traces(version)) == {"A-0", "A-1", "A-2", "A-3"}
    assert refusals(version) == {"A-4": "tests_failed"}
    row = traces(version)["A-0"]
    assert (row.method, row.num_samples, row.agreement) == ("tests", 5, 0.8)
    assert [(t.input, t.output, t.votes, t.stated_output) for t in row.tests] == [
        ("2 3", "5", 4, "5"),
        ("10 4", "14", 4, "13"),
        ("1 1", "2", 4, "2"),
    ]
    counts = version.manifest.extra["counts"]
    assert {key: n for key, n in counts.items() if "/" not in key} == {
        "programs_run": 5,
        "tests_asked": 6,
        "tests_contradicted": 1,
        "tests_disputed": 1,
        "tests_unreadable": 1,
        "tests_usable": 3,
    }


@needs_sandbox
def test_the_teachers_outputs_decide_where_the_recipe_says_so(tmp_path: Path) -> None:
    script = written("A", ("2 3", "-1"), ("10 4", "6"))
    bench = Bench(
        tmp_path,
        script,
        'verification.expected_outputs="teacher"',
        "verification.minimum_agreement=0.25",
    )
    version = bench.verify(solutions("A", "code", [ADD, ADD, ADD, SUB]))
    assert set(traces(version)) == {"A-3"}
    assert traces(version)["A-3"].agreement == 0.25
    assert [test.votes for test in traces(version)["A-3"].tests] == [1, 1]


@needs_sandbox
def test_tests_that_cannot_tell_programs_apart_confirm_nothing(tmp_path: Path) -> None:
    yes = "n = input()\nprint('yes')"
    script = [
        *written("A", ("1", "yes"), ("2", "no")),
        *written("B", ("1 2", "3"), ("3 4", "7")),
        *written("C", "none", "none"),
        *written("D", ("1 2", "3"), ("3 4", "7")),
    ]
    groups = [
        solutions("A", "code", [yes, yes, "print(1 // 0, input())"]),
        solutions("B", "code", ["print(3)", "def f(): pass", "print(", ADD, ADD]),
        solutions("C", "code", [ADD]),
        solutions("D", "code", [ADD, SUB]),
    ]
    version = Bench(tmp_path, script).verify(*groups)
    assert set(traces(version)) == {"B-3", "B-4"}
    assert refusals(version) == {
        "A-0": "constant_output",
        "A-1": "constant_output",
        "A-2": "runtime_error",
        "B-0": "code_reads_nothing",
        "B-1": "code_does_nothing",
        "B-2": "code_does_not_parse",
        "C-0": "no_tests",
        "D-0": "tests_disputed",
        "D-1": "tests_disputed",
    }
    (tmp_path / "relaxed").mkdir()
    relaxed = Bench(tmp_path / "relaxed", script, "verification.keep_unverified=true")
    kept = traces(relaxed.verify(*groups))
    assert {name for name, row in kept.items() if row.method == "unverified"} == {
        "A-0", "A-1", "C-0", "D-0", "D-1",
    }  # fmt: skip


@needs_sandbox
def test_a_program_without_output_in_time_has_no_vote(tmp_path: Path) -> None:
    slow = "a, b = map(int, input().split())\nwhile a == 2: pass\nprint(a + b + 1)"
    script = written("A", ("2 3", "6"), ("7 8", "16"), ("9 9", "18"))
    bench = Bench(
        tmp_path,
        script,
        "verification.code_tests=3",
        "verification.test_timeout_s=1",
        "solutions.samples_per_problem=5",
        "verification.minimum_agreement=0.4",
    )
    version = bench.verify(solutions("A", "code", [slow, slow, slow, ADD, ADD]))
    assert set(traces(version)) == {"A-3", "A-4"}
    assert set(refusals(version).values()) == {"timeout"}


def test_a_band_of_agreement_leaves_out_what_is_too_easy_or_unsure(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path,
        [],
        "verification.minimum_agreement=0.5",
        "verification.maximum_agreement=0.75",
    )
    version = bench.verify(
        solutions("A", "math", ["1", "1", "1", "1"]),
        solutions("B", "math", ["1/2", "0.5", "x", "\\frac{2}{4}"]),
        solutions("C", "math", ["1", "2"]),
        solutions("D", "math", ["4"]),
        solutions("E", "math", ["9", "9", "7"]),
    )
    assert set(traces(version)) == {"B-0", "B-1", "B-3", "E-0", "E-1"}
    row = traces(version)["B-1"]
    assert (row.agreement, row.num_samples, row.method) == (0.75, 4, "majority")
    assert refusals(version) == {
        **{f"A-{n}": "too_easy" for n in range(4)},
        "B-2": "minority_answer",
        "C-0": "no_majority",
        "C-1": "no_majority",
        "D-0": "no_majority",
        "E-2": "minority_answer",
    }


def test_the_shortest_confirmed_traces_are_kept(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path, [], "verification.traces_per_problem=2", "solutions.samples_per_problem=6"
    )
    group = solutions("A", "math", ["5", "6", "5", "5", "5"])
    # The last two are equally long and the shortest.
    group[3:] = [row.model_copy(update={"num_completion_tokens": 0}) for row in group[3:]]
    version = bench.verify(group, solutions("B", "math", ["1", "1", "1"]))
    assert list(traces(version)) == ["A-3", "A-4", "B-0", "B-1"]
    assert refusals(version) == {
        "A-0": "enough_traces",
        "A-1": "minority_answer",
        "A-2": "enough_traces",
        "B-2": "enough_traces",
    }


def test_an_explosive_answer_is_counted_and_hurts_no_other(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [], "verification.answer_timeout_s=1")
    version = bench.verify(solutions("A", "math", ["x+1", "x+1", "10^{10^{10}}"]))
    assert set(traces(version)) == {"A-0", "A-1"}
    assert refusals(version) == {"A-2": "minority_answer"}
    assert version.manifest.extra["counts"]["answers_not_compared"] == 1


def test_how_rows_are_batched_does_not_matter(tmp_path: Path) -> None:
    groups = [solutions(f"P{n}", "math", ["1", "1", str(n)]) for n in range(9)]
    found = []
    for size in (1, 4):
        (tmp_path / str(size)).mkdir()
        bench = Bench(tmp_path / str(size), [], f"batch_size={size}", "max_batches_in_flight=3")
        version = bench.verify(*groups)
        assert len(version.shard_paths()) == -(-9 // size)
        found.append(list(version.rows()))
    assert found[0] == found[1]


def test_every_sample_is_a_row_or_a_refusal_and_none_is_asked_twice(tmp_path: Path) -> None:
    script = [
        {"match": "Task A", "text": "<think>Count.</think>\\boxed{3}"},
        {"match": "Task B", "text": "<think>Count and count", "finish_reason": "length"},
        {"match": "Task C", "text": "<think>Count.</think>\\boxed{3", "finish_reason": "length"},
        {"match": "Task D", "text": "The answer is 3."},
    ]
    bench = Bench(tmp_path, script, "solutions.top_k=5", "solutions.min_p=0.1")
    version = bench.solve(*(judged(name, "math") for name in "ABCD"))
    assert version.manifest.rows_in == 16
    assert version.manifest.rejected == {"solutions": {"no_thinking": 4, "truncated": 8}}
    assert version.manifest.extra["counts"] == {"problems": 4, "problems_with_solutions": 1}
    assert version.manifest.settings["sampling"] == {
        "temperature": 0.6, "top_p": 0.95, "top_k": 5, "min_p": 0.1,
    }  # fmt: skip
    rows = [Solution.model_validate(row) for row in version.rows()]
    assert len({row.id for row in rows}) == len({row.seed for row in rows}) == 4
    assert {(row.thinking, row.answer) for row in rows} == {("Count.", "\\boxed{3}")}
    assert rows[0].judgements == judged("A", "math").judgements
    assert len({row.prompt_hash for row in rows}) == 1


def test_the_recommended_sampling_is_said_and_part_of_the_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = [{"match": "Task", "text": "<think>Count.</think>\\boxed{3}"}]
    wanted = 'solutions.sampling="recommended"'
    with pytest.raises(ConfigError, match="known are"):
        Bench(tmp_path, script, wanted).solve(judged("A", "math"))
    bench = Bench(tmp_path, script, wanted)
    recipe = load_recipe(
        str(tmp_path / "tiny.toml"),
        [f"synthesis.{wanted}", 'teachers.default.model="Qwen/QwQ-32B"'],
    )
    bench.run = SynthesisRun(recipe, tmp_path / "out")
    version = bench.solve(judged("A", "math"))
    assert version.manifest.settings["sampling"]["top_k"] == 40
    assert "temperature 0.6, top_p 0.95, top_k 40" in "".join(capsys.readouterr())


def test_nothing_confirmed_refuses_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(TooManyRejected, match="no_majority"):
        Bench(tmp_path, []).verify(solutions("A", "math", ["1", "2", "3"]))
