"""From a recipe's ``[teachers.NAME]`` to an engine; only the chosen engine's libraries load."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.settings.recipe import Recipe
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.protocol import Engine


def make_engine(name: str, settings: TeacherSettings, recipe: Recipe, out: Path) -> Engine:
    """Create an engine without loading a model or opening a connection.

    Args:
        name: The teacher's in the recipe, for messages.
        settings: The teacher's.
        recipe: Where its script is looked for.
        out: The run folder; batch files go there.

    Raises:
        ConfigError: A setting that this engine needs is missing.
        TeacherError: The engine cannot be used as configured.
    """
    if settings.engine == "embedded":
        from promptcot.engines.embedded import EmbeddedEngine

        return EmbeddedEngine(settings)
    if settings.engine == "http":
        from promptcot.engines.http import HttpEngine

        place = settings.replicas
        is_file = bool(place) and not place.startswith(("http://", "https://"))
        return HttpEngine(name, settings, str(recipe.file(place)) if is_file else place)
    if settings.engine == "vllm":
        from promptcot.engines.vllm import VllmEngine

        return VllmEngine(settings)
    if settings.engine == "batch_file":
        from promptcot.engines.batch_file import BatchFileEngine

        return BatchFileEngine(name, settings, out)
    from promptcot.engines.scripted import ScriptedEngine

    if settings.script is None:
        raise ConfigError(
            f"recipe {recipe.path}: a scripted teacher needs a script",
            hint="set teachers.NAME.script to a JSONL file, relative to the recipe",
        )
    return ScriptedEngine(recipe.file(settings.script), max_concurrency=settings.max_concurrency)
