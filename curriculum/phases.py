"""A phase version from its sources, in two passes over the rows and bounded memory.

Pass one judges each row alone and stores verdicts (:mod:`curriculum.surveying`); survivors are
chosen and ordered from hashes and counts (:mod:`curriculum.selection`); pass two streams the
sources again, scatters chosen rows by shard and writes shard after shard
(:mod:`curriculum.writing`). Each batch of either pass is a file of its own, so that a kill loses at
most one batch and the same bytes come out.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

from curriculum.cards import write_documents
from curriculum.figures import describe_phase
from curriculum.planning import Plan, make_plan
from curriculum.selection import select_rows
from curriculum.surveying import Survey, survey_sources
from curriculum.writing import PhaseWriter
from pipeline import console
from pipeline.errors import TooManyRejected
from pipeline.manifest import MANIFEST, Version, load_version, mark_latest
from pipeline.run_folder import append_log, prepare_run_folder
from pipeline.settings.recipe import Recipe
from pipeline.stages import run_stage
from pipeline.store import exclusive_lock, explain_disk_errors, read_rows


def build_version(recipe: Recipe, phase: str, out: Path) -> Version:
    """Build one phase's dataset version, or return it when it exists.

    Raises:
        PipelineError: See :func:`curriculum.build.build_phase`.
    """
    plan = make_plan(recipe, phase, out)
    prepare_run_folder(recipe, out)
    final = plan.stage.root / plan.stage.version
    if (final / MANIFEST).is_file():
        shutil.rmtree(plan.work, ignore_errors=True)
        mark_latest(plan.stage.root, plan.stage.version)
        return Version(folder=final, manifest=load_version(final).manifest, reused=True)
    lock = plan.stage.root / f".lock-build-{plan.stage.version}"
    with exclusive_lock(lock, f"phase {phase}"), explain_disk_errors(plan.work):
        version = _build(plan)
        shutil.rmtree(plan.work)
    append_log(out, "curriculum", {"phase": phase, "version": version.name})
    return version


def _build(plan: Plan) -> Version:
    index = plan.benchmark_index()
    if plan.recipe.settings.curriculum.decontamination.enabled and not len(index):
        console.warn("the recipe lists no [[benchmarks]]: nothing is decontaminated against")
    judges = plan.judges(index)
    console.say(f"phase {plan.phase}: checking rows of {_names(plan)}")
    survey = survey_sources(plan, judges)
    selection = select_rows(plan, survey.survivors)
    if len(selection.rows) < max(1, plan.stage.min_rows):
        _refuse_empty(plan, survey)
    writer = PhaseWriter(plan, survey, selection)
    writer.scatter(judges)
    return run_stage(
        plan.stage,
        writer.batches(),
        writer.process,
        card=write_documents,
        extra=lambda _: describe_phase(plan, survey, selection, index),
    )


def _names(plan: Plan) -> str:
    return ", ".join(source.name for source in plan.sources)


def _refuse_empty(plan: Plan, survey: Survey) -> None:
    """Stop before anything is written.

    Raises:
        TooManyRejected: Always; names the most frequent reasons.
    """
    reasons: Counter[str] = Counter()
    rows_in = 0
    for batch in survey.batches:
        rows_in += batch.num_rows
        for row in read_rows(batch.path, ["stage", "reason"]):
            if row["reason"]:
                reasons[f"{row['stage']}: {row['reason']}"] += 1
    top = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(4))
    shutil.rmtree(plan.work)
    raise TooManyRejected(
        f"phase {plan.phase} accepted fewer than {max(1, plan.stage.min_rows)} of {rows_in} rows "
        f"of {_names(plan)}; rejected: {top or 'nothing came in'}",
        hint="look at the reasons above (`python -m curriculum ingest` shows each row's), give it "
        "better input, or relax the gate in the recipe",
    )
