"""Scores of a benchmark: avg@k, pass@k and majority@k, with intervals, lengths and rates.

How the intervals are made is told in :mod:`evaluation.intervals`, how answers vote in
:mod:`evaluation.votes`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from evaluation.intervals import bootstrap_interval, describe_interval, sampling_interval
from evaluation.votes import Compare, count_majorities, read_ballot, settle_pairs
from pipeline.hashing import derive_seed
from pipeline.settings.evaluation import EvaluationSettings

QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "max": 1.0}
"""Of an answer's length in tokens, by name."""
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}.*")
Problems = Mapping[str, Sequence["Outcome"]]
Labels = Mapping[str, Mapping[str, str]]
"""Labels of each item, e.g. its level, by item id."""


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


def list_ks(num_samples: int) -> list[int]:
    """The k of pass@k that are told: powers of two, and all samples."""
    powers = [2**power for power in range(num_samples.bit_length())]
    return sorted({k for k in powers if k <= num_samples} | {num_samples})


def score_benchmark(
    outcomes: Sequence[Outcome],
    settings: EvaluationSettings,
    *,
    labels: Labels | None = None,
    compare: Compare = settle_pairs,
) -> dict[str, Any]:
    """Scores of one benchmark as they stand in a manifest; rates are shares between 0 and 1.

    Args:
        outcomes: All graded answers of one benchmark.
        settings: Seeds and sizes of the bootstrap, and what majority@k may cost.
        labels: What avg@k is broken down by, for each item.
        compare: The grader's equality of two answers, for majority@k; by default what its
            rules decide without processes.
    """
    first = outcomes[0]
    problems: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        problems.setdefault(outcome.item_id, []).append(outcome)
    means = {item: average(s.correct for s in samples) for item, samples in problems.items()}
    return {
        "benchmark": first.benchmark,
        "domain": first.domain,
        "num_items": len(problems),
        "samples_per_item": min(len(samples) for samples in problems.values()),
        **_rate_answers(problems, list(means.values()), settings),
        **_vote(problems, settings, compare),
        "truncated_rate": average(o.truncated for o in outcomes),
        "format_rate": average(o.extracted is not None for o in outcomes),
        **_measure_lengths(outcomes),
        "by_label": _break_down(means, labels or {}, settings),
        "reasons": dict(sorted(Counter(o.reason for o in outcomes).items())),
    }


def _rate_answers(
    problems: Problems, means: Sequence[float], settings: EvaluationSettings
) -> dict[str, Any]:
    """avg@k with its two intervals, and pass@k for several k."""
    samples = [len(answers) for answers in problems.values()]
    correct = [sum(answer.correct for answer in answers) for answers in problems.values()]
    benchmark = next(iter(problems.values()))[0].benchmark
    pass_at = {
        str(k): average(pass_at_k(n, c, k) for n, c in zip(samples, correct, strict=True))
        for k in list_ks(min(samples))
    }
    return {
        "avg_at_k": average(means),
        "interval": list(_interval(means, settings, benchmark)),
        "interval_note": describe_interval(means),
        "sampling_interval": list(sampling_interval(correct, samples, settings.confidence)),
        "pass_at_k": pass_at[str(min(samples))],
        "pass_at": pass_at,
    }


def _interval(
    means: Sequence[float], settings: EvaluationSettings, *names: str
) -> tuple[float, float]:
    return bootstrap_interval(
        means,
        confidence=settings.confidence,
        num_resamples=settings.bootstrap_samples,
        seed=derive_seed(settings.seed, "bootstrap", *names),
    )


def _vote(problems: Problems, settings: EvaluationSettings, compare: Compare) -> dict[str, Any]:
    """majority@k of mathematics; programs have no equality to vote by."""
    if next(iter(problems.values()))[0].domain != "math":
        return {"majority_at_k": None, "majority_unsettled": 0}
    ballots = [
        read_ballot([(answer.extracted, answer.correct) for answer in answers])
        for answers in problems.values()
    ]
    majority = count_majorities(ballots, compare, most_comparisons=settings.majority_comparisons)
    return {
        "majority_at_k": average(majority.credits),
        "majority_unsettled": majority.num_unsettled,
    }


def _measure_lengths(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Tokens of an answer: mean, quantiles, and the mean of the correct ones."""
    lengths = np.asarray([outcome.num_tokens for outcome in outcomes])
    right = [outcome.num_tokens for outcome in outcomes if outcome.correct]
    return {
        "mean_tokens": float(lengths.mean()),
        "mean_tokens_correct": average(right) if right else None,
        "token_quantiles": {
            name: float(np.quantile(lengths, share)) for name, share in QUANTILES.items()
        },
    }


def _break_down(
    means: Mapping[str, float], labels: Labels, settings: EvaluationSettings
) -> dict[str, dict[str, Any]]:
    """avg@k of each value of each label, with its interval: label → value → figures.

    Days are put together by month.
    """
    groups: dict[str, dict[str, list[float]]] = {}
    for item, mean in means.items():
        for label, value in labels.get(item, {}).items():
            shown = value[:7] if _DAY.fullmatch(value) else value
            groups.setdefault(label, {}).setdefault(shown, []).append(mean)
    return {
        label: {
            value: {
                "num_items": len(scores),
                "avg_at_k": average(scores),
                "interval": list(_interval(scores, settings, label, value)),
            }
            for value, scores in sorted(values.items())
        }
        for label, values in sorted(groups.items())
    }
