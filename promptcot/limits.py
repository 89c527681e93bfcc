"""What rows of a given teacher can and cannot be good for, in plain words."""

from __future__ import annotations

from pipeline.settings.recipe import RecipeSettings


def asked_teachers(settings: RecipeSettings) -> list[str]:
    """Names of the teachers that the chain asks, sorted."""
    synthesis = settings.synthesis
    asked = {synthesis.problems.teacher, synthesis.solutions.teacher}
    asked |= {judge.teacher for judge in synthesis.judging.judges}
    if synthesis.seeds:
        asked.add(synthesis.concepts.teacher)
    return sorted(asked)


def teacher_limits(settings: RecipeSettings) -> list[str]:
    """One sentence for each kind of teacher whose rows are no training data; empty for others."""
    engines = {settings.teachers[name].engine for name in asked_teachers(settings)}
    limits = []
    if "embedded" in engines:
        limits.append(
            "The teacher is a 135M-parameter language model that fits into a pip package. It "
            "proves that every joint of the pipeline works; the problems and solutions it writes "
            "are not worth training a real model on."
        )
    if "scripted" in engines:
        limits.append(
            "The teacher's answers were read from a script. No model wrote the synthesised rows."
        )
    return limits
