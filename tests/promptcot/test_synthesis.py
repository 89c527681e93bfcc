"""The whole of synthesis on a scripted teacher: funnel, resume, versions, gates, command line."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline import console
from pipeline.cli import exit_code_of
from pipeline.errors import PipelineError, SourceError, TooManyRejected
from pipeline.manifest import Version, resolve_version, verify_version
from pipeline.settings.recipe import Recipe, load_recipe
from promptcot.__main__ import app
from promptcot.stage_names import STAGES
from promptcot.synthesis import run_one_stage, synthesize, synthesize_all

WHY = "Rationale: Equal groups lead to a product, and what is left over to a difference."
JUDGED = "Format: {f}\nFactual Accuracy: Perfect\nDifficulty Alignment: Perfect\nConcept Coverage: Perfect\nSolvability: Perfect\nFinal Judgement: Perfect"
SHELF = "A shelf has {} boxes with {} pens in each of them, and {} pens are sold. How many pens are left?"
SUM = "{} writes two numbers on one line of a {}. Read both numbers. Print their sum."
# Many enough that few combinations get the same one; all numbers differ, so none is a near-duplicate.
PROBLEMS = [
    reply
    for n in range(7, 207)
    for reply in (
        *(f"{WHY}\nProblem: {SHELF.format(m, m - 1, m - 2)}" for m in (n, n + 300, n + 600)),
        f"{WHY}\nProblem: The figure below shows a shelf with 7 boxes of pens. How many pens are left?",
        "Rationale: cut",
    )
]
PROGRAMS = [
    f"{WHY}\nProblem: {SUM.format(who, where)}"
    for who in ("Ada", "Bob", "Cleo", "Dan", "Eve", "Finn")
    for where in ("notebook", "blackboard", "postcard", "napkin", "wall", "ticket")
]
SOLVE = (
    "Reasoning: Count the pens in all boxes first, then take away the five that are sold.\nAnswer: "
)
ADD = "Reasoning: Read both numbers and print their sum.\n```python\na, b = map(int, input().split())\nprint(a + b)\n```"
SCRIPT: list[dict[str, Any]] = [
    {"match": "You write short maths", "text": PROBLEMS},
    {
        "match": "You write short programming",
        "text": PROGRAMS,
    },
    {
        "match": "Rate this mathematics",
        "text": [JUDGED.format(f="Perfect")] * 4 + [JUDGED.format(f="Bad")],
    },
    {"match": "Rate this", "text": JUDGED.format(f="Perfect")},
    {
        "match": "Solve this problem",
        "text": [SOLVE + "37", SOLVE + "37", SOLVE + "37", SOLVE + "12", "hm"],
    },
    {
        "match": "Write a short Python program",
        "text": [ADD, ADD.replace("a + b", "a - b"), ADD.replace("(a + b)", "(a + b")],
    },
    {
        "match": "Give one small example",
        "text": ["Input: 2 3\nOutput: 5", "Input: 10 -4\nOutput: 6"],
    },
]
RECIPE = """
name = "tiny"
seed = 7
[teachers.default]
engine = "scripted"
script = "script.jsonl"
[synthesis]
bank = "bank.jsonl"
batch_size = 8
[synthesis.combinations]
num_combinations = 24
math_share = 0.875
[synthesis.problems]
form = "constrained"
[synthesis.judging]
form = "constrained"
[synthesis.solutions]
form = "constrained"
[synthesis.verification]
minimum_agreement = 0.4
"""


def make_recipe(folder: Path, *overrides: str, script: list[dict[str, Any]] = SCRIPT) -> Recipe:
    import promptcot

    folder.mkdir(exist_ok=True, parents=True)
    bank = Path(promptcot.__path__[0]) / "data" / "seeds.jsonl"
    (folder / "bank.jsonl").write_bytes(bank.read_bytes())
    lines = [json.dumps(row) + "\n" for row in script]
    (folder / "script.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    return load_recipe(str(folder / "tiny.toml"), overrides)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "synthesis").rglob("*"))
        if path.is_file()
    }


def reasons(version: Version) -> dict[str, int]:
    return next(iter(version.manifest.rejected.values()), {})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Version]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder / "out", synthesize_all(make_recipe(folder), folder / "out")


def test_funnel_balances_and_every_refusal_has_a_name(
    undisturbed: tuple[Path, dict[str, Version]],
) -> None:
    versions = undisturbed[1]
    assert tuple(versions) == STAGES
    for version in versions.values():
        manifest = version.manifest
        assert manifest.rows_in == manifest.rows_out + manifest.rows_rejected
        verify_version(version)
    counts = [versions[stage].manifest for stage in STAGES]
    assert counts[0].rows_out == counts[1].rows_in == 24
    for position in (2, 3, 5):
        assert counts[position].rows_in == counts[position - 1].rows_out
    assert counts[4].rows_in == 4 * counts[3].rows_out
    assert set(reasons(versions["problems"])) == {"not_self_contained", "missing_problem"}
    assert set(reasons(versions["judged"])) == {"verdict_bad"}
    assert set(reasons(versions["solutions"])) == {"no_thinking"}
    assert {"minority_answer", "code_does_not_parse"} <= set(reasons(versions["verified"]))
    assert counts[1].tokens["completion"] > 0


def test_traces_are_confirmed_by_what_they_claim(
    undisturbed: tuple[Path, dict[str, Version]],
) -> None:
    rows = list(undisturbed[1]["verified"].rows())
    methods = {row["method"] for row in rows}
    assert "majority" in methods
    answers: dict[str, Counter[str]] = {}
    for row in undisturbed[1]["solutions"].rows():
        answer = re.search(r"boxed\{(.*?)\}", row["answer"])
        if answer:
            answers.setdefault(row["problem"]["id"], Counter())[answer[1]] += 1
    for row in rows:
        if row["method"] == "majority":
            votes = answers[row["solution"]["problem"]["id"]]
            own = votes.pop(row["final_answer"])
            assert own > max([0, *votes.values()])
            assert row["agreement"] == own / 4 >= 0.4
            votes[row["final_answer"]] = own
        else:
            adds = "a + b" in row["solution"]["answer"]
            for test in row["tests"]:
                a, b = map(int, test["input"].split())
                assert test["output"] == str(a + b if adds else a - b)
                assert test["votes"] == row["agreement"] * 4 >= 2


def test_versions_do_not_know_where_or_when_they_were_made(
    undisturbed: tuple[Path, dict[str, Version]], tmp_path: Path
) -> None:
    synthesize(make_recipe(tmp_path / "elsewhere"), tmp_path / "other")
    assert tree(tmp_path / "other") == tree(undisturbed[0])


def test_rerun_reuses_and_one_setting_makes_new_versions_beside_the_old(
    undisturbed: tuple[Path, dict[str, Version]], tmp_path: Path
) -> None:
    # The folder is shared with other tests.
    out, versions = tmp_path / "copy", undisturbed[1]
    shutil.copytree(undisturbed[0], out)
    before = tree(out)
    again = synthesize_all(make_recipe(tmp_path), out)
    assert all(version.reused for version in again.values())
    assert tree(out) == before
    changed = synthesize_all(make_recipe(tmp_path, "synthesis.judging.temperature=0.5"), out)
    assert [changed[s].name == versions[s].name for s in STAGES] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    after = tree(out)
    assert all(after[path] == data for path, data in before.items() if "LATEST" not in path)
    assert synthesize_all(make_recipe(tmp_path), out)["verified"].name == versions["verified"].name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("benchmarks=[{name='b', path='none.jsonl', domain='math'}]", "none.jsonl"),
        ("synthesis.solutions.sampling=recommended", "smollm2-135m-instruct"),
        ("synthesis.judging.calibration=none.jsonl", "none.jsonl"),
    ],
)
def test_what_would_fail_late_is_said_before_anything_is_asked(
    override: str, message: str, tmp_path: Path
) -> None:
    overrides = [override, "teachers.default.model=smollm2-135m-instruct"]
    with pytest.raises(PipelineError, match=message):
        synthesize(make_recipe(tmp_path, *overrides), tmp_path / "out")
    assert not (tmp_path / "out" / "synthesis").exists()


def test_another_script_is_another_teacher(
    undisturbed: tuple[Path, dict[str, Version]], tmp_path: Path
) -> None:
    recipe = make_recipe(tmp_path, script=[*SCRIPT, {"match": "never", "text": "x"}])
    versions = synthesize_all(recipe, tmp_path / "out")
    assert versions["combinations"].name == undisturbed[1]["combinations"].name
    assert versions["problems"].name != undisturbed[1]["problems"].name


def test_second_attempt_is_made_only_after_a_refusal(
    undisturbed: tuple[Path, dict[str, Version]], tmp_path: Path
) -> None:
    recipe = make_recipe(tmp_path, "synthesis.problems.attempts=4")
    once, more = undisturbed[1]["problems"], synthesize_all(recipe, tmp_path / "out")["problems"]
    assert more.manifest.rows_out > once.manifest.rows_out
    kept = {row["id"] for row in once.rows()}
    assert kept <= {row["id"] for row in more.rows()}


def test_nothing_accepted_refuses_with_the_reasons(tmp_path: Path) -> None:
    script = [{"match": "You write", "text": ""}]
    with pytest.raises(TooManyRejected, match=r"problems accepted 0 of 24 .*empty \(24\)"):
        synthesize(make_recipe(tmp_path, script=script), tmp_path / "out")
    assert not (tmp_path / "out/synthesis/problems/LATEST").exists()
    args = ["run", "--recipe", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "out")]
    assert exit_code_of(app, "python -m promptcot", args) == 3


def test_free_form_is_asked_and_parsed(tmp_path: Path) -> None:
    free = (
        "<!-- BEGIN RATIONALE -->Equal groups lead to a product.<!-- END RATIONALE -->\n"
        "<!-- BEGIN PROBLEM -->A shelf has 7 boxes with 6 pens in each. How many pens are there?"
        "<!-- END PROBLEM -->"
    )
    script = [
        {"match": "You design original mathematics problems", "text": free},
        {"match": "You are a strict reviewer", "text": JUDGED.format(f="Perfect - clear")},
        {"match": "within \\boxed{}", "text": "<think>7 times 6 is 42.</think>It is \\boxed{42}."},
    ]
    overrides = [f"synthesis.{name}.form=free" for name in ("problems", "judging", "solutions")]
    # One reply for all: this is about its form.
    overrides += ["synthesis.combinations.math_share=1.0", "synthesis.distinct.enabled=false"]
    recipe = make_recipe(tmp_path, *overrides, script=script)
    version = synthesize(recipe, tmp_path / "out")
    assert version.manifest.rows_out == 24 * 4
    assert {row["method"] for row in version.rows()} == {"majority"}


def test_unconfirmed_traces_stay_only_when_the_recipe_says_so(tmp_path: Path) -> None:
    script = [dict(row) for row in SCRIPT]
    script[4]["text"] = [SOLVE + str(n) for n in range(1000, 20_000)]
    script[6]["text"] = "no test"
    with pytest.raises(TooManyRejected, match="no_majority"):
        synthesize(make_recipe(tmp_path, script=script), tmp_path / "out")
    relaxed = "synthesis.verification.keep_unverified=true"
    version = synthesize(make_recipe(tmp_path, relaxed, script=script), tmp_path / "out")
    assert {row["method"] for row in version.rows()} == {"unverified"}
    assert set(reasons(version)) <= {"code_does_not_parse", "minority_answer"}


def test_without_sandbox_no_program_counts_as_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptcot.verify.find_sandbox", lambda: None)
    version = synthesize(make_recipe(tmp_path), tmp_path / "out")
    assert reasons(version)["sandbox_unavailable"] > 0
    assert "tests" not in {row["method"] for row in version.rows()}


KILLED = """
import sys
from pathlib import Path
from pipeline.settings.recipe import load_recipe
from promptcot.synthesis import synthesize
synthesize(load_recipe(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("moment", ["problems", "solutions"])
def test_killed_run_ends_in_the_same_bytes(
    undisturbed: tuple[Path, dict[str, Version]], tmp_path: Path, moment: str
) -> None:
    make_recipe(tmp_path)
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(tmp_path / "tiny.toml"), str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if any((out / "synthesis" / moment).glob(".staging-*/receipts/*.json")):
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
    synthesize(load_recipe(str(tmp_path / "tiny.toml")), out)
    assert tree(out) == tree(undisturbed[0])


def test_stage_by_stage_equals_the_whole(
    undisturbed: tuple[Path, dict[str, Version]], tmp_path: Path
) -> None:
    recipe, out = make_recipe(tmp_path), tmp_path / "out"
    with pytest.raises(SourceError, match="stage judged needs the output of stage distinct") as e:
        run_one_stage(recipe, out, "judged")
    assert "python -m promptcot distinct" in e.value.hint
    assert not out.exists()
    for stage in STAGES:
        run_one_stage(recipe, out, stage)
    assert tree(out) == tree(undisturbed[0])


def test_estimates_write_nothing_and_know_the_measured_speed(
    undisturbed: tuple[Path, dict[str, Version]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_recipe(tmp_path)
    console.reset()
    recipe = str(tmp_path / "tiny.toml")
    args = ["run", "--recipe", recipe, "--out", str(tmp_path / "none"), "--dry-run", "--json"]
    assert exit_code_of(app, "python -m promptcot", args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["requests"] == 24 + 24 + 96 + 6
    assert found["seconds"] is None
    assert not (tmp_path / "none").exists()
    args = ["estimate", "--recipe", recipe, "--out", str(undisturbed[0]), "--json"]
    assert exit_code_of(app, "python -m promptcot", args) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] > 0
    console.reset()


def test_command_reports_the_funnel_as_json(
    undisturbed: tuple[Path, dict[str, Version]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_recipe(tmp_path)
    console.reset()
    args = ["run", "--recipe", str(tmp_path / "tiny.toml"), "--out", str(undisturbed[0]), "--json"]
    assert exit_code_of(app, "python -m promptcot", args) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == sorted(STAGES)
    name = resolve_version(undisturbed[0] / "synthesis" / "verified").name
    assert found["verified"]["version"] == name
    assert found["verified"]["reused"] is True
    console.reset()


SEED_PROBLEMS = [
    "A baker sells 12 loaves each morning and 9 each afternoon. How many loaves are sold in a week of six days?",
    "A train of 14 wagons carries 8 crates in every wagon. After 30 crates are unloaded, how many are left?",
    "Find the remainder when the sum of the first 40 odd numbers is divided by 7.",
    "Equal numbers of red and blue beads fill 6 bags of 18 beads each. How many red beads are there in all?",
]
NAMED = [
    '{"concepts": ["multiplication", "Addition", "word problems", "rates", "weeks and days"], "level": "AIME"}',
    '{"concepts": ["multiplication", "subtraction", "equal groups", "order of operations", "estimation"], "level": "AMC12"}',
    '{"concepts": ["modular arithmetic", "sums of odd numbers", "division", "remainders", "arithmetic series"], "level": "AIME"}',
    '{"concepts": ["equal groups", "division", "addition", "ratios", "linear equations"], "level": "AMC12"}',
]


def test_a_recipe_with_seeds_makes_its_bank_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = [
        {"match": problem, "text": reply}
        for problem, reply in zip(SEED_PROBLEMS, NAMED, strict=True)
    ]
    # A seed is also an example in the prompts for problems, and those come first.
    make_recipe(tmp_path, script=[*SCRIPT, *script])
    lines = [json.dumps({"question": problem, "no": n}) for n, problem in enumerate(SEED_PROBLEMS)]
    (tmp_path / "contest.jsonl").write_text("\n".join(lines), encoding="utf-8")
    small = "synthesis.combinations={num_combinations = 4, size = 3}"
    args = ["--recipe", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "out"), "--json"]
    args += ["--set", small]
    seeds = ["--seeds", str(tmp_path / "contest.jsonl"), "--domain", "math"]
    console.reset()
    assert exit_code_of(app, "python -m promptcot", ["concepts", *args, *seeds]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["extracted"]["rows_out"] == found["concepts"]["rows_out"] == 4
    # What it says to pass to later stages is what they take.
    again = shown.err.split("--set '")[1].split("'\n")[0]
    console.reset()
    assert exit_code_of(app, "python -m promptcot", ["run", *args, "--set", again]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"extracted", "concepts", *STAGES}
    assert found["concepts"]["reused"]
    assert found["verified"]["rows_out"] > 0
    version = resolve_version(tmp_path / "out" / "synthesis" / "combinations")
    used = {concept for row in version.rows() for concept in row["concepts"]}
    named = {c.lower() for reply in NAMED for c in json.loads(reply)["concepts"]}
    assert {concept.lower() for concept in used} <= named
    # "Addition" and "addition" are one concept.
    assert len({concept.lower() for concept in used}) == len(used)
    console.reset()
