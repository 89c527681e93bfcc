"""The whole of PromptCoT synthesis, or one stage of it; finished stages are reused.

Output: one version per stage under ``<out>/synthesis/<stage>``; the last one is what the
curriculum reads. Command: ``python -m promptcot run``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from pipeline import console
from pipeline.hashing import file_sha256
from pipeline.manifest import InputRef, Manifest, Version
from pipeline.records import ConceptCombination
from pipeline.run_folder import prepare_run_folder
from pipeline.settings.base import determining
from pipeline.settings.recipe import Recipe
from pipeline.stages import Batch, BatchResult, run_stage, split_batches
from promptcot.bank import Bank, build_bank, load_bank
from promptcot.cards import render_card
from promptcot.judging import run_judging
from promptcot.problems import run_problems
from promptcot.run_context import SynthesisRun
from promptcot.sampling import draw_combinations
from promptcot.solutions import run_solutions
from promptcot.stage_names import STAGES
from promptcot.verify import run_verification

__all__ = ["STAGES", "run_one_stage", "show_summary", "synthesize"]

StageFunction = Callable[[SynthesisRun, Version], Version]

_FOLLOWING: dict[str, StageFunction] = {
    "problems": run_problems,
    "judged": run_judging,
    "solutions": run_solutions,
    "verified": run_verification,
}


def synthesize(recipe: Recipe, out: Path) -> Version:
    """Run every stage that is missing; return the version of verified traces.

    Raises:
        SourceError: The concept bank is missing or malformed.
        TeacherError: A teacher cannot be used; finished work is kept.
        TooManyRejected: A stage accepted fewer rows than the recipe wants.
    """
    return synthesize_all(recipe, out)["verified"]


def synthesize_all(recipe: Recipe, out: Path) -> dict[str, Version]:
    """Like :func:`synthesize`, but return every stage's version, in order."""
    prepare_run_folder(recipe, out)
    versions: dict[str, Version] = {}
    with SynthesisRun(recipe, out) as run:
        version = versions["combinations"] = run_combinations(run)
        for stage, function in _FOLLOWING.items():
            version = versions[stage] = function(run, version)
    return versions


def run_one_stage(recipe: Recipe, out: Path, stage: str) -> Version:
    """Run one stage on the newest version of the stage before it.

    Raises:
        SourceError: The stage before it has not been run; the hint names its command.
    """
    with SynthesisRun(recipe, out) as run:
        before = run.previous(stage) if stage != STAGES[0] else None
        prepare_run_folder(recipe, out)
        return run_combinations(run) if before is None else _FOLLOWING[stage](run, before)


def run_combinations(run: SynthesisRun) -> Version:
    """Draw the combinations of concepts, domain and level.

    Raises:
        SourceError: The bank is missing, malformed, or lacks a domain.
        ConfigError: The bank cannot give that many distinct combinations.
    """
    settings = run.settings.combinations
    path = run.recipe.file(run.settings.bank)
    seeds = load_bank(path)
    stage = run.stage(
        "combinations",
        record=ConceptCombination,
        settings={"combinations": determining(settings)},
        inputs=[InputRef(name="bank", version=file_sha256(path))],
    )
    positions = list(range(settings.num_combinations))
    batches = split_batches(positions, run.settings.batch_size, key=str)

    @cache
    def drawn() -> list[ConceptCombination]:
        # A draw must know the ones before it to stay distinct, so all are drawn at once, and only
        # when a batch is missing.
        banks: list[Bank] = []
        if settings.math_share > 0:
            banks.append(build_bank(seeds, "math"))
        if settings.math_share < 1:
            banks.append(build_bank(seeds, "code"))
        return draw_combinations(banks, settings, root_seed=run.root_seed)

    def take(batch: Batch) -> BatchResult:
        return BatchResult(num_in=len(batch.rows), rows=[drawn()[i] for i in batch.rows])

    return run_stage(stage, batches, take, card=render_card)


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
