"""What a phase version is made from, and the name that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import curriculum
from curriculum.sources.catalog import CARDS, OpenedSource, open_source
from curriculum.survey import Judge
from pipeline.benchmarks import benchmark_inputs, load_benchmark_index
from pipeline.contamination import BenchmarkIndex
from pipeline.errors import ConfigError, SourceError
from pipeline.hashing import file_sha256
from pipeline.manifest import LATEST, InputRef
from pipeline.records import TrainingRow
from pipeline.settings.base import determining
from pipeline.settings.phases import PhaseSettings
from pipeline.settings.recipe import Recipe
from pipeline.stages import Stage

DATA_CARDS = Path(next(iter(curriculum.__path__))).parent / "data_cards"
"""Hand-written facts about the sources."""
PACKAGES = ("pipeline", "curriculum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One phase, its opened sources and the stage that will hold its version."""

    recipe: Recipe
    phase: str
    settings: PhaseSettings
    sources: list[OpenedSource]
    stage: Stage

    @property
    def work(self) -> Path:
        """Where verdicts and scattered rows wait; deleted once the version is published."""
        return self.stage.root / f".work-{self.stage.version}"

    def benchmark_index(self) -> BenchmarkIndex:
        """All benchmark items of the recipe."""
        return load_benchmark_index(self.recipe)

    def judges(self, index: BenchmarkIndex) -> list[Judge]:
        """One judge per source, in the phase's order."""
        return [
            Judge(
                parser=source.parser(),
                settings=self.recipe.settings.curriculum,
                max_tokens=self.settings.max_tokens,
                benchmarks=index,
            )
            for source in self.sources
        ]


def phase_root(out: Path, phase: str) -> Path:
    """Folder of a phase's versions."""
    return out / "datasets" / f"phase-{phase}"


def make_plan(recipe: Recipe, phase: str, out: Path, *, may_synthesize: bool = True) -> Plan:
    """Open a phase's sources and name the version that they determine.

    Raises:
        ConfigError: The recipe has no such phase, or it names no source.
        SourceError: An input is missing.
    """
    settings = find_phase(recipe, phase)
    by_name = {source.name: source for source in recipe.settings.curriculum.sources}
    sources = [
        open_source(recipe, by_name[entry.source], out, plan=not may_synthesize)
        for entry in settings.sources
    ]
    inputs = [ref for source in sources for ref in source.inputs]
    inputs += benchmark_inputs(recipe)
    inputs += _card_inputs(sources)
    stage = Stage(
        name=f"phase-{phase}",
        root=phase_root(out, phase),
        record=TrainingRow,
        settings=_determining_settings(recipe, phase, settings),
        inputs=inputs,
        packages=PACKAGES,
        min_rows=recipe.settings.curriculum.min_rows,
    )
    return Plan(recipe=recipe, phase=phase, settings=settings, sources=sources, stage=stage)


def awaits_synthesis(recipe: Recipe, phase: str, out: Path) -> bool:
    """Whether a build of this phase would run synthesis first."""
    curriculum_settings = recipe.settings.curriculum
    kinds = {source.name: source for source in curriculum_settings.sources}
    used = [kinds[entry.source] for entry in find_phase(recipe, phase).sources]
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


def _determining_settings(recipe: Recipe, phase: str, settings: PhaseSettings) -> dict[str, Any]:
    """Everything in the recipe that changes this phase's bytes, and nothing of other phases."""
    values = determining(recipe.settings.curriculum)
    used = [entry.source for entry in settings.sources]
    values.pop("phases")
    values["sources"] = [entry for entry in values["sources"] if entry["name"] in used]
    values["benchmarks"] = [determining(entry) for entry in recipe.settings.benchmarks]
    return {
        "phase": phase,
        "seed": recipe.settings.seed,
        "phase_settings": determining(settings),
        **values,
    }
