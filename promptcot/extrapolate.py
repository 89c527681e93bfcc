"""From a pilot to the whole run: what it will take, as ranges.

Each draw takes an acceptance rate for every stage (Jeffreys' posterior of the pilot's counts) and
mean tokens for every kind of request (bootstrap over prompts, because answers to one prompt
resemble each other), and follows them down the chain. Low and high are the 2.5 % and 97.5 %
quantiles of the draws, expected is their mean. What a small pilot cannot show is not in the range,
but said in words beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.hashing import derive_seed
from pipeline.manifest import Version
from pipeline.settings.recipe import Recipe
from promptcot.agreement import wilson_interval
from promptcot.costs import stage_of_label
from promptcot.engines.account import FOLDER
from promptcot.engines.ledger import LedgerLine, cost_of, read_ledger
from promptcot.estimate import Allowance
from promptcot.pilot import Asked, Pilot
from promptcot.stage_names import BANK, EXTRACTED, SEED_STAGES

Draws = npt.NDArray[np.float64]

NUM_DRAWS = 2000
_SPEED = (
    "Time is that of the speed measured so far; a pilot too small to fill the engine is slower."
)
_REPEATS = ("duplicate", "near_duplicate")
_MEASURES = (
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "seconds",
    "gpu_hours",
    "usd",
    "bytes",
)


@dataclass(frozen=True, slots=True)
class Range:
    """A figure with its uncertainty."""

    low: float
    expected: float
    high: float

    @classmethod
    def of(cls, draws: Draws) -> Range:
        """The middle 95 % of draws and their mean."""
        low, high = np.quantile(draws, [0.025, 0.975])
        return cls(float(low), float(draws.mean()), float(high))

    def as_json(self) -> dict[str, float]:
        """JSON-ready."""
        return {"low": self.low, "expected": self.expected, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageForecast:
    """One stage of the whole run."""

    stage: str
    pilot_in: int
    pilot_out: int
    rows_in: Range
    rows_out: Range
    amounts: Mapping[str, Range]
    """By measure: requests, tokens, seconds, money, bytes."""
    tokens_per_request: Range | None
    """Written by one request; none where the pilot asked nothing."""

    @property
    def is_measured(self) -> bool:
        """Whether any row of the pilot reached this stage."""
        return self.pilot_in > 0

    def as_json(self) -> dict[str, Any]:
        """JSON-ready, with the pilot's counts."""
        share = self.pilot_out / self.pilot_in if self.pilot_in else None
        tokens = self.tokens_per_request
        return {
            "stage": self.stage,
            "pilot": {
                "rows_in": self.pilot_in,
                "rows_out": self.pilot_out,
                "accepted": share,
                "accepted_interval": wilson_interval(share or 0.0, self.pilot_in),
                "tokens_per_request": tokens.as_json() if tokens else None,
            },
            "rows_in": self.rows_in.as_json(),
            "rows_out": self.rows_out.as_json(),
            **{name: found.as_json() for name, found in self.amounts.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The whole run."""

    num_pilot: int
    num_combinations: int
    stages: Sequence[StageForecast]
    total: Mapping[str, Range]
    caveats: Sequence[str]
    """What the pilot cannot show."""
    draws: Mapping[str, Draws] = field(repr=False)
    """All draws of the totals, for what a budget allows."""
    by_stage: Mapping[str, Mapping[str, Draws]] = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "pilot_combinations": self.num_pilot,
            "combinations": self.num_combinations,
            "stages": [stage.as_json() for stage in self.stages],
            "total": {name: found.as_json() for name, found in self.total.items()},
            "caveats": list(self.caveats),
        }


@dataclass(frozen=True, slots=True)
class _Kind:
    """Requests of one stage to one teacher."""

    teacher: str
    per_row: float
    prompt_sums: Draws
    completion_sums: Draws
    counts: Draws
    """Of each prompt: tokens over its answers, and how many answers there were."""
    tokens_per_s: float | None


def forecast(recipe: Recipe, out: Path, pilot: Pilot, *, num_seeds: int) -> Forecast:
    """What the whole run will take.

    Args:
        recipe: The run's recipe.
        out: The run folder, for measured speeds and the size of the stored answers.
        pilot: Its finished pilot.
        num_seeds: Seed problems that the recipe names, for the stages that make the bank.
    """
    rng = np.random.default_rng(derive_seed(recipe.settings.seed, "forecast"))
    total_rows = recipe.settings.synthesis.combinations.num_combinations
    ledger = read_ledger(out)
    answer_bytes = _bytes_per_answer(out, ledger)
    rows: Draws = np.full(NUM_DRAWS, float(total_rows))
    seeds = np.zeros(NUM_DRAWS)
    before = 0
    stages: list[StageForecast] = []
    by_stage: dict[str, dict[str, Draws]] = {}
    for stage, version in pilot.versions.items():
        manifest = version.manifest
        if stage == EXTRACTED:
            rows_in: Draws = np.full(NUM_DRAWS, float(num_seeds))
        elif stage == BANK:
            rows_in = seeds
        elif before == 0:
            rows_in = rows
        else:
            # A problem that is solved n times gives n rows to the next stage.
            rows_in = rows * (manifest.rows_in / before)
        rows_out = rows_in * _draw_acceptance(pilot, stage, rng)
        kinds = _kinds(pilot, stage, ledger)
        amounts = _amounts(recipe, kinds, rows_in, rng)
        amounts["bytes"] = rows_in * _bytes_per_row(version) + amounts["requests"] * answer_bytes
        by_stage[stage] = amounts
        stages.append(
            StageForecast(
                stage=stage,
                pilot_in=manifest.rows_in,
                pilot_out=manifest.rows_out,
                rows_in=Range.of(rows_in),
                rows_out=Range.of(rows_out),
                amounts={name: Range.of(amounts[name]) for name in _MEASURES},
                tokens_per_request=_token_interval(kinds, rng),
            )
        )
        if stage in SEED_STAGES:
            seeds = rows_out
        else:
            rows, before = rows_out, manifest.rows_out
    draws = {name: np.sum([a[name] for a in by_stage.values()], axis=0) for name in _MEASURES}
    draws["traces"] = rows
    return Forecast(
        num_pilot=pilot.num_combinations,
        num_combinations=total_rows,
        stages=stages,
        total={name: Range.of(values) for name, values in draws.items()},
        caveats=[*_repeat_caveat(pilot, stages), _SPEED],
        draws=draws,
        by_stage=by_stage,
    )


def _repeat_caveat(pilot: Pilot, stages: Sequence[StageForecast]) -> Iterator[str]:
    """What the pilot's repeated problems could mean: they grow with the square of the rows."""
    distinct = next((stage for stage in stages if stage.stage == "distinct"), None)
    if distinct is None or distinct.pilot_in < 2:
        return
    rejected = pilot.versions["distinct"].manifest.rejected.values()
    repeats = sum(found.get(reason, 0) for found in rejected for reason in _REPEATS)
    size, wanted = distinct.pilot_in, distinct.rows_in.expected
    text = "Repeats grow with the number of problems, and the table takes the pilot's share: "
    if not repeats:
        yield f"{text}none among {size:,}, which rules out little for {wanted:,.0f}."
        return
    stock = size * (size - 1) / (2 * repeats)
    left = stock * -math.expm1(-wanted / stock)
    yield (
        f"{text}{repeats:,} among {size:,}. Were problems drawn evenly from a fixed stock, "
        f"{wanted:,.0f} would hold about {left:,.0f} distinct ones."
    )


def _draw_acceptance(pilot: Pilot, stage: str, rng: np.random.Generator) -> Draws:
    """Acceptance rates that the pilot's counts allow."""
    manifest = pilot.versions[stage].manifest
    if stage == "combinations":
        return np.ones(NUM_DRAWS)
    share = manifest.rows_out / manifest.rows_in if manifest.rows_in else 0.5
    size = manifest.rows_in
    if stage in ("solutions", "verified") and "judged" in pilot.versions:
        # Solutions of one problem stand or fall together: the problems are what was sampled.
        size = min(size, pilot.versions["judged"].manifest.rows_out)
    return rng.beta(share * size + 0.5, (1 - share) * size + 0.5, NUM_DRAWS)


def _kinds(pilot: Pilot, stage: str, ledger: Sequence[LedgerLine]) -> list[_Kind]:
    """The stage's requests by teacher, with what was measured of each."""
    rows_in = pilot.versions[stage].manifest.rows_in
    found: dict[str, list[Asked]] = {}
    for asked in pilot.asked:
        if asked.stage == stage:
            found.setdefault(asked.teacher, []).append(asked)
    kinds = []
    for teacher, group in sorted(found.items()):
        prompts: dict[str, list[int]] = {}
        for asked in group:
            sums = prompts.setdefault(asked.prompt, [0, 0, 0])
            sums[0] += asked.prompt_tokens
            sums[1] += asked.completion_tokens
            sums[2] += 1
        columns = np.array(list(prompts.values()), dtype=np.float64).T
        kinds.append(
            _Kind(
                teacher=teacher,
                per_row=len(group) / max(rows_in, 1),
                prompt_sums=columns[0],
                completion_sums=columns[1],
                counts=columns[2],
                tokens_per_s=_speed(ledger, stage, teacher),
            )
        )
    return kinds


def _speed(ledger: Sequence[LedgerLine], stage: str, teacher: str) -> float | None:
    """Tokens written a second, as the run folder's ledger has it."""
    lines = [li for li in ledger if stage_of_label(li.stage) == stage and li.teacher == teacher]
    seconds = sum(line.seconds for line in lines)
    tokens = sum(line.completion_tokens for line in lines)
    return tokens / seconds if seconds and tokens else None


def _amounts(
    recipe: Recipe, kinds: Sequence[_Kind], rows_in: Draws, rng: np.random.Generator
) -> dict[str, Draws]:
    """Requests, tokens, time and money of a stage in each draw."""
    totals: dict[str, Draws] = {name: np.zeros(NUM_DRAWS) for name in _MEASURES}
    for kind in kinds:
        settings = recipe.settings.teachers[kind.teacher]
        requests = rows_in * kind.per_row
        prompt_mean, completion_mean = _bootstrap_means(kind, rng)
        prompt, completion = requests * prompt_mean, requests * completion_mean
        seconds = completion / kind.tokens_per_s if kind.tokens_per_s else np.zeros(NUM_DRAWS)
        totals["requests"] += requests
        totals["prompt_tokens"] += prompt
        totals["completion_tokens"] += completion
        totals["seconds"] += seconds
        totals["gpu_hours"] += seconds / 3600 * settings.num_gpus
        totals["usd"] += (
            prompt * settings.usd_per_million_prompt_tokens
            + completion * settings.usd_per_million_completion_tokens
        ) / 1e6 + seconds / 3600 * settings.usd_per_hour
    return totals


def _bootstrap_means(kind: _Kind, rng: np.random.Generator) -> tuple[Draws, Draws]:
    """Mean tokens of a request, read and written, over prompts drawn again with replacement."""
    size = len(kind.counts)
    prompt, completion = np.empty(NUM_DRAWS), np.empty(NUM_DRAWS)
    for draw in range(NUM_DRAWS):
        chosen = rng.integers(size, size=size)
        count = kind.counts[chosen].sum()
        prompt[draw] = kind.prompt_sums[chosen].sum() / count
        completion[draw] = kind.completion_sums[chosen].sum() / count
    return prompt, completion


def _token_interval(kinds: Sequence[_Kind], rng: np.random.Generator) -> Range | None:
    """Tokens that one request of a stage writes."""
    if not kinds:
        return None
    weights = np.array([kind.counts.sum() for kind in kinds])
    means = [_bootstrap_means(kind, rng)[1] for kind in kinds]
    return Range.of(np.average(means, axis=0, weights=weights))


def _bytes_per_row(version: Version) -> float:
    """Size of a version's files by incoming row."""
    size = sum(path.stat().st_size for path in version.folder.rglob("*.parquet"))
    return size / max(version.manifest.rows_in, 1)


def _bytes_per_answer(out: Path, ledger: Sequence[LedgerLine]) -> float:
    stored = sum(line.stored for line in ledger)
    size = sum(path.stat().st_size for path in (out / FOLDER).glob("*") if path.is_file())
    return size / stored if stored else 0.0


def budget_allowances(
    recipe: Recipe, found: Forecast, ledger: Sequence[LedgerLine]
) -> Iterator[Allowance]:
    """What each limit of the recipe's budget means for the run."""
    budget = recipe.settings.synthesis.budget
    teachers = recipe.settings.teachers
    prices = [cost_of(line, teachers[line.teacher]) for line in ledger if line.teacher in teachers]
    limits = (
        (
            "max_completion_tokens",
            float(budget.max_completion_tokens),
            float(sum(line.completion_tokens for line in ledger)),
            ("completion_tokens", 1.0),
        ),
        ("max_usd", budget.max_usd, sum(price.usd for price in prices), ("usd", 1.0)),
        (
            "max_hours",
            budget.max_hours,
            sum(line.seconds for line in ledger) / 3600,
            ("seconds", 1 / 3600),
        ),
    )
    for name, limit, spent, (measure, unit) in limits:
        if limit:
            yield _allowance(found, (name, limit, spent), measure, unit=unit)


def _allowance(
    found: Forecast, limit: tuple[str, float, float], measure: str, *, unit: float
) -> Allowance:
    """One limit against the whole run; what is stored already is paid for, and counted as such."""
    name, value, spent = limit
    total = found.draws[measure] * unit
    # What the ledger holds of this run is part of the total: the limit is for both together.
    carried = np.minimum(
        found.num_combinations * value / np.maximum(total, 1e-12), found.num_combinations
    )
    low, high = np.quantile(carried, [0.025, 0.975])
    stops_in, sum_so_far = None, 0.0
    for stage in found.stages:
        sum_so_far += stage.amounts[measure].expected * unit
        if sum_so_far > value:
            stops_in = stage.stage
            break
    return Allowance(
        limit=name, value=value, spent=spent, stops_in=stops_in, low=int(low), high=int(high)
    )
