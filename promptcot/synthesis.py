"""The whole of PromptCoT synthesis, or one stage of it; finished stages are reused.

Output: one version per stage under ``<out>/synthesis/<stage>``; the last one is what the
curriculum reads. Command: ``python -m promptcot run``. Each stage's module is imported when its
turn comes, so that naming stages costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import cast

from pipeline import console
from pipeline.claims import claiming
from pipeline.errors import ConfigError
from pipeline.events import recording
from pipeline.manifest import Manifest, Version
from pipeline.run_folder import prepare_run_folder
from pipeline.settings.recipe import Recipe
from promptcot.run_context import SynthesisRun
from promptcot.stage_names import BANK, EXTRACTED, SEED_STAGES, STAGES

__all__ = ["STAGES", "chain_of", "run_one_stage", "show_summary", "synthesize", "synthesize_all"]

_FUNCTIONS = {
    EXTRACTED: "promptcot.extraction:run_extraction",
    BANK: "promptcot.concepts:run_concepts",
    "combinations": "promptcot.combinations:run_combinations",
    "problems": "promptcot.problems:run_problems",
    "distinct": "promptcot.distinct:run_distinct",
    "judged": "promptcot.judging:run_judging",
    "solutions": "promptcot.solutions:run_solutions",
    "verified": "promptcot.verify:run_verification",
}
_PART = "synthesis"
"""What a run of the chain, or of one stage of it, has to itself (``pipeline.claims``)."""
_FIRST = (*SEED_STAGES, STAGES[0])
"""Stages that find what they work on by themselves: the recipe's files, or the bank."""


def chain_of(recipe: Recipe) -> tuple[str, ...]:
    """The stages of a recipe, in order: with its own bank where it names seed problems."""
    return (*SEED_STAGES, *STAGES) if recipe.settings.synthesis.seeds else STAGES


def synthesize(recipe: Recipe, out: Path) -> Version:
    """Run every stage that is missing; return the version of verified traces.

    Raises:
        SourceError: The concept bank or a seed file is missing or malformed.
        TeacherError: A teacher cannot be used, or the budget is spent; finished work is kept.
        TooManyRejected: A stage accepted fewer rows than the recipe wants.
    """
    return synthesize_all(recipe, out)["verified"]


def synthesize_all(recipe: Recipe, out: Path) -> dict[str, Version]:
    """Like :func:`synthesize`, but return every stage's version, in order."""
    with (
        claiming(out, [_PART]),
        recording(out, recipe.settings.events, "synthesis"),
        SynthesisRun(recipe, out) as run,
    ):
        prepare_run_folder(recipe, out)
        return run_chain(run)


def run_chain(run: SynthesisRun) -> dict[str, Version]:
    """Every stage of an open run, in order."""
    _check_late_stages(run)
    return dict(_each_stage(run))


def _check_late_stages(run: SynthesisRun) -> None:
    """Say first what would be found late, after much is paid for.

    Raises:
        SourceError: A benchmark or a calibration file is missing or malformed.
        GateRefused: A benchmark is not the one that the recipe was written for.
        ConfigError: A judge's template is wrong, or no sampling is known for the solver.
    """
    from pipeline.benchmarks import benchmark_inputs
    from promptcot.judging import check_judging
    from promptcot.solutions import sampling_of

    check_judging(run.recipe)
    sampling_of(run)
    distinct = run.settings.distinct
    if distinct.enabled and distinct.decontaminate:
        benchmark_inputs(run.recipe)


def _each_stage(run: SynthesisRun) -> Iterator[tuple[str, Version]]:
    before: Version | None = None
    for stage in chain_of(run.recipe):
        before = _run(run, stage, None if stage in _FIRST else before)
        yield stage, before


def run_one_stage(recipe: Recipe, out: Path, stage: str) -> Version:
    """Run one stage on the newest version of the stage before it.

    Raises:
        SourceError: The stage before it has not been run; the hint names its command.
        ConfigError: The bank is asked for and the recipe names no seed problems.
    """
    if stage == BANK and not recipe.settings.synthesis.seeds:
        raise ConfigError(
            f"recipe {recipe.name} names no seed problems to take concepts from; its bank is the "
            f"file {recipe.file(recipe.settings.synthesis.bank)}",
            hint="give a file of problems: `python -m promptcot concepts --seeds FILE` (JSON, "
            "JSONL or Parquet, with a column of problems), or write [[synthesis.seeds]] into the "
            "recipe",
        )
    with SynthesisRun(recipe, out) as run:
        before = None if stage in _FIRST else run.previous(stage)
        with (
            claiming(out, [_PART]),
            recording(out, recipe.settings.events, f"synthesis stage {stage}"),
        ):
            prepare_run_folder(recipe, out)
            return _run(run, stage, before)


def _run(run: SynthesisRun, stage: str, before: Version | None) -> Version:
    module, name = _FUNCTIONS[stage].split(":")
    function = cast(Callable[..., Version], getattr(import_module(module), name))
    return function(run) if before is None else function(run, before)


def show_summary(versions: dict[str, Version]) -> None:
    """Print rows in, out and rejected per stage, with the most frequent reasons."""
    console.table(
        "Synthesis",
        ("stage", "in", "out", "rejected", "most frequent reasons", ""),
        [
            (
                stage,
                version.manifest.rows_in,
                version.manifest.rows_out,
                version.manifest.rows_rejected,
                top_reasons(version.manifest),
                "reused" if version.reused else "",
            )
            for stage, version in versions.items()
        ],
    )


def top_reasons(manifest: Manifest, count: int = 4) -> str:
    """The most frequent rejection reasons with their counts."""
    reasons = [item for counts in manifest.rejected.values() for item in counts.items()]
    ordered = sorted(reasons, key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {number}" for reason, number in ordered[:count])
