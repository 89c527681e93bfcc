"""Capacity plans: their figures by hand, their sources, and the page that the docs show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import exit_code_of
from pipeline.errors import ConfigError
from pipeline.settings import load_recipe
from promptcot.__main__ import app
from promptcot.capacity import (
    FORMULAS,
    count_answers,
    list_assumed,
    load_constants,
    plan_capacity,
    read_gpus,
    training_efficiency,
)

ROOT = Path(__file__).resolve().parents[2]
CONSTANTS = load_constants()
VALUES = {name: constant.value for name, constant in CONSTANTS.items()}


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, Any], str]:
    code = exit_code_of(app, "python -m promptcot", ["estimate", "--json", *argv])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else {}, captured.err


@pytest.mark.parametrize("name", [n for n, c in CONSTANTS.items() if c.kind == "measured"])
def test_what_is_called_measured_stands_where_it_says(name: str) -> None:
    constant = CONSTANTS[name]
    page = constant.source.split(",")[0]
    assert constant.quote in (ROOT / page).read_text(encoding="utf-8")
    digits = {f"{constant.value:,.0f}", f"{constant.value:g}"}
    derived = {
        "training.share_end_to_end": 29_318 / 32_603,
        "training.speedup_2": 56_579 / 30_062,
    }
    if name in derived:
        assert constant.value == pytest.approx(derived[name], rel=4e-3)
    else:
        assert any(text in constant.quote for text in digits)


def test_every_constant_is_used_and_every_use_exists() -> None:
    used = {name for formula in FORMULAS for name in formula.uses}
    rest = {n for n in CONSTANTS if n.startswith(("training.", "price."))}
    assert used | rest == set(CONSTANTS) and used & rest == set()


def test_the_figures_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    code, told, err = call(capsys, "--recipe", "paper", "--gpus", "1,8")
    assert code == 0, err
    one, eight = told["plans"]
    parts = {part["part"]: part for part in eight["parts"]}
    phase_1 = 1_878_460 * 6_761
    assert parts["training, phase 1"]["tokens"] == phase_1
    rate = 8_822 * 0.899 * 8 * 0.8
    assert parts["training, phase 1"]["hours"] == pytest.approx(phase_1 / rate / 3600)
    combinations = 256_000 / (0.9 * 0.98 * 0.6 * 0.7)
    tokens = combinations * (2_500 + 0.9 * 0.98 * (1_500 + 0.6 * 4 * 9_000))
    assert parts["synthesis"]["hours"] == pytest.approx(tokens / 1_500 / 8 / 3600)
    answers = 2 * (500 * 4 + 675 * 4 + 2 * 30 * 16 + 2 * 164 * 8 + 279 * 8)
    assert count_answers(load_recipe("paper")) == answers
    assert parts["evaluation"]["usd"] == pytest.approx(answers * 12_000 / 4_545 / 3600 * 3)
    rows, cores = 1_878_460 + 256_000, 64
    assert parts["curriculum"]["hours"] * 3600 == pytest.approx(rows * (391e-6 / cores + 14e-6))
    assert eight["hours"] == pytest.approx(sum(part["hours"] for part in eight["parts"]))
    assert one["hours"] > 6 * eight["hours"]
    # One GPU scales perfectly, so nothing is assumed of scaling.
    assert {p["part"]: p["assumed"] for p in one["parts"]}["training, phase 1"] == [
        "work.phase_1_tokens_per_row"
    ]


def test_own_measurements_replace_assumptions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "mine.toml"
    own.write_text(
        "[training.efficiency_8]\nvalue = 0.9\n[work]\nphase_1_tokens_per_row = {value = 7000}\n"
    )
    _, before, _ = call(capsys, "--recipe", "paper", "--gpus", "8")
    code, after, _ = call(capsys, "--recipe", "paper", "--gpus", "8", "--constants", str(own))
    assert code == 0
    was, now = (told["plans"][0]["parts"][2] for told in (before, after))
    assert now["hours"] / was["hours"] == pytest.approx(7000 / 6761 * 0.8 / 0.9)
    assert (len(was["assumed"]), now["assumed"]) == (2, [])
    assert after["constants"]["training.efficiency_8"]["source"] == "mine.toml"


@given(st.integers(1, 1024), st.integers(1, 1024))
def test_more_gpus_are_never_slower_and_never_perfectly_free(a: int, b: int) -> None:
    few, many = sorted((a, b))
    assert few * training_efficiency(VALUES, few) <= many * training_efficiency(VALUES, many)
    assert training_efficiency(VALUES, many) <= training_efficiency(VALUES, few) <= 1


def test_assumed_scaling_is_named_where_it_is_used() -> None:
    def named(*gpus: int) -> set[str]:
        return set(list_assumed(CONSTANTS, "training, phase 2", gpus)) - {
            "work.phase_2_tokens_per_row"
        }

    assert named(1) == named(2) == set()
    assert named(4) == named(8) == {"training.efficiency_8"}
    assert named(16) == {"training.efficiency_8", "training.efficiency_64"}
    assert named(64) == named(256) == {"training.efficiency_64"}


@pytest.mark.parametrize("text", ["", "0", "1,x", "2000", "1.5"])
def test_gpus_are_whole_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match="whole numbers from 1"):
        read_gpus(text)
    assert read_gpus("64,1,8,8") == (1, 8, 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training.speed]\nvalue = 1", "unknown constant 'training.speed'"),
        ("[training.tokens_per_s]\nvalue = 0", "validation error"),
        ("[training", "--constants"),
        ("training = 1", "--constants"),
    ],
)
def test_a_file_of_constants_that_is_wrong_is_named(
    tmp_path: Path, text: str, message: str
) -> None:
    own = tmp_path / "mine.toml"
    own.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_constants(own)
    with pytest.raises(ConfigError, match="not a readable file"):
        load_constants(tmp_path / "none.toml")


def test_speeds_of_another_model_are_not_taken_for_the_recipes(tmp_path: Path) -> None:
    small = load_recipe("paper", ["model.num_hidden_layers=32"])
    with pytest.raises(ConfigError, match=r"not the 7B that training.tokens_per_s and evaluation"):
        plan_capacity(small, CONSTANTS, [1])
    own = tmp_path / "mine.toml"
    own.write_text("training.tokens_per_s.value = 20000\nevaluation.tokens_per_s.value = 6000\n")
    (plan,) = plan_capacity(small, load_constants(own), [1])
    (paper,) = plan_capacity(load_recipe("paper"), CONSTANTS, [1])
    assert plan.parts[2].hours == pytest.approx(paper.parts[2].hours * 8_822 / 20_000)
    unknown = load_recipe("paper", ["benchmarks.0.expected_items=0"])
    with pytest.raises(ConfigError, match="benchmark math500 does not say how many items"):
        plan_capacity(unknown, CONSTANTS, [1])


def test_the_page_of_the_docs_is_what_the_command_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "capacity.md"
    asked = ("--recipe", "paper", "--gpus", "1,8,64", "--page", str(page))
    assert call(capsys, *asked, "--dry-run")[0] == 0 and not page.exists()
    assert call(capsys, *asked)[0] == 0
    assert page.read_text(encoding="utf-8") == (ROOT / "docs" / "capacity.md").read_text(
        encoding="utf-8"
    )
    assert (ROOT / "docs" / "capacity.svg").read_text(encoding="utf-8").startswith("<svg")


def test_the_html_page_asks_nobody_and_has_every_constant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "capacity.html"
    assert call(capsys, "--recipe", "paper", "--gpus", "4", "--page", str(page))[0] == 0
    text = page.read_text(encoding="utf-8")
    assert all(f"<code>{name}</code>" in text for name in CONSTANTS)
    assert "<svg" in text and "4 GPUs" in text
    assert "src=" not in text and "@import" not in text
    code, _, err = call(capsys, "--recipe", "paper", "--page", str(tmp_path / "plan.pdf"))
    assert code == 2 and "ends in .html or .md" in err
