"""What a synthesis run will ask of its teachers, before it is asked.

Without a pilot: upper bounds from the settings, where every row passes every stage and every reply
uses its whole limit. With one (``estimate --pilot N``): what the pilot measured, carried to the
size of the run, as ranges, and what a budget would allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.records import Rejected
from pipeline.settings.recipe import Recipe
from promptcot.engines.ledger import LedgerLine, read_ledger
from promptcot.stage_names import BANK, EXTRACTED, SEED_STAGES

if TYPE_CHECKING:
    from promptcot.extrapolate import Forecast


@dataclass(frozen=True, slots=True, kw_only=True)
class StageBound:
    """Upper bounds for one stage."""

    stage: str
    rows: int
    requests: int = 0
    tokens: int = 0
    """Written, not read."""
    usd: float = 0.0
    """Price of those tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Upper bounds for a run; the measured speed and a forecast where there are any."""

    stages: tuple[StageBound, ...]
    tokens_per_s: float | None
    forecast: Forecast | None = None
    allowances: tuple[Allowance, ...] = ()

    @property
    def num_requests(self) -> int:
        """Requests of all stages."""
        return sum(stage.requests for stage in self.stages)

    @property
    def num_tokens(self) -> int:
        """Generated tokens of all stages."""
        return sum(stage.tokens for stage in self.stages)

    @property
    def usd(self) -> float:
        """Price of the generated tokens of all stages."""
        return sum(stage.usd for stage in self.stages)

    @property
    def seconds(self) -> float | None:
        """Longest time at the measured speed."""
        return self.num_tokens / self.tokens_per_s if self.tokens_per_s else None

    def as_json(self) -> dict[str, Any]:
        """The estimate as one JSON-ready object."""
        found: dict[str, Any] = {
            "stages": [
                {
                    "stage": bound.stage,
                    "rows": bound.rows,
                    "requests": bound.requests,
                    "tokens": bound.tokens,
                    "usd": bound.usd,
                }
                for bound in self.stages
            ],
            "requests": self.num_requests,
            "tokens": self.num_tokens,
            "usd": self.usd,
            "tokens_per_s": self.tokens_per_s,
            "seconds": self.seconds,
        }
        if self.forecast is not None:
            found["forecast"] = self.forecast.as_json()
        if self.allowances:
            found["budget"] = [allowance.as_json() for allowance in self.allowances]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What one limit of the budget allows."""

    limit: str
    value: float
    spent: float
    stops_in: str | None
    """The stage in which the expected run would reach the limit; none when it fits."""
    low: int
    high: int
    """Combinations that would go through all stages within what is left, as a range."""

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "limit": self.limit,
            "value": self.value,
            "spent": self.spent,
            "stops_in": self.stops_in,
            "combinations": {"low": self.low, "high": self.high},
        }


def estimate_run(recipe: Recipe, out: Path, stages: Sequence[str] = ()) -> Estimate:
    """Upper bounds for the named stages or for the chain, and a forecast where there is a pilot.

    Raises:
        SourceError: A seed file or the bank is missing or malformed.
    """
    bounds = bound_stages(recipe, stages)
    ledger = read_ledger(out)
    speed = _measured_speed(ledger)
    if stages:
        return Estimate(stages=bounds, tokens_per_s=speed)
    from promptcot.pilot import find_pilot

    pilot = find_pilot(recipe, out)
    if pilot is None:
        return Estimate(stages=bounds, tokens_per_s=speed)
    from promptcot.extrapolate import budget_allowances, forecast

    num_seeds = next((bound.rows for bound in bounds if bound.stage == EXTRACTED), 0)
    found = forecast(recipe, out, pilot, num_seeds=num_seeds)
    return Estimate(
        stages=bounds,
        tokens_per_s=speed,
        forecast=found,
        allowances=tuple(budget_allowances(recipe, found, ledger)),
    )


def bound_stages(recipe: Recipe, stages: Sequence[str] = ()) -> tuple[StageBound, ...]:
    """Upper bounds of the named stages, or of the recipe's chain."""
    from promptcot.synthesis import chain_of

    if BANK in stages:
        stages = SEED_STAGES
    return tuple(_BOUNDS[stage](recipe) for stage in stages or chain_of(recipe))


def _bound(
    recipe: Recipe, stage: str, rows: int, *, requests: Mapping[str, int], max_tokens: int
) -> StageBound:
    """A bound from the requests to each teacher."""
    total = sum(requests.values())
    prices = {name: recipe.settings.teachers[name] for name in requests}
    usd = sum(
        count * max_tokens * prices[name].usd_per_million_completion_tokens / 1e6
        for name, count in requests.items()
    )
    tokens = total * max_tokens
    return StageBound(stage=stage, rows=rows, requests=total, tokens=tokens, usd=usd)


def _num_combinations(recipe: Recipe) -> int:
    return recipe.settings.synthesis.combinations.num_combinations


def _bound_extracted(recipe: Recipe) -> StageBound:
    from promptcot.seeds import read_seed_source

    settings = recipe.settings.synthesis.concepts
    rows = asked = 0
    for source in recipe.settings.synthesis.seeds:
        for row in read_seed_source(recipe, source):
            rows += 1
            # A list of concepts that came with its problem is taken as it is.
            asked += not isinstance(row, Rejected) and not row.concepts
    requests = {settings.teacher: asked * settings.attempts}
    return _bound(recipe, EXTRACTED, rows, requests=requests, max_tokens=settings.max_tokens)


def _bound_problems(recipe: Recipe) -> StageBound:
    settings, rows = recipe.settings.synthesis.problems, _num_combinations(recipe)
    requests = {settings.teacher: rows * settings.attempts}
    return _bound(recipe, "problems", rows, requests=requests, max_tokens=settings.max_tokens)


def _bound_judged(recipe: Recipe) -> StageBound:
    settings, rows = recipe.settings.synthesis.judging, _num_combinations(recipe)
    requests: dict[str, int] = {}
    for judge in settings.judges:
        requests[judge.teacher] = requests.get(judge.teacher, 0) + rows * judge.votes
    return _bound(recipe, "judged", rows, requests=requests, max_tokens=settings.max_tokens)


def _bound_solutions(recipe: Recipe) -> StageBound:
    settings = recipe.settings.synthesis.solutions
    rows = _num_combinations(recipe) * settings.samples_per_problem
    requests = {settings.teacher: rows}
    return _bound(recipe, "solutions", rows, requests=requests, max_tokens=settings.max_tokens)


def _bound_verified(recipe: Recipe) -> StageBound:
    from promptcot.sampling import domain_of

    synthesis, rows = recipe.settings.synthesis, _num_combinations(recipe)
    share = synthesis.combinations.math_share
    num_code = sum(domain_of(index, share) == "code" for index in range(rows)) if share < 1 else 0
    return _bound(
        recipe,
        "verified",
        rows * synthesis.solutions.samples_per_problem,
        requests={synthesis.solutions.teacher: num_code * synthesis.verification.code_tests},
        max_tokens=synthesis.verification.test_max_tokens,
    )


def _bound_triples(recipe: Recipe) -> StageBound:
    settings, rows = recipe.settings.synthesis.triples, _count_seed_problems(recipe)
    requests = {settings.teacher: rows * settings.attempts}
    return _bound(recipe, "triples", rows, requests=requests, max_tokens=settings.max_tokens)


def _bound_refine(recipe: Recipe) -> StageBound:
    settings, rows = recipe.settings.synthesis.refinement, _count_seed_problems(recipe)
    rows = min(rows, settings.max_problems or rows)
    requests = {settings.teacher: settings.rounds * rows * settings.rationales_per_problem}
    return _bound(recipe, "refine", rows, requests=requests, max_tokens=settings.max_tokens)


def _count_seed_problems(recipe: Recipe) -> int:
    """Seeds with a problem: of the recipe's seed files, or of its bank."""
    synthesis = recipe.settings.synthesis
    if synthesis.seeds:
        from promptcot.seeds import read_seed_source

        rows = (row for source in synthesis.seeds for row in read_seed_source(recipe, source))
        return sum(not isinstance(row, Rejected) and bool(row.problem) for row in rows)
    from promptcot.bank import load_bank

    return sum(bool(seed.problem) for seed in load_bank(recipe.file(synthesis.bank)))


_BOUNDS: dict[str, Callable[[Recipe], StageBound]] = {
    EXTRACTED: _bound_extracted,
    BANK: lambda recipe: StageBound(stage=BANK, rows=_bound_extracted(recipe).rows),
    "combinations": lambda recipe: StageBound(stage="combinations", rows=_num_combinations(recipe)),
    "problems": _bound_problems,
    "distinct": lambda recipe: StageBound(stage="distinct", rows=_num_combinations(recipe)),
    "judged": _bound_judged,
    "solutions": _bound_solutions,
    "verified": _bound_verified,
    "triples": _bound_triples,
    "refine": _bound_refine,
}


def _measured_speed(ledger: Sequence[LedgerLine]) -> float | None:
    """Generated tokens per second over all that a run folder's ledger recorded, or none."""
    tokens = sum(line.completion_tokens for line in ledger)
    seconds = sum(line.seconds for line in ledger)
    return tokens / seconds if tokens and seconds else None
