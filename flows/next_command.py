"""The command that comes after a run, as short as a person would type it.

A run that follows must have the recipe of the one before it, as far as it reads it. What only
earlier stages read is left out, a knob is spelled as the knob that it is, and defaults are not
spelled at all.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from flows.catalog import CatalogEntry, find_entry

DEFAULT_RECIPE = "demo"
_READ_EARLIER: dict[str, frozenset[str]] = {
    "curriculum": frozenset({"synthesis"}),
    # The seed at the root is that of synthesis and curriculum; these two have their own.
    "training": frozenset({"synthesis", "curriculum", "seed"}),
    "evaluation": frozenset({"synthesis", "curriculum", "seed", "training"}),
}
"""Sections and keys of the recipe that the runs of a stage do not read: earlier ones did."""


def spell_run(
    flow: str, own: Sequence[str], recipe: str, out: str, overrides: Sequence[str]
) -> str:
    """A run of a flow, e.g. ``prefect deployment run build-curriculum -p phase=2 -p seed=7``.

    Args:
        flow: Of the catalog.
        own: ``name=value`` of its own parameters.
        recipe: Of the run before it.
        out: Its run folder; empty for the recipe's own.
        overrides: What the run before it changed, as ``section.key=value``.
    """
    entry = find_entry(flow)
    unread = _READ_EARLIER.get(entry.stage, frozenset())
    kept = [text for text in overrides if text.partition("=")[0].split(".")[0] not in unread]
    parameters = [*own, *([f"recipe={recipe}"] if recipe != DEFAULT_RECIPE else [])]
    parameters += [f"out={out}"] if out else []
    parameters += _take_knobs(entry, kept)
    if kept:
        parameters.append("overrides=" + json.dumps(kept, ensure_ascii=False))
    return f"prefect deployment run {flow}" + "".join(f" -p {shlex.quote(p)}" for p in parameters)


def spell_report(package: str, recipe: str, out: str, overrides: Sequence[str]) -> str:
    """The command with which a package writes its page of a run folder."""
    words = ["python", "-m", package, "report"]
    words += ["--recipe", recipe] if recipe != DEFAULT_RECIPE else []
    words += ["--out", out] if out else []
    return shlex.join([*words, *(word for text in overrides for word in ("--set", text))])


def _take_knobs(entry: CatalogEntry, overrides: list[str]) -> list[str]:
    """Take out of the overrides what is one knob of a flow; ``name=value`` for each."""
    taken = []
    for name, templates in entry.knobs.items():
        key, is_plain, _ = templates[0].partition("={value}")
        of_key = [text for text in overrides if text.startswith(f"{key}=")]
        # With a second value it would matter which one comes last.
        if is_plain and len(templates) == 1 and len(of_key) == 1:
            overrides.remove(of_key[0])
            taken.append(f"{name}={of_key[0].partition('=')[2]}")
    return taken
