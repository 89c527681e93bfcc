"""What can be known to fail is said before anything starts, not after minutes of work."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ConfigError, SourceError
from pipeline.settings.recipe import Recipe
from trainer.recipe import refuse_unsupported

_TRAINING_PACKAGES = ("torch", "transformers", "trl", "accelerate")


def check_whole_loop(recipe: Recipe) -> None:
    """Check that a recipe can run from synthesis to the report.

    Raises:
        ConfigError: A phase is not defined, the training packages are not installed, or the
            trainer refuses the settings.
        SourceError: Files that the recipe names do not exist.
    """
    check_files(recipe)
    settings = recipe.settings
    for phase in ("1", "2"):
        for section, phases in (
            ("curriculum", settings.curriculum.phases),
            ("training", settings.training.phases),
        ):
            if phase not in phases:
                raise ConfigError(
                    f"recipe {recipe.path} has no [{section}.phases.{phase}], "
                    "which the whole loop needs",
                    hint="add the section, or run the stages that the recipe has one by one",
                )
    missing = [name for name in _TRAINING_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"training needs packages that are not installed: {', '.join(missing)}",
            hint="run ./scripts/setup, or: pip install -e '.[train]'",
        )
    refuse_unsupported(settings.training)


def check_files(recipe: Recipe) -> None:
    """Check that every file a recipe names exists.

    Raises:
        SourceError: Some do not; all of them are listed.
    """
    missing = [f"{key}: {path}" for key, path in named_files(recipe) if not path.is_file()]
    if missing:
        raise SourceError(
            f"recipe {recipe.path} names files that do not exist: {'; '.join(missing)}",
            hint="correct the paths (they are relative to the recipe's folder)",
        )


def named_files(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    """All (recipe key, file) pairs of inputs that a recipe names."""
    settings = recipe.settings
    yield from _synthesis_files(recipe)
    for name, teacher in settings.teachers.items():
        if teacher.script is not None:
            yield f"teachers.{name}.script", recipe.file(teacher.script)
    for benchmark in settings.benchmarks:
        if benchmark.path:
            yield f"benchmark {benchmark.name}", recipe.file(benchmark.path)
    for source in settings.curriculum.sources:
        for path in source.paths:
            yield f"source {source.name}", recipe.file(path)
        for question in source.questions:
            yield f"source {source.name}, questions", recipe.file(question.path)


def _synthesis_files(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    synthesis = recipe.settings.synthesis
    if not synthesis.seeds:
        yield "synthesis.bank", recipe.file(synthesis.bank)
    for seeds in synthesis.seeds:
        yield f"seeds {seeds.name}", recipe.file(seeds.path)
    for judge in synthesis.judging.judges:
        if judge.prompt is not None:
            yield f"prompt of judge {judge.label}", recipe.file(judge.prompt)
    if synthesis.judging.calibration is not None:
        yield "synthesis.judging.calibration", recipe.file(synthesis.judging.calibration)
