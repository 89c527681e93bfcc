"""Which gates a recipe relaxes, said in plain words and with whose gate it is.

Judging is compared with PromptCoT 1.0. Answers are compared with this project's defaults, because
1.0 checks only a solution's form. Whatever shows a run's numbers shows this list beside them.
"""

from __future__ import annotations

from pipeline.settings.curriculum import CurriculumSettings
from pipeline.settings.decontamination import DecontaminationSettings
from pipeline.settings.recipe import RecipeSettings
from pipeline.settings.synthesis import SynthesisSettings

_VERDICTS = ("bad", "acceptable", "perfect")
_PAPER_JUDGES = 2
"""Different models that judge each problem in PromptCoT 1.0."""


def relaxed_gates(settings: RecipeSettings) -> list[str]:
    """One sentence per gate that is looser than the paper's or our default; empty when none is.

    Args:
        settings: The recipe's resolved settings.
    """
    return [*relaxed_synthesis_gates(settings), *_relaxed_curriculum(settings.curriculum)]


def relaxed_synthesis_gates(settings: RecipeSettings) -> list[str]:
    """The part of :func:`relaxed_gates` that concerns synthesised rows."""
    return [
        *_relaxed_distinct(settings.synthesis),
        *_relaxed_judging(settings),
        *_relaxed_solutions(settings.synthesis),
        *_relaxed_verification(settings.synthesis),
    ]


def _relaxed_distinct(synthesis: SynthesisSettings) -> list[str]:
    rules, normal = synthesis.distinct, SynthesisSettings().distinct
    if not rules.enabled:
        return ["Problems are neither compared with each other nor with the benchmarks."]
    gates = []
    if rules.near_duplicate_jaccard > normal.near_duplicate_jaccard:
        gates.append(
            f"Two problems count as one from a similarity of {rules.near_duplicate_jaccard:g}; the "
            f"default is {normal.near_duplicate_jaccard:g}."
        )
    if not rules.decontaminate:
        gates.append("Synthesised problems are not compared with the benchmarks.")
    return gates


def _relaxed_judging(settings: RecipeSettings) -> list[str]:
    judging, normal = settings.synthesis.judging, SynthesisSettings().judging
    gates = []
    teachers = [settings.teachers[judge.teacher] for judge in judging.judges]
    # The same model under two names, or asked twice, is still one opinion.
    models = {(teacher.model, teacher.script) for teacher in teachers}
    if len(models) < _PAPER_JUDGES:
        gates.append(
            f"One model judges the problems; the paper asks {_PAPER_JUDGES} different ones and "
            "wants all to agree."
        )
    lowered = _VERDICTS.index(judging.minimum_verdict) < _VERDICTS.index(normal.minimum_verdict)
    if lowered and judging.aggregation == "unanimous":
        gates.append(
            f"Problems are kept from the verdict “{judging.minimum_verdict}” upwards; the paper "
            f"keeps only “{normal.minimum_verdict}” ones."
        )
    if judging.aggregation != normal.aggregation:
        gates.append(
            "One “perfect” vote is enough unless another vote is “bad”; the paper wants every "
            "vote to agree."
        )
    return gates


def _relaxed_solutions(synthesis: SynthesisSettings) -> list[str]:
    samples, normal = synthesis.solutions.samples_per_problem, SynthesisSettings().solutions
    if samples >= normal.samples_per_problem:
        return []
    return [
        f"Each problem is solved {_times(samples)}; the project's default is "
        f"{_times(normal.samples_per_problem)}, so that answers can be compared."
    ]


def _relaxed_verification(synthesis: SynthesisSettings) -> list[str]:
    rules, normal = synthesis.verification, SynthesisSettings().verification
    gates = []
    if rules.keep_unverified and not normal.keep_unverified:
        gates.append(
            "Solutions that neither a majority nor a test confirmed are kept, marked as "
            "“unverified”; by default they are dropped."
        )
    if rules.minimum_agreement < normal.minimum_agreement:
        gates.append(
            f"A solution needs the agreement of {rules.minimum_agreement:.0%} of the samples of "
            f"its problem; the default is {normal.minimum_agreement:.0%}."
        )
    if rules.minimum_votes < normal.minimum_votes:
        gates.append(
            f"A majority may consist of {rules.minimum_votes} sample(s); the default is at "
            f"least {normal.minimum_votes}."
        )
    if rules.code_tests < normal.code_tests:
        gates.append(
            f"A program is checked with {rules.code_tests} test(s); the default is "
            f"{normal.code_tests}."
        )
    if rules.expected_outputs != normal.expected_outputs:
        gates.append(
            "The teacher that wrote a test says what its right output is; by default most of the "
            "sampled programs must print it."
        )
    return gates


def _relaxed_curriculum(curriculum: CurriculumSettings) -> list[str]:
    rules, normal = curriculum.decontamination, DecontaminationSettings()
    gates = []
    if not rules.enabled:
        gates.append("Training rows are not compared with the benchmarks.")
    elif rules.min_coverage > normal.min_coverage or rules.min_ratio > normal.min_ratio:
        gates.append("Training rows must resemble a benchmark item more than usual to be removed.")
    if rules.enabled and not rules.find_rewordings:
        gates.append("Benchmark items told in other words are not looked for.")
    if not curriculum.deduplicate:
        gates.append("Repeated rows are kept.")
    return gates


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
