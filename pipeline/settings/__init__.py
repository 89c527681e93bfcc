"""One TOML file is one whole experiment; each stage reads its own frozen model of it."""

from pipeline.settings.base import Settings, determining, execution_only
from pipeline.settings.recipe import Recipe, load_recipe

__all__ = ["Recipe", "Settings", "determining", "execution_only", "load_recipe"]
