"""A phase version from its sources, in two passes over the rows and bounded memory.

Pass one judges each row alone and stores verdicts (:mod:`curriculum.survey`); survivors are chosen
and ordered from hashes and counts; pass two streams the sources again, scatters surviving rows by
the shard they belong to and writes shard after shard. Each batch of either pass is a file of its
own, so that a kill loses at most one batch and the same bytes come out.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curriculum import cards
from curriculum.passes import Batches, scatter_rows, survey_sources
from curriculum.planning import Plan, make_plan
from curriculum.selection import Selection, select_rows
from curriculum.writing import process_work, work_batches
from pipeline import console
from pipeline.errors import LicenceRefused
from pipeline.manifest import MANIFEST, Manifest, Version
from pipeline.run_folder import append_log, prepare_run_folder
from pipeline.settings.recipe import Recipe
from pipeline.stages import run_stage
from pipeline.store import exclusive_lock, explain_disk_errors


def build_phase(recipe: Recipe, phase: str, out: Path) -> Version:
    """Build one phase's dataset version, or return it when it exists.

    Args:
        recipe: The experiment.
        phase: ``1`` or ``2``.
        out: Run folder; the version goes to ``datasets/phase-<phase>/<version>``.

    Raises:
        ConfigError: The recipe has no such phase.
        SourceError: An input is missing or malformed.
        LicenceRefused: A row's licence is not among the phase's.
        TooManyRejected: Too few rows were accepted.
        StoreError: The disk is full, or another process builds this version.
    """
    plan = make_plan(recipe, phase, out)
    prepare_run_folder(recipe, out)
    if (plan.stage.root / plan.stage.version / MANIFEST).is_file():
        return run_stage(plan.stage, [], process_work_of_nothing)
    lock = plan.stage.root / f".lock-build-{plan.stage.version}"
    with exclusive_lock(lock, f"phase {phase}"), explain_disk_errors(plan.work):
        version = _build(plan)
        shutil.rmtree(plan.work)
    append_log(out, "curriculum", {"phase": phase, "version": version.name})
    return version
