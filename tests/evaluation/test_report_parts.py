"""The parts of the report that decide something: plots, samples, commands, relaxed gates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import report_fixture as fixture
from hypothesis import given
from hypothesis import strategies as st

from evaluation.plots import Bar, length_edges, plot_rejections, running_mean, thin_by_log
from evaluation.report_commands import find_overrides, list_commands
from evaluation.report_data import Score, collect_run
from evaluation.report_honesty import judge_interval
from evaluation.report_rows import choose_samples, split_completion
from pipeline.pages import clean_text
from pipeline.relaxed_gates import relaxed_gates
from pipeline.settings import load_recipe
from pipeline.settings.recipe import RecipeSettings


@given(st.lists(st.integers(1, 70_000), min_size=1, max_size=50))
def test_bins_hold_every_length_and_end_at_round_numbers(values: list[int]) -> None:
    lengths = np.asarray(values)
    edges = length_edges(lengths)
    assert 2 <= len(edges) <= 26
    assert np.histogram(lengths, bins=edges)[0].sum() == len(values)
    width = f"{edges[1] - edges[0]:.0f}"
    assert width[0] in "125" and set(width[1:]) <= {"0"}


@given(st.integers(1, 3000), st.integers(2, 100))
def test_thinning_keeps_both_ends_and_the_order(count: int, most: int) -> None:
    kept = thin_by_log(np.arange(1, count + 1), most)
    assert kept[0] == 0 and kept[-1] == count - 1
    assert len(kept) <= max(most, 1)
    assert (np.diff(kept) > 0).all()


def test_running_mean_uses_what_there_is_at_the_start() -> None:
    assert running_mean(np.asarray([4.0, 2.0, 0.0, 2.0]), 2).tolist() == [4.0, 3.0, 1.0, 1.0]


def test_plot_labels_are_text_even_when_they_look_like_formulas() -> None:
    svg = plot_rejections([Bar("costs $x_1 & $<y>", 3, "judged")])
    assert "costs $x_1 &amp; $&lt;y&gt;" in svg
    assert svg.startswith("<svg viewBox=")


def test_a_figure_has_the_same_bytes_each_time_and_no_date() -> None:
    bars = [Bar("too short", 5, "problems"), Bar("bad", 2, "judged")]
    assert plot_rejections(bars) == plot_rejections(bars)
    assert "<metadata" not in plot_rejections(bars)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>\nfirst\n</think>\n\nThe answer.", ("first", "The answer.")),
        ("no tags at all", ("", "no tags at all")),
        ("<think>\nnever closed", ("", "<think>\nnever closed")),
    ],
)
def test_reasoning_and_answer_are_told_apart(text: str, parts: tuple[str, str]) -> None:
    assert split_completion(text) == parts


def test_control_characters_are_made_visible() -> None:
    assert clean_text("a\x00b\tc\nd") == "a�b\tc\nd"


def test_samples_are_filled_from_phase_one_and_depend_on_content_alone(tmp_path: Path) -> None:
    recipe = fixture.write_recipe(tmp_path)
    fixture.build_phase(tmp_path / "run", "1")
    fixture.build_phase(tmp_path / "run", "2")
    facts = collect_run(recipe, tmp_path / "run")
    samples = choose_samples(recipe, facts, count=30)
    sources = [sample.row.source for sample in samples]
    assert sources[:14] == ["promptcot"] * 14
    assert sources[14:24] == ["open-thoughts2"] * 10
    assert [sample.phase for sample in samples[24:]] == ["1"] * 6
    assert samples[0].row.id == min(fixture.make_row(n, "promptcot").id for n in range(14))
    assert len({sample.row.id for sample in samples}) == 30


def test_commands_lead_back_to_the_settings_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('name = "own"\n[[synthesis.judging.judges]]\nvotes = 1\n', encoding="utf-8")
    changes = [
        "seed=7",
        "synthesis.judging.judges.0.votes=3",
        "evaluation.checkpoints=['phase-2']",
        "training.packing=best_fit",
    ]
    recipe = load_recipe(str(path), changes)
    options = find_overrides(recipe)
    texts = [option.removeprefix("--set '").removesuffix("'") for option in options]
    assert load_recipe(str(path), texts).settings == recipe.settings
    assert all("--recipe own.toml --set 'seed=7'" in line for line in list_commands(recipe))


def test_bundled_recipes_are_called_by_name() -> None:
    assert list_commands(load_recipe("demo"))[0] == "python -m promptcot run --recipe demo"


TWO_JUDGES = """
name = "own"
[teachers.default]
[teachers.other]
model = "another-model"
[[synthesis.judging.judges]]
teacher = "default"
[[synthesis.judging.judges]]
teacher = "other"
"""


def test_two_judging_models_and_the_defaults_relax_nothing(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(TWO_JUDGES, encoding="utf-8")
    assert relaxed_gates(load_recipe(str(path)).settings) == []


def test_one_judging_model_is_told_however_often_it_is_asked(tmp_path: Path) -> None:
    (alone,) = relaxed_gates(RecipeSettings(name="alone"))
    assert "One model judges the problems; the paper asks 2 different ones" in alone
    path = tmp_path / "own.toml"
    path.write_text(TWO_JUDGES.replace("another-model", "smollm2-135m-instruct"), encoding="utf-8")
    assert relaxed_gates(load_recipe(str(path)).settings) == [alone]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("synthesis.judging.minimum_verdict=bad", "“bad” upwards"),
        ("synthesis.judging.aggregation=lenient", "“perfect” vote is enough"),
        ("synthesis.solutions.samples_per_problem=1", "solved once"),
        ("synthesis.verification.keep_unverified=true", "unverified"),
        ("synthesis.verification.minimum_agreement=0.25", "25% of the"),
        ("synthesis.verification.minimum_votes=1", "at least 2"),
        ("synthesis.verification.code_tests=0", "0 test(s)"),
        ("synthesis.verification.expected_outputs=teacher", "teacher that wrote a test"),
        ("curriculum.decontamination.enabled=false", "not compared with the benchmarks"),
        ("curriculum.deduplicate=false", "Repeated rows are kept"),
    ],
)
def test_each_relaxed_gate_is_one_plain_sentence(tmp_path: Path, change: str, words: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(TWO_JUDGES, encoding="utf-8")
    gates = relaxed_gates(load_recipe(str(path), [change]).settings)
    assert len(gates) == 1
    assert words in gates[0]


@pytest.mark.parametrize(
    ("average", "interval", "bound"), [(0, (0, 0.171), 17), (1, (0.829, 1), 83)]
)
def test_the_note_states_the_bound_that_the_table_shows(
    average: float, interval: tuple[float, float], bound: int
) -> None:
    score = Score(
        benchmark="b",
        domain="math",
        num_items=16,
        samples_per_item=4,
        avg_at_k=average,
        interval=interval,
        pass_at_k=average,
        majority_at_k=None,
        truncated_rate=0,
        format_rate=1,
        mean_tokens=10,
    )
    assert f"with 16 items a true rate {'up to' if not average else 'down to'} {bound}%" in (
        judge_interval(score).replace("of up to", "up to")
    )
