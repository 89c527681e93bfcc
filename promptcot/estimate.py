"""What a synthesis run will ask of its teachers, before anything is asked.

Requests and tokens are upper bounds from the settings: every row passes every stage and every reply
uses its whole limit. Time needs a measured speed, which the ledger of an earlier run holds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.settings.recipe import Recipe
from promptcot.sampling import domain_of


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """Upper bounds for one stage."""

    stage: str
    rows: int
    requests: int
    tokens: int
    """Generated tokens."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Upper bounds for a run, with the measured speed when there is one."""

    stages: tuple[StageEstimate, ...]
    tokens_per_s: float | None

    @property
    def num_requests(self) -> int:
        """Requests of all stages."""
        return sum(stage.requests for stage in self.stages)

    @property
    def num_tokens(self) -> int:
        """Generated tokens of all stages."""
        return sum(stage.tokens for stage in self.stages)

    @property
    def seconds(self) -> float | None:
        """Longest time at the measured speed."""
        return self.num_tokens / self.tokens_per_s if self.tokens_per_s else None

    def as_json(self) -> dict[str, Any]:
        """The estimate as one JSON-ready object."""
        return {
            "stages": [
                {"stage": s.stage, "rows": s.rows, "requests": s.requests, "tokens": s.tokens}
                for s in self.stages
            ],
            "requests": self.num_requests,
            "tokens": self.num_tokens,
            "tokens_per_s": self.tokens_per_s,
            "seconds": self.seconds,
        }


def estimate_run(recipe: Recipe, out: Path, stages: Sequence[str] = ()) -> Estimate:
    """Upper bounds for the named stages, or for all."""
    settings = recipe.settings.synthesis
    rows = settings.combinations.num_combinations
    share = settings.combinations.math_share
    num_code = sum(1 for index in range(rows) if domain_of(index, share) == "code")
    num_votes = rows * sum(judge.votes for judge in settings.judging.judges)
    num_samples = rows * settings.solutions.samples_per_problem
    num_tries = rows * settings.problems.attempts
    num_tests = num_code * settings.verification.code_tests
    bounds = (
        StageEstimate("combinations", rows, 0, 0),
        StageEstimate("problems", rows, num_tries, num_tries * settings.problems.max_tokens),
        StageEstimate("judged", rows, num_votes, num_votes * settings.judging.max_tokens),
        StageEstimate(
            "solutions", num_samples, num_samples, num_samples * settings.solutions.max_tokens
        ),
        StageEstimate(
            "verified", num_samples, num_tests, num_tests * settings.verification.test_max_tokens
        ),
    )
    chosen = tuple(bound for bound in bounds if not stages or bound.stage in stages)
    return Estimate(stages=chosen, tokens_per_s=measured_speed(out))


def measured_speed(out: Path) -> float | None:
    """Generated tokens per second over all that a run folder's ledger recorded, or none."""
    path = out / "logs" / "ledger.jsonl"
    if not path.is_file():
        return None
    tokens, seconds = 0, 0.0
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a killed run may be cut
        if isinstance(entry, dict) and entry.get("event") == "answers":
            tokens += int(entry.get("completion_tokens", 0))
            seconds += float(entry.get("seconds", 0.0)) if entry.get("completion_tokens") else 0.0
    return tokens / seconds if tokens and seconds else None


def show_estimate(estimate: Estimate) -> None:
    """Print the estimate as a table and one sentence."""
    console.table(
        "At most",
        ("stage", "rows in", "requests", "generated tokens"),
        [(s.stage, s.rows, s.requests, s.tokens) for s in estimate.stages],
    )
    if estimate.seconds is None:
        console.say(
            "No time given: this run folder has no measured speed yet. Stored answers are free."
        )
    else:
        console.say(
            f"At {estimate.tokens_per_s:,.0f} tokens/s (measured here) at most "
            f"{estimate.seconds:,.0f} s. Stored answers are free."
        )
