"""The plain driver: it checks first, names what fails, and shows what came out."""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flows import steps
from flows.preflight import check_files, check_whole_loop
from flows.steps import Outcome, Step
from flows.summary import show_summary, summarize, top_reasons
from flows.whole_loop import app, run_whole_loop
from pipeline import cli
from pipeline.errors import ConfigError, PipelineError, SourceError, TeacherUnreachable
from pipeline.settings.recipe import Recipe, load_recipe
from promptcot.synthesis import synthesize_all

COMMAND = "python -m flows.whole_loop"


@pytest.fixture
def recipe() -> Recipe:
    """The demo recipe, with its synthesis made of files that exist in every checkout."""
    return load_recipe("demo", ["synthesis.bank=demo.toml", "curriculum.num_workers=1"])


def only(monkeypatch: pytest.MonkeyPatch, *chosen: Step) -> None:
    monkeypatch.setattr(steps, "WHOLE_LOOP", chosen)


def test_two_runs_build_once_and_say_so(
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    only(monkeypatch, steps.DATASETS["1"], steps.REPORT)
    first = run_whole_loop(recipe, tmp_path)
    show_summary(first)
    shown = capsys.readouterr().out
    assert "1/2 phase 1 dataset" in shown
    assert "2/2 report" in shown
    dataset = first["stages"][0]
    assert dataset["in"] == dataset["out"] + dataset["rejected"]
    assert f"{dataset['in']:,}" in shown
    assert Path(first["paths"]["report"]).is_file()

    second = run_whole_loop(recipe, tmp_path)
    assert second["steps"][0]["reused"]
    assert second["paths"] == first["paths"]
    assert "reused: " in capsys.readouterr().out
    log = (tmp_path / "logs" / "events.jsonl").read_text(encoding="utf-8")
    told = [json.loads(line) for line in log.splitlines()]
    ends = [event for event in told if event["event"] == "step.finished"]
    assert [(end["step"], end["reused"]) for end in ends] == [
        *(("data-1", False), ("report", False)),
        *(("data-1", True), ("report", False)),
    ]


def test_a_failing_step_ends_with_its_error_and_keeps_what_was_done(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(recipe: Recipe, out: Path) -> Outcome:
        raise TeacherUnreachable("no answer from http://127.0.0.1:9", hint="start the teacher")

    only(monkeypatch, Step(key="synthesis", title="synthesis", stages=(), run=fail))
    with pytest.raises(TeacherUnreachable):
        run_whole_loop(recipe, tmp_path)
    assert (tmp_path / "recipe.json").is_file()


def test_a_missing_input_file_is_named_before_anything_runs(tmp_path: Path) -> None:
    recipe = load_recipe("demo", ["benchmarks.0.path=nowhere.jsonl"])
    with pytest.raises(SourceError, match=r"benchmark demo-math: .*nowhere\.jsonl"):
        run_whole_loop(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_recipe_without_a_phase_is_refused_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "half.toml"
    path.write_text('name = "half"\n[synthesis]\nbank = "seeds.jsonl"\n', encoding="utf-8")
    (tmp_path / "seeds.jsonl").touch()
    recipe = load_recipe(str(path))
    with pytest.raises(ConfigError, match=r"curriculum\.phases\.1"):
        check_whole_loop(recipe)


def test_all_missing_files_are_listed_at_once() -> None:
    recipe = load_recipe("demo", ["synthesis.bank=a.jsonl", "benchmarks.1.path=b.jsonl"])
    with pytest.raises(SourceError, match=r"a\.jsonl.*b\.jsonl"):
        check_files(recipe)


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["--set", "synthesis.bank=demo.toml", "--out", str(out), "--dry-run", "--json"]
    assert cli.exit_code_of(app, COMMAND, arguments) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"][0] == "synthesis"
    assert plan["steps"][-1] == "report"
    assert len(plan["steps"]) == 7
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "nowhere"], "no recipe named 'nowhere'"),
        (["--set", "training.sede=1"], "did you mean 'seed'"),
        (["--set", "synthesis.bank=gone.jsonl"], "gone.jsonl"),
    ],
)
def test_a_users_mistake_is_exit_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.exit_code_of(app, COMMAND, [*arguments, "--dry-run"]) == 2
    assert message in capsys.readouterr().err


def test_ctrl_c_prints_the_command_that_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(recipe: Recipe, out: Path) -> Outcome:
        raise KeyboardInterrupt

    only(monkeypatch, Step(key="synthesis", title="synthesis", stages=(), run=interrupt))
    arguments = ["--set", "synthesis.bank=demo.toml", "--out", str(tmp_path)]
    assert cli.exit_code_of(app, COMMAND, arguments) == 130
    message = capsys.readouterr().err
    assert f"{COMMAND} --set synthesis.bank=demo.toml --out {tmp_path}" in message


def test_summary_of_an_empty_folder_is_one_clear_error(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing has been built"):
        summarize(recipe, tmp_path)


def test_top_reasons_say_how_many_more_there_are() -> None:
    stage = {"reasons": {"a": 5, "b": 3, "c": 2, "d": 1}}
    assert top_reasons(stage) == "a 5, b 3, c 2 and 1 more"
    assert top_reasons({"reasons": {}}) == ""


@pytest.mark.parametrize(
    "modules",
    [
        "curriculum.build, curriculum.phases",
        "trainer.sft, trainer.run",
        "promptcot.__main__, promptcot.synthesis",
        "evaluation.__main__, evaluation.run, evaluation.report",
        "flows.whole_loop, flows.steps, flows.summary, flows.preflight, flows.samples",
        "flows.deployments, flows.server",
    ],
)
def test_the_stages_and_the_plain_driver_do_not_import_prefect(modules: str) -> None:
    check = f"import sys, {modules}; sys.exit(3 * ('prefect' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("module", ["flows.whole_loop", "flows.deployments"])
def test_help_is_quick_and_has_an_example(module: str) -> None:
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert f"Example: python -m {module}" in done.stdout
    # The processor's time, best of three: this machine may be busy with other tests.
    assert min(times) < 0.5


def test_a_second_run_into_one_folder_is_refused_before_it_changes_anything(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[PipelineError] = []
    other = load_recipe("demo", ["synthesis.bank=demo.toml", "seed=7"])

    def start_another() -> None:
        for command in (run_whole_loop, synthesize_all):
            try:
                command(other, tmp_path)
            except PipelineError as exc:
                refused.append(exc)

    def work(recipe: Recipe, out: Path) -> Outcome:
        thread = threading.Thread(target=start_another)
        thread.start()
        thread.join()
        return Outcome(line="done", path=out)

    only(monkeypatch, dataclasses.replace(steps.SYNTHESIS, run=work), steps.DATASETS["1"])
    run_whole_loop(recipe, tmp_path)
    assert [str(exc).partition(": ")[0] for exc in refused] == [
        f"another run is at work on the synthesis of {tmp_path}"
    ] * 2
    saved = json.loads((tmp_path / "recipe.json").read_text(encoding="utf-8"))
    assert saved["settings"]["seed"] == recipe.settings.seed
    log = (tmp_path / "logs" / "events.jsonl").read_text(encoding="utf-8")
    assert log.count("run.started") == 1
