"""A resolved recipe as ``--set`` options, so that another process reads the same settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipeline.settings.recipe import Recipe, load_recipe


def list_overrides(recipe: Recipe) -> list[str]:
    """Changes ``section.key=value`` from the recipe's file to the settings of this run."""
    written = load_recipe(str(recipe.path.resolve())).settings.model_dump(mode="json")
    used = recipe.settings.model_dump(mode="json")
    return [f"{key}={value}" for key, value in _differences("", written, used)]


def _differences(key: str, written: Any, used: Any) -> Iterator[tuple[str, str]]:
    if written == used:
        return
    if isinstance(written, dict) and isinstance(used, dict):
        for name in used:
            inner = f"{key}.{name}" if key else name
            yield from _differences(inner, written.get(name), used[name])
    elif isinstance(written, list) and isinstance(used, list) and _same_tables(written, used):
        for position, (before, after) in enumerate(zip(written, used, strict=True)):
            yield from _differences(f"{key}.{position}", before, after)
    else:
        yield key, json.dumps(used, ensure_ascii=False)


def _same_tables(written: list[Any], used: list[Any]) -> bool:
    """Whether two lists are equally long lists of tables, whose entries can be set one by one."""
    return len(written) == len(used) and all(isinstance(item, dict) for item in [*written, *used])
