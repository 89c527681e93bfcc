"""From a recipe's ``[teachers.NAME]`` to an engine; only the chosen engine's libraries load."""

from __future__ import annotations

from pipeline.errors import ConfigError
from pipeline.settings.recipe import Recipe
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.protocol import Engine


def make_engine(settings: TeacherSettings, recipe: Recipe) -> Engine:
    """Create an engine without loading a model or opening a connection.

    Raises:
        ConfigError: A setting that this engine needs is missing.
        TeacherError: The engine cannot be used as configured.
    """
    if settings.engine == "embedded":
        from promptcot.engines.embedded import EmbeddedEngine

        return EmbeddedEngine(settings)
    if settings.engine == "http":
        from promptcot.engines.http import HttpEngine

        return HttpEngine(settings)
    if settings.engine == "vllm":
        from promptcot.engines.vllm import VllmEngine

        return VllmEngine(settings)
    from promptcot.engines.scripted import ScriptedEngine

    if settings.script is None:
        raise ConfigError(
            f"recipe {recipe.path}: a scripted teacher needs a script",
            hint="set teachers.NAME.script to a JSONL file, relative to the recipe",
        )
    return ScriptedEngine(recipe.file(settings.script), max_concurrency=settings.max_concurrency)
