"""The verified traces of this run's own synthesis, as a source of the curriculum."""

from __future__ import annotations

from pathlib import Path

from curriculum.candidates import Candidate, Origin, make_row_id
from curriculum.sources.parts import RawRow
from curriculum.texts import to_utf8
from pipeline.errors import SourceError
from pipeline.manifest import LATEST, Version, resolve_version
from pipeline.records import VerifiedTrace
from pipeline.settings.recipe import Recipe
from pipeline.settings.sources import SourceSettings
from pipeline.student import assistant_turn


def find_version(recipe: Recipe, out: Path, *, may_synthesize: bool) -> Version:
    """The newest version of verified traces; made first where the recipe says so.

    Raises:
        SourceError: There is none and the recipe does not allow making it here.
    """
    root = out / "synthesis" / "verified"
    if (root / LATEST).is_file():
        return resolve_version(root)
    if not (may_synthesize and recipe.settings.curriculum.synthesize_if_missing):
        raise SourceError(
            f"no verified traces under {root}",
            hint=f"run `python -m promptcot run --recipe {recipe.path} --out {out}` first",
        )
    from pipeline import console
    from promptcot.synthesis import synthesize

    console.say(
        "There are no verified traces yet, and the recipe sets curriculum.synthesize_if_missing: "
        "running synthesis first."
    )
    version: Version = synthesize(recipe, out)
    return version


def parse_row(raw: RawRow, source: SourceSettings) -> Candidate:
    """Understand one verified trace.

    Its key is made of what is trained on, the statement, the reasoning and the answer, so that it
    stays the same when only provenance changed.
    """
    trace = VerifiedTrace.model_validate(raw.values)
    solution, problem = trace.solution, trace.solution.problem
    response = to_utf8(assistant_turn(solution.thinking, solution.answer))
    return Candidate(
        row_id=make_row_id("synthesized", problem.statement, response),
        source=source.name,
        source_revision=raw.revision,
        source_id=solution.id,
        question=problem.statement,
        user_text=problem.statement,
        response=response,
        licence=source.licence,
        domain=problem.domain,
        difficulty=problem.level,
        provenance=Origin(
            teacher=solution.teacher,
            source_file=raw.file,
            source_position=raw.position,
            synthesis={
                "prompt_hash": solution.prompt_hash,
                "seed": solution.seed,
                "concepts": problem.concepts,
                "level": problem.level,
                "verdicts": [f"{vote.judge}: {vote.verdict}" for vote in solution.judgements],
                "agreement": trace.agreement,
            },
        ),
        is_verified=trace.method != "unverified",
        code_rule="strict" if problem.domain == "code" else "none",
    )
