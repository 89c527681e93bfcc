"""The end of a run's page: what synthesis took, where it lies, and the command that comes next."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_catalog import request

from flows.next_command import spell_report, spell_run
from flows.parameters import next_flow
from flows.run_report import describe_report, describe_synthesis
from pipeline.settings.recipe import load_recipe
from promptcot.costs import StageCost


def typed(command: str) -> Any:
    """The request that a command of ``prefect deployment run`` makes."""
    words = shlex.split(command)
    assert words[:3] == ["prefect", "deployment", "run"]
    given: dict[str, Any] = {}
    for option, pair in zip(words[4::2], words[5::2], strict=True):
        assert option == "-p"
        name, _, value = pair.partition("=")
        # As Prefect reads the value: JSON, else a text.
        given[name] = value if name in ("recipe", "out", "checkpoint") else json.loads(value)
    return request(words[3], **given)


def test_a_knob_stays_a_knob_and_what_is_not_read_again_is_left_out() -> None:
    made = request("synth-promptcot", domain="math", rows=12, seed=7)
    command = next_flow(made, "build-curriculum", "phase=2")
    assert command == "prefect deployment run build-curriculum -p phase=2 -p seed=7"
    assert typed(command).load().settings.curriculum == made.load().settings.curriculum
    built = request("build-curriculum", phase=2, seed=7, domain="math")
    assert next_flow(built, "train-sft", "phase=2") == "prefect deployment run train-sft -p phase=2"


def test_a_run_as_the_recipe_says_is_followed_by_a_short_command() -> None:
    made = request("train-sft", phase=1)
    command = next_flow(made, "evaluate", "checkpoint=phase-1")
    assert command == "prefect deployment run evaluate -p checkpoint=phase-1"
    assert spell_report("evaluation", "demo", "", ()) == "python -m evaluation report"


def test_the_next_run_reads_the_same_settings() -> None:
    changes = [
        'curriculum.phases.2.domains=["math"]',
        "seed=3",
        "seed=4",
        "teachers.default.model=a b",
    ]
    made = request("synth-promptcot", seed=7, out="runs/my run", overrides=changes)
    follows = typed(next_flow(made, "build-curriculum", "phase=2"))
    assert (follows.out, follows.phase) == ("runs/my run", "2")
    settings, wanted = follows.load().settings, made.load().settings
    assert settings.seed == wanted.seed == 4
    assert settings.curriculum == wanted.curriculum
    assert settings.teachers == wanted.teachers


def test_the_page_of_an_evaluation_is_written_with_its_settings() -> None:
    command = spell_report("evaluation", "paper", "o", ["evaluation.samples_per_item=2"])
    assert command == (
        "python -m evaluation report --recipe paper --out o --set evaluation.samples_per_item=2"
    )


STAGES = [
    {
        "key": "combinations",
        "stage": "Concept combinations",
        "unit": "combinations",
        "in": 8,
        "out": 8,
    },
    {"key": "problems", "stage": "Problems", "unit": "problems", "in": 8, "out": 6},
    {"key": "verified", "stage": "Verified traces", "unit": "solutions", "in": 12, "out": 3},
]
TOLD = {
    "steps": [
        {"step": "combinations", "state": "finished", "seconds": 2.0, "reused": True},
        {"step": "problems", "state": "finished", "seconds": 4.0, "reused": False},
        {"step": "verified", "state": "finished", "seconds": 60.0, "reused": False},
    ]
}


def test_a_report_of_synthesis_has_rates_tokens_time_and_money() -> None:
    asked = StageCost(
        stage="problems", rows_out=6, requests=9, prompt_tokens=1000, completion_tokens=500,
        seconds=90.0, usd=0.25, gpu_hours=0.1,
    )  # fmt: skip
    checked = StageCost(stage="verified", rows_out=3)
    line, page = describe_synthesis(STAGES, [asked, checked], TOLD)
    assert line == (
        "3 verified traces from 8 combinations; 1,500 tokens, 0.25 USD, 0.10 GPU-hours; "
        "this run took 1 min 6 s"
    )
    assert "| Concept combinations | 8 of 8 (100%) | reused | none |" in page
    assert (
        "| Problems | 6 of 8 (75%) | 2/s | 9 | 1,500 | 250 | 1 min 30 s | "
        "0.25 USD, 0.10 GPU-hours |" in page
    )
    assert "| Verified traces | 3 of 12 (25%) | 0.2/s | none |" in page
    head, *rows = [text for text in page.splitlines() if text.startswith("|")]
    assert {text.count("|") for text in rows} == {head.count("|")}
    assert head.endswith("| asked for | money |")
    free = replace(asked, usd=0.0, gpu_hours=0.0)
    assert "money" not in describe_synthesis(STAGES, [free, checked], TOLD)[1].split("\n")[0]


@pytest.mark.parametrize("is_written", [False, True])
def test_pages_that_are_there_are_linked_and_others_have_a_command(
    tmp_path: Path, is_written: bool
) -> None:
    page = tmp_path / "report" / "index.html"
    if is_written:
        page.parent.mkdir()
        page.touch()
    after = spell_run("train-sft", ["phase=1"], "demo", str(tmp_path), ())
    recipe = load_recipe("small", ["evaluation.samples_per_item=2"])
    line, text = describe_report(recipe, tmp_path, [], {"steps": []}, after)
    assert str(tmp_path) in line and f"`{tmp_path}`" in text
    assert text.endswith(f"Next:\n\n    {after}")
    assert (f"xdg-open {page}" in text) == is_written
    command = f"python -m evaluation report --recipe small --out {tmp_path} --set evaluation"
    assert (f"    {command}.samples_per_item=2\n" in text) != is_written
    assert "promptcot report" not in text
