"""A recipe's mistakes end in one message that names the key and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.settings import determining, load_recipe
from pipeline.settings.recipe import RECIPES
from pipeline.settings.teacher import TeacherSettings


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda p: p.stem)
def test_bundled_recipes_are_valid(path: Path) -> None:
    assert load_recipe(path.stem).name == path.stem


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        (["training.learning_rat=1"], "unknown key 'training.learning_rat'", "learning_rate"),
        (["sed=1"], "unknown key 'sed'", "did you mean 'seed'"),
        (["training.micro_batch=0"], "training.micro_batch", "correct"),
        (["evaluation.code_timeout_s=inf"], "evaluation.code_timeout_s", "correct"),
        (["throughput.budgets_gb=[nan]"], "throughput.budgets_gb", "correct"),
        (["training.micro_batch=3", "training.packing=off"], "multiple", "correct"),
        (["seed"], "no '='", "section.key=value"),
        (["seed.deep.er=1"], "does not lead to a value", "names of sections"),
        (["synthesis.problems.teacher=nobody"], "'nobody'", "correct"),
        (["model.n_groups=7"], "n_groups", "correct"),
    ],
)
def test_wrong_override_is_explained(overrides: list[str], message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe("demo", overrides)
    assert message in str(error.value)
    assert hint in error.value.hint


def test_override_changes_nested_values_and_bare_words_are_text() -> None:
    recipe = load_recipe("demo", ["training.seed=9", "teachers.default.model=other"])
    assert recipe.settings.training.seed == 9
    assert recipe.settings.teachers["default"].model == "other"


def test_unknown_recipe_and_broken_toml_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no recipe named 'dmeo'") as error:
        load_recipe("dmeo")
    assert "demo" in error.value.hint
    with pytest.raises(ConfigError, match="not found"):
        load_recipe(str(tmp_path / "none.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_text("name = \n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_recipe(str(broken))


def test_execution_only_settings_do_not_name_versions() -> None:
    plain, busy = TeacherSettings(), TeacherSettings(max_concurrency=7, timeout_s=1, max_retries=0)
    assert determining(plain) == determining(busy)
    assert determining(plain) != determining(TeacherSettings(group_size=8))
