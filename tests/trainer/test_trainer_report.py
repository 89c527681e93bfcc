"""What a finished run leaves behind: card, page, plan of the next."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tiny_experiment import Experiment

from pipeline.cli import exit_code_of
from trainer.sft import app, train_phase


@pytest.fixture(scope="module")
def folder(shared_experiment: Experiment) -> Path:
    recipe = shared_experiment.recipe("training.packing=exact", "training.micro_batch=1")
    return train_phase(recipe, "1", shared_experiment.out).checkpoint


class Page(HTMLParser):
    """Tags that are open at the end, and what would be fetched."""

    VOID = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href") and value and not value.startswith(("#", "data:")):
                self.fetched.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.fetched == []
    assert len(page.ids) == len(set(page.ids))
    assert text.count("<svg") == 8
    for caption in ("Loss on completion tokens", "Learning rate", "Documents of each optimiser",
                    "Real tokens a second", "Peak memory", "how full they are"):  # fmt: skip
        assert caption in text
    assert "None: no step's loss or gradient norm" in text


def test_pictures_scale_with_the_page(folder: Path) -> None:
    """Nothing has a width of its own, so that a phone's page does not overflow."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    pictures = re.findall(r"<svg [^>]*>", text)
    assert all("viewBox" in picture and "width" not in picture for picture in pictures)
    assert "<table" not in text.replace('<div class="scroll"', "") or 'class="scroll"' in text


def test_the_card_tells_data_recipe_and_figures(
    folder: Path, shared_experiment: Experiment
) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert 'license: other\nlicense_name: "unknown"' in card
    assert shared_experiment.dataset.name in card
    values = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert f"{values['first_loss']:.4f} → {values['last_loss']:.4f}" in card
    assert "3.5 on average (2 to 4)" in card
    assert "left out: none" in card
    assert str(shared_experiment.folder) not in card


def test_the_cards_example_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    monkeypatch.chdir(folder)
    printed: list[str] = []
    code = code.replace("max_new_tokens=512", "max_new_tokens=2, do_sample=False")
    exec(compile(code, "card", "exec"), {"print": printed.append})
    assert "<think>" in printed[0]


def test_the_next_plan_knows_the_measured_speed(
    folder: Path, shared_experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--recipe", str(shared_experiment.folder / "tiny.toml")]
    options += ["--out", str(shared_experiment.out), "--phase", "2", "--dry-run"]
    capsys.readouterr()
    assert exit_code_of(app, "python -m trainer.sft", options) == 0
    assert "a device at the longest row" in capsys.readouterr().out
    assert exit_code_of(app, "python -m trainer.sft", [*options, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["tokens_per_second"] > 0
    assert plan["tokens_per_second_from"] == "phase 1 of this run folder"
    assert plan["hours"] == pytest.approx(
        plan["tokens"] / plan["tokens_per_second"] / 3600, abs=1e-3
    )
    assert plan["fits"]


def test_a_plan_that_does_not_fit_says_what_to_change(
    shared_experiment: Experiment,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trainer.plan.available_gib", lambda: 80.0)
    monkeypatch.setattr("trainer.plan.host_gib", lambda: 500.0)
    big = ["hidden_size=4096", "num_hidden_layers=64", "head_dim=64", "state_size=128",
           "n_groups=8", "chunk_size=256", "tie_word_embeddings=false"]  # fmt: skip
    options = ["--recipe", str(shared_experiment.folder / "tiny.toml"), "--phase", "1"]
    options += ["--out", str(shared_experiment.out), "--dry-run", "--json"]
    options += [part for text in big for part in ("--set", f"model.{text}")]
    options += ["--set", "training.precision=bf16_autocast", "--set", "training.activation=all"]
    capsys.readouterr()
    assert exit_code_of(app, "python -m trainer.sft", options) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["num_parameters"] == 7_285_403_648
    assert not plan["fits"]
    assert any("stochastic" in remedy for remedy in plan["remedies"])
    assert plan["hours"] is None
