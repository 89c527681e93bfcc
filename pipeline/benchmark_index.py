"""The benchmarks' items, ready to be searched for; worked out once for a machine."""

from __future__ import annotations

from pathlib import Path

from pipeline.benchmarks import benchmark_inputs, load_benchmark_items
from pipeline.contamination import BenchmarkIndex
from pipeline.hashing import code_version, content_hash
from pipeline.machine_cache import DAMAGE, keep, kept_path
from pipeline.settings.base import determining
from pipeline.settings.recipe import Recipe

_MANY_ITEMS = 500
"""Items whose index is worth keeping; it takes 30 MB."""
_KEPT_INDEXES = 4


def load_benchmark_index(recipe: Recipe) -> BenchmarkIndex:
    """The items of all ``[[benchmarks]]`` of a recipe, ready to be searched for.

    Indexing takes seconds and 100 MB meanwhile, so the tables of many items are kept for the next
    process (:mod:`pipeline.machine_cache`).

    Raises:
        SourceError: A benchmark's file cannot be read.
        GateRefused: A benchmark's file is not the one that the recipe names.
    """
    items = load_benchmark_items(recipe)
    settings = recipe.settings.curriculum.decontamination
    path = stored_index(recipe)
    try:
        return BenchmarkIndex(items, settings, path)
    except DAMAGE:
        # Not kept yet, or damaged: it is worked out anew.
        index = BenchmarkIndex(items, settings)
    if len(items) >= _MANY_ITEMS:
        keep(path, index.store, _KEPT_INDEXES)
    return index


def is_worth_storing(recipe: Recipe) -> bool:
    """Whether a recipe's items are many, and no process has kept their tables.

    Raises:
        SourceError: A benchmark's file cannot be read.
        GateRefused: A benchmark's file is not the one that the recipe names.
    """
    return len(load_benchmark_items(recipe)) >= _MANY_ITEMS and not stored_index(recipe).is_file()


def stored_index(recipe: Recipe) -> Path:
    """Where the tables of a recipe's index are, if they were kept.

    Raises:
        SourceError: A benchmark's file cannot be read.
        GateRefused: A benchmark's file is not the one that the recipe names.
    """
    entries = recipe.settings.benchmarks
    items = [ref.version for ref in benchmark_inputs(recipe)]
    key = content_hash(
        {
            "items": [
                [entry.name, entry.domain, version]
                for entry, version in zip(entries, items, strict=True)
            ],
            "decontamination": determining(recipe.settings.curriculum.decontamination),
            "code": code_version("pipeline"),
        }
    )
    return kept_path("benchmark-items", key)
