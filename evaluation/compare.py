"""Compare two evaluated checkpoints on the problems that both answered.

In: two evaluation versions. Out: per benchmark the difference B - A with an interval over problems
and a p-value, corrected by Holm for the number of benchmarks, and what stands in its way in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from evaluation.item_scores import ItemScores, read_item_scores
from evaluation.paired import Difference, compare_means, correct_holm
from pipeline.errors import SourceError
from pipeline.hashing import derive_seed
from pipeline.manifest import Version
from pipeline.settings.evaluation import EvaluationSettings

LEVEL = 0.05
"""A corrected p-value up to this is called a difference."""
SAMPLING = (
    "engine",
    "prompt_format",
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "max_new_tokens",
)
"""Settings of sampling that two evaluations should share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkComparison:
    """One benchmark's comparison; scores are shares between 0 and 1."""

    benchmark: str
    first: float
    second: float
    num_samples: tuple[int, int]
    """k of A and of B."""
    difference: Difference
    p_holm: float
    """The p-value, corrected for all benchmarks compared."""

    def as_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)

    @property
    def verdict(self) -> str:
        """What may be said, in words."""
        low, high = self.difference.interval
        reach = f"between {100 * low:+.1f} and {100 * high:+.1f} points"
        if self.p_holm <= LEVEL:
            better = "B" if self.difference.mean > 0 else "A"
            return f"{better} is better"
        return f"not told apart: {reach}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All common benchmarks of two versions."""

    benchmarks: tuple[BenchmarkComparison, ...]
    notes: tuple[str, ...]
    """What is not equal between the two beside the weights."""


def compare_versions(first: Version, second: Version, settings: EvaluationSettings) -> Comparison:
    """Compare B with A on every benchmark that both were evaluated on.

    Raises:
        SourceError: They share no benchmark, or items of the same id are other problems.
    """
    sides = read_item_scores(first), read_item_scores(second)
    common = [name for name in sides[0] if name in sides[1]]
    if not common:
        names = [", ".join(sorted(side)) for side in sides]
        raise SourceError(
            f"the evaluations share no benchmark: A has {names[0]}, B has {names[1]}",
            hint="evaluate both with the same recipe",
        )
    notes = _describe_settings(first, second)
    left_out = sorted(set(sides[0]) ^ set(sides[1]))
    if left_out:
        notes.append(f"Evaluated on one side only and left out: {', '.join(left_out)}.")
    found = []
    for name in common:
        compared, more = _compare_benchmark(name, sides[0][name], sides[1][name], settings)
        found.append(compared)
        notes += more
    corrected = correct_holm({entry.benchmark: entry.p_holm for entry in found})
    benchmarks = (replace(entry, p_holm=corrected[entry.benchmark]) for entry in found)
    return Comparison(benchmarks=tuple(benchmarks), notes=tuple(notes))


def _compare_benchmark(
    name: str, first: ItemScores, second: ItemScores, settings: EvaluationSettings
) -> tuple[BenchmarkComparison, list[str]]:
    """One benchmark, its p-value not yet corrected."""
    ids, notes = _match_items(name, first, second)
    means = [[side.items[item].mean for item in ids] for side in (first, second)]
    difference = compare_means(
        means[0],
        means[1],
        confidence=settings.confidence,
        num_resamples=settings.bootstrap_samples,
        seed=derive_seed(settings.seed, "compare", name),
    )
    compared = BenchmarkComparison(
        benchmark=name,
        first=sum(means[0]) / len(ids),
        second=sum(means[1]) / len(ids),
        num_samples=(first.num_samples, second.num_samples),
        difference=difference,
        p_holm=difference.p_value,
    )
    return compared, notes


def _match_items(name: str, first: ItemScores, second: ItemScores) -> tuple[list[str], list[str]]:
    """Ids of the common problems in A's order, and notes on what is not common."""
    ids = [item for item in first.items if item in second.items]
    if not ids:
        raise SourceError(
            f"benchmark {name}: the evaluations share no item",
            hint="evaluate both on the same file",
        )
    for item in ids:
        if first.items[item].content != second.items[item].content:
            raise SourceError(
                f"benchmark {name}: item {item} is another problem, or has another gold, in B",
                hint="evaluate both on the same file of this benchmark",
            )
    notes = []
    alone = len(first.items) + len(second.items) - 2 * len(ids)
    if alone:
        notes.append(f"{name}: {len(ids)} common items compared; {alone} of one side left out.")
    if first.num_samples != second.num_samples:
        notes.append(
            f"{name}: k is {first.num_samples} for A and {second.num_samples} for B. The means are "
            "comparable; the sign-flip test is then only approximate."
        )
    return ids, notes


def _describe_settings(first: Version, second: Version) -> list[str]:
    """Settings of sampling and decoding in which the two differ."""
    left, right = (_flatten(version.manifest.settings) for version in (first, second))
    notes = [
        f"{name} is {left.get(name)} for A and {right.get(name)} for B: the difference is not of "
        "the weights alone."
        for name in dict.fromkeys([*SAMPLING, *_decoding_names(left), *_decoding_names(right)])
        if left.get(name) != right.get(name)
    ]
    if first.manifest.code_version != second.manifest.code_version:
        notes.append("A and B were sampled and graded by different versions of the code.")
    if first.name == second.name:
        notes.append("A and B are the same version.")
    return notes


def _flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of decoding (device, precision, kernels) under names of their own."""
    decoding = {f"decoding.{name}": value for name, value in settings.get("decoding", {}).items()}
    return {**settings, **decoding}


def _decoding_names(settings: Mapping[str, Any]) -> list[str]:
    return [name for name in settings if name.startswith("decoding.")]
