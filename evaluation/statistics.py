"""Scores of a benchmark: avg@k, pass@k and majority@k, with an interval over its problems.

Samples of one problem resemble each other, so the interval resamples problems, not answers. With
30 problems it is several points wide whatever k is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from pipeline.hashing import derive_seed
from pipeline.settings.evaluation import EvaluationSettings
from promptcot.verification.math_answers import normalise_answer

FEW_ITEMS = 30
"""Below this a percentile bootstrap is rough: its coverage falls short of what it says."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What counts of one graded answer."""

    benchmark: str
    domain: str
    item_id: str
    extracted: str | None
    correct: bool
    reason: str
    truncated: bool
    num_tokens: int


def average(values: Iterable[float]) -> float:
    """Mean of at least one value."""
    numbers = list(values)
    return sum(numbers) / len(numbers)


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Chance that k of n samples hold a correct one, unbiased (Chen et al. 2021, section 2.1).

    Raises:
        ValueError: k is not between 1 and the number of samples.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} of {num_samples} samples")
    return 1.0 - comb(num_samples - num_correct, k) / comb(num_samples, k)


def majority_at_k(answers: Sequence[tuple[str | None, bool]]) -> float:
    """Whether the commonest extracted answer is correct; ties share the credit.

    Args:
        answers: (extracted, correct) of one problem's samples. Answers without a box do not vote.
    """
    votes = Counter(normalise_answer(text) for text, _ in answers if text is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    leaders = {text for text, count in votes.items() if count == most}
    right = {normalise_answer(text) for text, correct in answers if text is not None and correct}
    return len(leaders & right) / len(leaders)


def bootstrap_interval(
    means: Sequence[float], *, confidence: float, num_resamples: int, seed: int
) -> tuple[float, float]:
    """Percentile interval of the mean over problems, by resampling problems.

    Problems that were all solved always, or never, show no spread when resampled; a bootstrap
    would call such a score certain. The exact one-sided binomial bound over problems stands there
    (0 of 16 problems: up to 17 % at 95 %).

    Args:
        means: Mean score of each problem.
        confidence: E.g. 0.95.
        num_resamples: Bootstrap replicates.
        seed: Seed of the resampling.
    """
    values = np.asarray(means, dtype=np.float64)
    if values.min() == values.max() and values[0] in (0.0, 1.0):
        unseen = 1.0 - (1.0 - confidence) ** (1.0 / len(values))
        return (0.0, unseen) if values[0] == 0.0 else (1.0 - unseen, 1.0)
    generator = np.random.default_rng(seed)
    picks = generator.integers(0, len(values), size=(num_resamples, len(values)))
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(values[picks].mean(axis=1), [tail, 1.0 - tail])
    return float(low), float(high)


def score_benchmark(outcomes: Sequence[Outcome], settings: EvaluationSettings) -> dict[str, Any]:
    """Scores of one benchmark as they stand in a manifest; rates are shares between 0 and 1.

    Args:
        outcomes: All graded answers of one benchmark; equally many per problem.
        settings: Seeds and sizes of the bootstrap.
    """
    first = outcomes[0]
    problems: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        problems.setdefault(outcome.item_id, []).append(outcome)
    k = min(len(samples) for samples in problems.values())
    correct = {item: sum(s.correct for s in samples) for item, samples in problems.items()}
    means = [correct[item] / len(samples) for item, samples in problems.items()]
    low, high = bootstrap_interval(
        means,
        confidence=settings.confidence,
        num_resamples=settings.bootstrap_samples,
        seed=derive_seed(settings.seed, "bootstrap", first.benchmark),
    )
    return {
        "benchmark": first.benchmark,
        "domain": first.domain,
        "num_items": len(problems),
        "samples_per_item": k,
        "avg_at_k": average(means),
        "interval": [low, high],
        "interval_note": describe_interval(means),
        "pass_at_k": _pass_rate(problems, correct, k),
        "majority_at_k": _majority_rate(problems) if first.domain == "math" else None,
        "truncated_rate": average(o.truncated for o in outcomes),
        "format_rate": average(o.extracted is not None for o in outcomes),
        "mean_tokens": average(o.num_tokens for o in outcomes),
        "reasons": dict(sorted(Counter(o.reason for o in outcomes).items())),
    }


def _pass_rate(
    problems: Mapping[str, Sequence[Outcome]], correct: Mapping[str, int], k: int
) -> float:
    return average(pass_at_k(len(samples), correct[item], k) for item, samples in problems.items())


def _majority_rate(problems: Mapping[str, Sequence[Outcome]]) -> float:
    return average(
        majority_at_k([(sample.extracted, sample.correct) for sample in samples])
        for samples in problems.values()
    )


def describe_interval(means: Sequence[float]) -> str:
    """What limits the interval, in words; empty when nothing does."""
    if len(set(means)) == 1:
        if means[0] in (0.0, 1.0):
            return "all problems score alike: the exact bound for that many problems"
        return "all problems score alike, so resampling them shows no spread"
    if len(means) < FEW_ITEMS:
        return f"rough: only {len(means)} problems"
    return ""
