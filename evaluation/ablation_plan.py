"""What each run of an ablation trains on, for how many steps, and what that comes to.

One run is one variant with one seed. Its folder is ``<out>/ablations/<label>/<seed>``; datasets are
shared under ``<out>/datasets``, because a seed changes no row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import ceil
from pathlib import Path

from pydantic import ValidationError

from curriculum.build import build_phase
from curriculum.planning import awaits_synthesis, make_plan
from pipeline.errors import ConfigError, PipelineError
from pipeline.manifest import MANIFEST, Version, load_version
from pipeline.settings.ablations import FULL, AblationData, AblationSettings, Matching
from pipeline.settings.recipe import Recipe
from pipeline.settings.training import PhaseTraining
from trainer.data import Counts, data_settings, plan_data


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One variant, whatever the seed."""

    name: str
    """As the recipe has it, or ``full``."""
    title: str
    matching: Matching
    phases: tuple[str, ...]
    data: Mapping[str, str]
    """Phase to its curriculum variant."""

    @property
    def label(self) -> str:
        """Its folder's name."""
        return self.name if self.matching == "none" else f"{self.name}-{self.matching}"

    @property
    def last_phase(self) -> str:
        """The phase whose checkpoint is evaluated."""
        return self.phases[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePlan:
    """One phase of an arm; without a dataset nothing is known of it yet."""

    phase: str
    dataset: Version | None
    max_steps: int | None
    """Steps that matching asks for; none leaves the recipe's duration."""
    num_rows: int = 0
    num_steps: int = 0
    num_tokens: int = 0
    """Tokens of the run."""
    reason: str = ""
    """Why nothing is known."""


def read_options(recipe: Recipe, matched: str, seeds: str) -> tuple[Matching, tuple[int, ...]]:
    """What the command line says of matching and seeds, or the recipe where it says nothing.

    Raises:
        ConfigError: No such matching, or seeds that are no numbers.
    """
    settings = recipe.settings.ablations
    values = {"matched": matched or settings.matched, "seeds": settings.seeds}
    if seeds:
        values["seeds"] = tuple(part.strip() for part in seeds.split(","))
    try:
        chosen = AblationSettings.model_validate(values)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        raise ConfigError(
            f"--{first['loc'][0] if first['loc'] else 'seeds'}: {first['msg']}, "
            f"got {matched or seeds!r}",
            hint="write e.g. --matched steps, or --seeds 0,1,2",
        ) from exc
    return chosen.matched, chosen.seeds


def list_arms(recipe: Recipe, only: Sequence[str], matching: Matching) -> list[Arm]:
    """The recipe itself, then its variants, or those that are wanted.

    Raises:
        ConfigError: The recipe has no ablations, not that one, or none that can be matched; or
            what it evaluates is no checkpoint.
    """
    settings = recipe.settings
    variants = settings.ablations.variants
    if settings.evaluation.engine != "student":
        raise ConfigError(
            f"evaluation.engine = {settings.evaluation.engine!r} would answer for every variant "
            "alike: ablations evaluate the checkpoints that they train",
            hint='pass --set evaluation.engine="student"',
        )
    if not variants:
        raise ConfigError(
            f"recipe {recipe.name} has no ablations",
            hint="add [ablations.variants.NAME] with the phases or data that it changes",
        )
    for name in only:
        if name not in variants:
            raise ConfigError(
                f"recipe {recipe.name} has no ablation {name!r}",
                hint=f"use one of {', '.join(variants)}",
            )
    phases = tuple(sorted(settings.curriculum.phases))
    arms = [Arm(name=FULL, title="full recipe", matching="none", phases=phases, data={})]
    for name, variant in variants.items():
        if only and name not in only:
            continue
        chosen: AblationData = variant.resolve(matching)
        arm = Arm(
            name=name,
            title=variant.title or name.replace("-", " "),
            matching=matching,
            phases=chosen.phases or phases,
            data=chosen.data,
        )
        if matching != "none" and arm.phases != phases:
            raise ConfigError(
                f"ablation {name} trains phase {', '.join(arm.phases)} only: its {matching} cannot "
                f"match those of phases {', '.join(phases)}",
                hint=f"say in [ablations.variants.{name}.matched] what fills the other phase",
            )
        arms.append(arm)
    return arms


def seed_recipe(recipe: Recipe, seed: int) -> Recipe:
    """The recipe of one seed; 0 is the recipe itself."""
    if seed == 0:
        return recipe
    settings = recipe.settings
    orders = {phase.order for phase in settings.curriculum.phases.values()}
    training = {"seed": settings.training.seed + seed}
    evaluation = {"seed": settings.evaluation.seed + seed}
    # An order that means something, e.g. easy to hard, stays.
    order = {"order": "shuffled"} if orders == {"shuffled"} else {}
    return _change(recipe, training={**training, **order}, evaluation=evaluation)


def set_steps(recipe: Recipe, steps: Mapping[str, int]) -> Recipe:
    """The recipe with this many optimiser steps in some phases."""
    phases = dict(recipe.settings.training.phases)
    for phase, number in steps.items():
        phases[phase] = phases[phase].model_copy(update={"max_steps": number})
    return _change(recipe, training={"phases": phases}, evaluation={})


def _change(
    recipe: Recipe, *, training: Mapping[str, object], evaluation: Mapping[str, object]
) -> Recipe:
    settings = recipe.settings
    changed = settings.model_copy(
        update={
            "training": settings.training.model_copy(update=training),
            "evaluation": settings.evaluation.model_copy(update=evaluation),
        }
    )
    return replace(recipe, settings=changed)


def build_datasets(recipe: Recipe, arm: Arm, out: Path) -> dict[str, Version]:
    """An arm's datasets by phase, built where they are missing.

    Raises:
        PipelineError: See :func:`curriculum.build.build_phase`.
    """
    return {phase: build_phase(recipe, phase, out, arm.data.get(phase)) for phase in arm.phases}


def find_dataset(
    recipe: Recipe, phase: str, out: Path, variant: str | None
) -> tuple[Version | None, str]:
    """A dataset that exists already, or why there is none; nothing is built."""
    try:
        if awaits_synthesis(recipe, phase, out, variant):
            return None, "its synthesis has not been run yet"
        stage = make_plan(recipe, phase, out, variant=variant, may_synthesize=False).stage
    except PipelineError as exc:
        return None, str(exc)
    folder = stage.root / stage.version
    if not (folder / MANIFEST).is_file():
        return None, "its dataset is not built yet"
    return load_version(folder), ""


def plan_arm(
    recipe: Recipe, arm: Arm, datasets: Mapping[str, Version], full: Mapping[str, PhasePlan]
) -> dict[str, PhasePlan]:
    """Rows, steps and tokens of an arm's phases.

    A phase on the same dataset as the recipe's is left as it is: it matches, and its checkpoint is
    the same one.

    Args:
        recipe: Any seed's; durations do not depend on it.
        arm: The variant.
        datasets: Versions of its phases; a missing one leaves its phase unknown.
        full: The recipe's own plans, which matching aims at; empty for the recipe itself.
    """
    plans = {}
    for phase in arm.phases:
        version, aim = datasets.get(phase), full.get(phase)
        if version is None:
            plans[phase] = PhasePlan(phase=phase, dataset=None, max_steps=None)
            continue
        max_steps = None
        if arm.matching != "none" and aim is not None and aim.dataset is not None:
            is_same = aim.dataset.name == version.name
            max_steps = None if is_same else _match(recipe, version, aim, arm.matching)
        counts = count_phase(recipe, version, phase, max_steps)
        plans[phase] = PhasePlan(
            phase=phase,
            dataset=version,
            max_steps=max_steps,
            num_rows=counts.num_rows,
            num_steps=counts.num_steps,
            num_tokens=sum(counts.step_tokens),
        )
    return plans


def count_phase(recipe: Recipe, version: Version, phase: str, max_steps: int | None) -> Counts:
    """Figures of a phase's training from the token counts of its dataset; nothing is written.

    Raises:
        ConfigError: The recipe trains no such phase.
    """
    training = recipe.settings.training
    if phase not in training.phases:
        raise ConfigError(
            f"recipe {recipe.name}: no [training.phases.{phase}]", hint="add that section"
        )
    settings: PhaseTraining = training.phases[phase]
    if max_steps is not None:
        settings = settings.model_copy(update={"max_steps": max_steps})
    # Processes share the rows of a step and change neither steps nor tokens.
    return plan_data(version, data_settings(settings, training, num_processes=1))


def _match(recipe: Recipe, version: Version, aim: PhasePlan, matching: Matching) -> int:
    """Steps on this dataset that match the recipe's phase."""
    if matching == "steps":
        return aim.num_steps
    counts = count_phase(recipe, version, aim.phase, None)
    mean = sum(counts.step_tokens) / counts.num_steps
    most = max(1, ceil(1.5 * aim.num_tokens / mean) + 1)
    totals = list(accumulate(count_phase(recipe, version, aim.phase, most).step_tokens))
    nearest = min(range(len(totals)), key=lambda step: abs(totals[step] - aim.num_tokens))
    return nearest + 1
