"""Judge problems by five criteria and keep those that reach the verdict the recipe asks for.

Every judge of the recipe is asked for its votes on every problem, all judges at the same time. One
vote that cannot be read refuses the problem. What the judges said about all problems, the refused
ones too, is in the manifest with their agreement. Command: ``python -m promptcot judge``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pipeline.hashing import file_sha256
from pipeline.manifest import MANIFEST, InputRef, Version
from pipeline.records import JudgedProblem, Judgement, Problem, Rejected
from pipeline.settings.base import determining
from pipeline.settings.judging import JudgingSettings
from pipeline.settings.recipe import Recipe
from pipeline.stages import Batch, BatchResult, Stage, run_stage
from promptcot.calibration import check_reach, pass_gate, read_labels
from promptcot.cards import render_card
from promptcot.judge_prompts import prompt_inputs
from promptcot.panel import Opinion, Panel
from promptcot.panel_counts import count_opinions, summarise_opinions
from promptcot.parsing import Defect
from promptcot.run_context import SynthesisRun, input_of

STAGE = "judged"


def run_judging(run: SynthesisRun, problems: Version) -> Version:
    """Ask every judge for its votes on every problem; keep by the aggregation rule.

    With a calibration file the judges are scored on it first.

    Raises:
        ConfigError: A judge's template lacks a place or has an unknown one, or the calibration
            file is too small for the precision asked for.
        GateRefused: The judges are not precise enough on the calibration file.
        SourceError: The calibration file is missing or malformed.
        TooManyRejected: Too few problems passed.
        TeacherError: A judge cannot be used.
    """
    settings = run.settings.judging
    check_judging(run.recipe)
    panel = Panel(run, STAGE)
    stage = run.stage(
        STAGE,
        record=JudgedProblem,
        settings={"judging": _determining(settings)},
        inputs=[input_of(problems, "distinct"), *_inputs(run.recipe)],
        teachers=[judge.teacher for judge in settings.judges],
    )
    figures: dict[str, Any] = {}
    if settings.calibration is not None and not _is_done(stage):
        # Before any problem of the run is paid for; the answers are stored, so only once.
        labels = run.recipe.file(settings.calibration)
        figures["calibration"] = pass_gate(run, labels)
    return run_stage(
        stage,
        run.stream(problems, Problem, key=lambda row: row.id),
        partial(_judge_batch, panel),
        card=render_card,
        extra=lambda counts: {"agreement": summarise_opinions(counts, settings), **figures},
    )


def check_judging(recipe: Recipe) -> None:
    """Find what is wrong with the judges' files before anything is paid for.

    Raises:
        ConfigError: A template lacks a place or has an unknown one, or too few problems are
            labelled for the precision asked for.
        SourceError: The calibration file is missing or malformed.
    """
    settings = recipe.settings.synthesis.judging
    prompt_inputs(settings.judges, recipe)
    if settings.calibration is not None:
        path = recipe.file(settings.calibration)
        check_reach(read_labels(path), path, settings)


def _inputs(recipe: Recipe) -> list[InputRef]:
    settings = recipe.settings.synthesis.judging
    inputs = prompt_inputs(settings.judges, recipe)
    if settings.calibration is not None:
        version = file_sha256(recipe.file(settings.calibration))
        inputs.append(InputRef(name="calibration", version=version))
    return inputs


def _determining(settings: JudgingSettings) -> dict[str, Any]:
    """The settings without paths: files are inputs, named by their content."""
    values = determining(settings)
    values.pop("calibration")
    for judge in values["judges"]:
        judge.pop("prompt")
    return values


def _is_done(stage: Stage) -> bool:
    return (stage.root / stage.version / MANIFEST).is_file()


def _judge_batch(panel: Panel, batch: Batch) -> BatchResult:
    opinions, tokens = panel.ask(batch.rows, sequential=panel.settings.sequential)
    kept: list[JudgedProblem] = []
    rejected: list[Rejected] = []
    for row, opinion in zip(batch.rows, opinions, strict=True):
        if (defect := opinion.defect) is not None:
            rejected.append(
                Rejected(row_id=row.id, stage=STAGE, reason=defect.reason, detail=defect.detail)
            )
        else:
            kept.append(JudgedProblem(problem=row, judgements=_judgements(row, opinion)))
    return BatchResult(
        num_in=len(batch.rows),
        rows=kept,
        rejected=rejected,
        tokens=tokens,
        counts=count_opinions(opinions, panel.settings),
    )


def _judgements(row: Problem, opinion: Opinion) -> list[Judgement]:
    judgements = []
    for vote in opinion.votes:
        ratings = vote.ratings
        if isinstance(ratings, Defect):
            raise RuntimeError(f"problem {row.id} was kept with an unreadable vote")
        judgements.append(
            Judgement(
                problem_id=row.id,
                judge=vote.judge,
                verdict=ratings.verdict,
                stated_verdict=ratings.stated,
                reasons=list(ratings.reasons),
                model=vote.model,
                vote=vote.number,
                prompt_hash=vote.prompt_hash,
                seed=vote.seed,
                **ratings.by_field,
            )
        )
    return judgements
