"""A phase version from its sources, in two stages and bounded memory.

First every source is prepared, once for all phases: what one row decides by itself, part by part
(:mod:`curriculum.preparing`). Then the phase chooses among all prepared rows by flat arrays
(:mod:`curriculum.selection`), gathers their texts and writes shard after shard
(:mod:`curriculum.writing`). Each part and each shard is a file of its own, so a kill loses what is
in flight and the same bytes come out.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from curriculum.cards import write_documents
from curriculum.figures import describe_phase
from curriculum.planning import Plan, make_plan
from curriculum.preparation import use_lock
from curriculum.prepared import PreparedSource
from curriculum.preparing import REMEDY, find_prepared, index_benchmarks, prepare_source
from curriculum.refusals import count_refused
from curriculum.reworded import JudgedPair, judge_source
from curriculum.selection import Selection, select_rows
from curriculum.writing import PhaseWriter
from pipeline import console
from pipeline.claims import claiming
from pipeline.errors import TooManyRejected
from pipeline.events import recording
from pipeline.executors import Executor, open_executor
from pipeline.manifest import MANIFEST, Version, mark_latest
from pipeline.run_folder import SAVED_RECIPE, prepare_run_folder
from pipeline.settings.recipe import Recipe
from pipeline.stages import run_stage, tell_reused
from pipeline.store import shared_lock


def build_version(recipe: Recipe, phase: str, out: Path, variant: str | None = None) -> Version:
    """Build one phase's dataset version, or return it when it exists.

    Raises:
        PipelineError: See :func:`curriculum.build.build_phase`.
    """
    plan = make_plan(recipe, phase, out, variant=variant)
    with (
        # Variants are built side by side.
        claiming(out, [f"data-{phase}"] if variant is None else []),
        recording(out, recipe.settings.events, f"dataset of phase {phase}"),
        # Nothing is collected between finding a preparation and publishing what names it.
        shared_lock(use_lock(out), "this run folder"),
    ):
        prepare_run_folder(recipe, out)
        return _find_or_build(plan)


def _find_or_build(plan: Plan) -> Version:
    final = plan.stage.root / plan.stage.version
    if (final / MANIFEST).is_file():
        mark_latest(plan.stage.root, plan.stage.version)
        return tell_reused(plan.stage)
    prepared = prepare_all(plan)
    reworded = {
        name: judge_source(judging, prepared[name]) for name, judging in plan.judgings.items()
    }
    return _build(plan, prepared, reworded)


def prepare_all(plan: Plan) -> dict[str, PreparedSource]:
    """Every source of a plan, prepared; by name.

    Raises:
        SourceError: A source cannot be read as documented.
        StoreError: The disk is full, or another process prepares the same source.
    """
    found = {p.source.name: find_prepared(p) for p in plan.preparations}
    missing = [p for p in plan.preparations if found[p.source.name] is None]
    if missing:
        decontamination = plan.recipe.settings.curriculum.decontamination
        if decontamination.enabled and not plan.recipe.settings.benchmarks:
            console.warn("the recipe lists no [[benchmarks]]: nothing is decontaminated against")
        index_benchmarks(plan.recipe)
        with _open_executor(plan) as executor:
            for preparation in missing:
                found[preparation.source.name] = prepare_source(preparation, executor)
    return {name: source for name, source in found.items() if source is not None}


def _build(
    plan: Plan, prepared: dict[str, PreparedSource], reworded: dict[str, list[JudgedPair]]
) -> Version:
    _require_rows(plan, prepared, None)
    # The pool of preparation has ended: its memory is free before the arrays are read.
    selection = select_rows(
        plan.recipe.settings,
        prepared,
        phase=plan.phase,
        variant=plan.variant,
        reworded=reworded,
    )
    _require_rows(plan, prepared, selection)
    with _open_executor(plan) as executor:
        return _write(plan, selection, executor)


def _open_executor(plan: Plan) -> AbstractContextManager[Executor]:
    settings = plan.recipe.settings
    # Workers write into the run folder; what was saved there first shows whether they see it.
    return open_executor(
        settings.execution,
        settings.curriculum.num_workers,
        remedy=REMEDY,
        shared=plan.out / SAVED_RECIPE,
    )


def _write(plan: Plan, selection: Selection, executor: Executor) -> Version:
    shard_rows = plan.recipe.settings.curriculum.shard_rows
    writer = PhaseWriter(plan.stage, selection, executor, shard_rows=shard_rows)
    return run_stage(
        replace(plan.stage, cancel=executor.cancel),
        writer.batches(),
        writer.process,
        card=write_documents,
        extra=lambda _: describe_phase(plan, selection),
    )


def _require_rows(
    plan: Plan, prepared: dict[str, PreparedSource], selection: Selection | None
) -> None:
    """Stop before anything is written.

    Raises:
        TooManyRejected: Fewer rows than the phase wants; names the most frequent reasons.
    """
    own = [prepared[entry.source].manifest for entry in plan.settings.sources]
    num_rows = sum(m.rows_out for m in own) if selection is None else selection.num_rows
    least = max(1, plan.stage.min_rows) if selection is not None else 1
    if num_rows >= least:
        return
    reasons: Counter[str] = Counter()
    for manifest in own:
        for stage, counts in manifest.rejected.items():
            reasons.update({f"{stage}: {reason}": count for reason, count in counts.items()})
    if selection is not None:
        reasons.update(count_refused(selection))
    top = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(4))
    names = ", ".join(entry.source for entry in plan.settings.sources)
    raise TooManyRejected(
        f"phase {plan.phase} accepted fewer than {max(1, plan.stage.min_rows)} of "
        f"{sum(m.rows_in for m in own)} rows of {names}; rejected: {top or 'nothing came in'}",
        hint="look at the reasons above (`python -m curriculum ingest` shows each row's), give it "
        "better input, or relax the gate in the recipe",
    )
