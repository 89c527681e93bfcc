"""What a phase version is made from, and the name that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import curriculum
from curriculum.preparation import PACKAGES, Preparation, plan_preparation
from curriculum.reworded import Judging, plan_judging
from curriculum.selection import referred_phases, require_no_circle
from curriculum.sources.catalog import CARDS, OpenedSource, open_source
from pipeline.benchmarks import benchmark_inputs
from pipeline.errors import ConfigError, SourceError
from pipeline.hashing import file_sha256
from pipeline.manifest import LATEST, InputRef
from pipeline.records import TrainingRow
from pipeline.settings.base import determining
from pipeline.settings.phases import PhaseSettings
from pipeline.settings.recipe import Recipe
from pipeline.settings.sources import SourceSettings
from pipeline.stages import Stage

DATA_CARDS = Path(next(iter(curriculum.__path__))).parent / "data_cards"
"""Hand-written facts about the sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One phase, the sources it needs prepared, and the stage that will hold its version."""

    recipe: Recipe
    out: Path
    """The run folder."""
    phase: str
    variant: str | None
    settings: PhaseSettings
    """The variant's changes are in it."""
    preparations: list[Preparation]
    """Of the phase's own sources, then of those that only phases it refers to have."""
    judgings: dict[str, Judging]
    """By source; empty unless a teacher is asked about rows."""
    stage: Stage


def phase_root(out: Path, phase: str, variant: str | None = None) -> Path:
    """Folder of the versions of a phase, or of a variant of it."""
    name = f"phase-{phase}" if variant is None else f"phase-{phase}-{variant}"
    return out / "datasets" / name


def make_plan(
    recipe: Recipe,
    phase: str,
    out: Path,
    *,
    variant: str | None = None,
    may_synthesize: bool = True,
) -> Plan:
    """Open a phase's sources and name the version that they determine.

    Raises:
        ConfigError: The recipe has no such phase or variant, or it names no source.
        SourceError: An input is missing.
    """
    settings = find_phase(recipe, phase).resolve(variant)
    curriculum_settings = recipe.settings.curriculum
    require_no_circle(curriculum_settings, phase, settings)
    by_name = {source.name: source for source in curriculum_settings.sources}
    sources = [
        open_source(recipe, by_name[name], out, plan=not may_synthesize)
        for name in _needed_sources(recipe, settings)
    ]
    preparations = [plan_preparation(source, out) for source in sources]
    inputs = [ref for source in sources for ref in source.inputs]
    inputs += benchmark_inputs(recipe)
    inputs += _card_inputs(sources)
    inputs += [InputRef(name=f"prepared:{p.source.name}", version=p.version) for p in preparations]
    planned = {p.source.name: plan_judging(p, out) for p in preparations}
    judgings = {name: judging for name, judging in planned.items() if judging is not None}
    inputs += [
        InputRef(name=f"judged:{name}", version=judging.stage.version)
        for name, judging in judgings.items()
    ]
    stage = Stage(
        name=f"phase-{phase}",
        root=phase_root(out, phase, variant),
        record=TrainingRow,
        settings=_determining_settings(recipe, phase, settings, by_name=by_name),
        inputs=inputs,
        packages=PACKAGES,
        min_rows=curriculum_settings.min_rows,
        concurrency=curriculum_settings.num_workers,
    )
    return Plan(
        recipe=recipe,
        out=out,
        phase=phase,
        variant=variant,
        settings=settings,
        preparations=preparations,
        judgings=judgings,
        stage=stage,
    )


def _needed_sources(recipe: Recipe, settings: PhaseSettings) -> list[str]:
    """A phase's own sources, then those of the phases it refers to; each once."""
    names = [entry.source for entry in settings.sources]
    for phase in referred_phases(settings):
        names += _needed_sources(recipe, recipe.settings.curriculum.phases[phase])
    return list(dict.fromkeys(names))


def awaits_synthesis(recipe: Recipe, phase: str, out: Path, variant: str | None = None) -> bool:
    """Whether a build of this phase would run synthesis first."""
    curriculum_settings = recipe.settings.curriculum
    kinds = {source.name: source for source in curriculum_settings.sources}
    settings = find_phase(recipe, phase).resolve(variant)
    used = [kinds[name] for name in _needed_sources(recipe, settings)]
    needs = any(source.kind == "synthesized" and not source.paths for source in used)
    is_missing = not (out / "synthesis" / "verified" / LATEST).is_file()
    return needs and is_missing and curriculum_settings.synthesize_if_missing


def find_phase(recipe: Recipe, phase: str) -> PhaseSettings:
    """A phase's settings.

    Raises:
        ConfigError: The recipe has no such phase, or it names no source.
    """
    phases = recipe.settings.curriculum.phases
    if phase not in phases:
        known = ", ".join(sorted(phases)) or "none"
        raise ConfigError(
            f"recipe {recipe.name} has no phase {phase!r} (it has: {known})",
            hint=f"add [curriculum.phases.{phase}] to {recipe.path}, or pass another --phase",
        )
    if not phases[phase].sources:
        raise ConfigError(
            f"phase {phase} of recipe {recipe.name} names no source",
            hint=f"list its sources under [curriculum.phases.{phase}]",
        )
    return phases[phase]


def _card_inputs(sources: list[OpenedSource]) -> list[InputRef]:
    """The hand-written cards: their text is part of the version's README."""
    names = sorted({CARDS[source.settings.kind] for source in sources})
    refs = []
    for name in names:
        path = DATA_CARDS / f"{name}.md"
        if not path.is_file():
            raise SourceError(
                f"source card not found: {path}", hint="run from a complete checkout of the project"
            )
        refs.append(InputRef(name=f"card:{name}", version=file_sha256(path)))
    return refs


def _determining_settings(
    recipe: Recipe, phase: str, settings: PhaseSettings, *, by_name: dict[str, SourceSettings]
) -> dict[str, Any]:
    """Everything in the recipe that changes this phase's bytes, and nothing of other phases."""
    values = determining(recipe.settings.curriculum)
    values.pop("phases")
    if not recipe.settings.curriculum.decontamination.semantic.enabled:
        values["decontamination"].pop("semantic")
    names = _needed_sources(recipe, settings)
    values["sources"] = [determining(by_name[name]) for name in names]
    values["benchmarks"] = [determining(entry) for entry in recipe.settings.benchmarks]
    return {
        "phase": phase,
        "seed": recipe.settings.seed,
        "phase_settings": determining(settings),
        "referred_phases": _referred_settings(recipe, settings),
        **values,
    }


def _referred_settings(recipe: Recipe, settings: PhaseSettings) -> dict[str, Any]:
    """Settings of the phases that this one replays or is distinct from."""
    found: dict[str, Any] = {}
    for name in referred_phases(settings):
        resolved = recipe.settings.curriculum.phases[name].resolve()
        found |= {name: determining(resolved), **_referred_settings(recipe, resolved)}
    return found
