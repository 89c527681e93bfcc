"""How to make a run again: its commands, its overrides and the versions it left."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.report_data import PHASES, RunFacts
from pipeline.manifest import Version
from pipeline.settings.overrides import list_overrides
from pipeline.settings.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Artifact:
    """One thing a run left on disk, named without the machine's paths."""

    name: str
    path: str
    """Relative to the run folder."""
    made_from: str
    code_version: str


def list_commands(recipe: Recipe) -> list[str]:
    """The commands that make this run, in order."""
    options = " ".join(["--recipe", _recipe_name(recipe), *find_overrides(recipe)])
    commands = ["python -m promptcot run"]
    commands += [f"python -m curriculum.build --phase {phase}" for phase in PHASES]
    commands += [f"python -m trainer.sft --phase {phase}" for phase in PHASES]
    commands += ["python -m evaluation run", "python -m evaluation report"]
    return [f"{command} {options}" for command in commands]


def _recipe_name(recipe: Recipe) -> str:
    return recipe.path.stem if recipe.is_bundled else recipe.path.name


def find_overrides(recipe: Recipe) -> list[str]:
    """``--set`` options that lead from the recipe's file to the settings of this run."""
    return [f"--set '{change}'" for change in list_overrides(recipe)]


def list_artifacts(facts: RunFacts) -> list[Artifact]:
    """Versions and checkpoints, in the order of the data."""
    artifacts = [
        _version_artifact(stage, f"synthesis/{stage}", version)
        for stage, version in facts.synthesis.items()
    ]
    artifacts += [
        _version_artifact(f"phase {phase} dataset", f"datasets/phase-{phase}", found.version)
        for phase, found in facts.phases.items()
    ]
    artifacts += [
        Artifact(
            name=f"SFT phase {phase}",
            path=f"checkpoints/phase-{phase}",
            made_from=f"phase {phase} dataset {training.record.dataset_version}",
            code_version=training.record.code_version,
        )
        for phase, training in facts.training.items()
    ]
    artifacts += [
        _version_artifact(f"evaluation of {entry.name}", f"evaluation/{entry.name}", entry.version)
        for entry in facts.evaluations
    ]
    return artifacts


def _version_artifact(name: str, folder: str, version: Version) -> Artifact:
    inputs = [f"{ref.name} {ref.version[:16]}" for ref in version.manifest.inputs]
    return Artifact(
        name=name,
        path=f"{folder}/{version.name}",
        made_from=", ".join(inputs),
        code_version=version.manifest.code_version,
    )
