"""The whole of synthesis on a scripted teacher: funnel, resume, versions, gates."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from scripted_synthesis import JUDGED, SCRIPT, SOLVE, make_recipe, reasons, tree

from pipeline.cli import exit_code_of
from pipeline.errors import PipelineError, SourceError, TooManyRejected
from pipeline.manifest import Version, verify_version
from pipeline.settings.recipe import load_recipe
from promptcot.__main__ import app
from promptcot.stage_names import STAGES
from promptcot.synthesis import run_one_stage, synthesize, synthesize_all


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
