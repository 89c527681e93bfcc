"""Which of the method's gates a recipe relaxes, said in plain words.

The defaults of the settings are the paper's; a recipe for a small machine may lower them, and
everything that shows a run's numbers shows this list beside them.
"""

from __future__ import annotations

from pipeline.settings.curriculum import CurriculumSettings, DecontaminationSettings
from pipeline.settings.recipe import RecipeSettings
from pipeline.settings.synthesis import SynthesisSettings

_VERDICTS = ("bad", "acceptable", "perfect")


def relaxed_gates(settings: RecipeSettings) -> list[str]:
    """One sentence per gate that is looser than the method's; empty when none is.

    Args:
        settings: The recipe's resolved settings.
    """
    return [
        *_relaxed_judging(settings.synthesis),
        *_relaxed_solutions(settings.synthesis),
        *_relaxed_verification(settings.synthesis),
        *_relaxed_curriculum(settings.curriculum),
    ]


def _relaxed_judging(synthesis: SynthesisSettings) -> list[str]:
    judging, normal = synthesis.judging, SynthesisSettings().judging
    gates = []
    if _VERDICTS.index(judging.minimum_verdict) < _VERDICTS.index(normal.minimum_verdict):
        gates.append(
            f"Problems are kept from the verdict “{judging.minimum_verdict}” upwards; the method "
            f"keeps only “{normal.minimum_verdict}” ones."
        )
    if judging.aggregation != normal.aggregation:
        gates.append(
            "One “perfect” vote is enough unless another vote is “bad”; the method wants every "
            "vote to agree."
        )
    return gates


def _relaxed_solutions(synthesis: SynthesisSettings) -> list[str]:
    samples, normal = synthesis.solutions.samples_per_problem, SynthesisSettings().solutions
    if samples >= normal.samples_per_problem:
        return []
    return [
        f"Each problem is solved {_times(samples)}; the method solves it "
        f"{_times(normal.samples_per_problem)}, so that answers can be compared."
    ]


def _relaxed_verification(synthesis: SynthesisSettings) -> list[str]:
    rules, normal = synthesis.verification, SynthesisSettings().verification
    gates = []
    if rules.keep_unverified and not normal.keep_unverified:
        gates.append(
            "Solutions that neither a majority nor a test confirmed are kept, marked as "
            "“unverified”; the method drops them."
        )
    if rules.minimum_agreement < normal.minimum_agreement:
        gates.append(
            f"A mathematical answer needs the agreement of {rules.minimum_agreement:.0%} of the "
            f"samples; the method needs {normal.minimum_agreement:.0%}."
        )
    if rules.minimum_votes < normal.minimum_votes:
        gates.append(
            f"A majority may consist of {rules.minimum_votes} sample(s); the method needs at "
            f"least {normal.minimum_votes}."
        )
    if rules.code_tests < normal.code_tests:
        gates.append(
            f"A program is checked with {rules.code_tests} test(s); the method uses "
            f"{normal.code_tests}."
        )
    return gates


def _relaxed_curriculum(curriculum: CurriculumSettings) -> list[str]:
    rules, normal = curriculum.decontamination, DecontaminationSettings()
    gates = []
    if not rules.enabled:
        gates.append("Training rows are not compared with the benchmarks.")
    elif rules.min_coverage > normal.min_coverage or rules.min_ratio > normal.min_ratio:
        gates.append("Training rows must resemble a benchmark item more than usual to be removed.")
    if not curriculum.deduplicate:
        gates.append("Repeated rows are kept.")
    return gates


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
