"""Hours and money of the whole experiment on so many GPUs, from constants that name their source.

In: a recipe (samples, votes, benchmarks, epochs) and ``data/capacity.toml``, overridden by a file
of the user's. Out: for each number of GPUs and each part of the experiment its hours and money,
with the formula and every constant in it that was not measured. Command:
``python -m promptcot estimate --recipe paper --gpus 1,8,64``.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from pipeline.errors import ConfigError
from pipeline.settings.base import Settings
from pipeline.settings.recipe import Recipe

Kind = Literal["measured", "published", "assumed"]
Constants = Mapping[str, "Constant"]
"""By ``section.name``."""
MOST_GPUS = 1024
_HOUR_S = 3600


class Constant(Settings):
    """One entry of the constants' file."""

    value: float = Field(gt=0)
    unit: str = ""
    kind: Kind = "measured"
    source: str = ""
    quote: str = ""
    """Words of ``source`` that say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the experiment on one number of GPUs."""

    name: str
    amount: float
    """Tokens written or trained on, or rows."""
    unit: str
    gpu_hours: float
    """Of all GPUs together."""
    hours: float
    usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole experiment on one number of GPUs."""

    gpus: int
    parts: tuple[Part, ...]

    @property
    def hours(self) -> float:
        """Wall time, the parts one after the other."""
        return sum(part.hours for part in self.parts)

    @property
    def usd(self) -> float:
        """Money of all parts."""
        return sum(part.usd for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """How a part is computed, and from what."""

    part: str
    text: str
    uses: tuple[str, ...]
    """Names of its constants."""


FORMULAS = (
    Formula(
        part="synthesis",
        text="combinations = phase_2_rows / (well_formed × distinct × judged_good × solved); "
        "tokens = combinations × (tokens_of_problem + well_formed × distinct × (votes × "
        "tokens_of_judgement + judged_good × samples × tokens_of_solution)); GPU-hours = tokens / "
        "tokens_per_s",
        uses=(
            "work.phase_2_rows",
            "synthesis.share_well_formed",
            "synthesis.share_distinct",
            "synthesis.share_judged_good",
            "synthesis.share_solved",
            "synthesis.tokens_of_problem",
            "synthesis.tokens_of_judgement",
            "synthesis.tokens_of_solution",
            "synthesis.tokens_per_s",
        ),
    ),
    Formula(
        part="curriculum",
        text="rows × ((us_per_row − us_alone) / cores + us_alone), cores = cores_per_gpu × GPUs; no"
        " GPU works",
        uses=(
            "work.phase_1_rows",
            "work.phase_2_rows",
            "curriculum.us_per_row",
            "curriculum.us_alone",
            "curriculum.cores_per_gpu",
        ),
    ),
    Formula(
        part="training, phase 1",
        text="rows × tokens_per_row × epochs / (tokens_per_s × share_end_to_end × efficiency)",
        uses=("work.phase_1_rows", "work.phase_1_tokens_per_row"),
    ),
    Formula(
        part="training, phase 2",
        text="the same of phase 2",
        uses=("work.phase_2_rows", "work.phase_2_tokens_per_row"),
    ),
    Formula(
        part="evaluation",
        text="checkpoints × items × samples of each benchmark × tokens_per_answer / tokens_per_s",
        uses=("evaluation.tokens_per_answer", "evaluation.tokens_per_s"),
    ),
)
_OF_THE_MODEL = ("training.tokens_per_s", "evaluation.tokens_per_s")
_TRAINING_USES = ("training.tokens_per_s", "training.share_end_to_end")


def load_constants(own: Path | None = None) -> dict[str, Constant]:
    """The bundled constants, with those of the user's file in their place.

    Raises:
        ConfigError: The file is missing or no TOML, or names a constant that does not exist.
    """
    text = (resources.files("promptcot") / "data" / "capacity.toml").read_text(encoding="utf-8")
    constants = _parse(text, "the bundled constants")
    if own is None:
        return constants
    try:
        text = own.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"--constants {own}: not a readable file ({exc})", hint="check the path"
        ) from exc
    for name, constant in _parse(text, f"--constants {own}").items():
        if name not in constants:
            raise ConfigError(
                f"--constants {own}: unknown constant {name!r}",
                hint=f"use one of {', '.join(constants)}",
            )
        source = constant.source or own.name
        unit = constant.unit or constants[name].unit
        constants[name] = constant.model_copy(update={"source": source, "unit": unit})
    return constants


def _parse(text: str, where: str) -> dict[str, Constant]:
    try:
        return {
            f"{section}.{name}": Constant.model_validate(value)
            for section, values in tomllib.loads(text).items()
            for name, value in values.items()
        }
    except (tomllib.TOMLDecodeError, ValidationError, AttributeError) as exc:
        raise ConfigError(
            f"{where}: {str(exc).splitlines()[0]}",
            hint="write [section.name] tables with a value above 0, as in "
            "promptcot/data/capacity.toml",
        ) from exc


def read_gpus(text: str) -> tuple[int, ...]:
    """Numbers of GPUs from ``1,8,64``, each once, ascending.

    Raises:
        ConfigError: Something else than whole numbers from 1 to 1,024.
    """
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1 or numbers[-1] > MOST_GPUS:
        raise ConfigError(
            f"--gpus {text!r}: whole numbers from 1 to {MOST_GPUS:,}, separated by commas",
            hint="write e.g. --gpus 1,8,64",
        )
    return tuple(numbers)


def plan_capacity(recipe: Recipe, constants: Constants, gpus: Sequence[int]) -> list[Plan]:
    """The experiment on each number of GPUs.

    Raises:
        ConfigError: The bundled speeds are of another model than the recipe's, or a benchmark of
            the recipe does not say how many items it has.
    """
    _require_speeds_of(recipe, constants)
    return [_plan(recipe, {n: c.value for n, c in constants.items()}, number) for number in gpus]


def _require_speeds_of(recipe: Recipe, constants: Constants) -> None:
    """The bundled speeds are the 7B's; another model needs its own."""
    bundled, model = load_constants(), recipe.settings.model
    shape = ("hidden_size", "num_hidden_layers", "expand", "state_size")
    paper = type(model)()
    if all(getattr(model, name) == getattr(paper, name) for name in shape):
        return
    lacking = [name for name in _OF_THE_MODEL if constants[name] == bundled[name]]
    if lacking:
        raise ConfigError(
            f"recipe {recipe.name}: its model is not the 7B that {' and '.join(lacking)} are of",
            hint="give those of this model in a file with --constants, or use --recipe paper",
        )


def _plan(recipe: Recipe, values: Mapping[str, float], gpus: int) -> Plan:
    tokens = count_synthesis_tokens(recipe, values)
    answers = count_answers(recipe) * values["evaluation.tokens_per_answer"]
    return Plan(
        gpus=gpus,
        parts=(
            _write("synthesis", tokens, values, gpus),
            _build(values, gpus),
            *(_train(recipe, values, gpus, phase) for phase in ("1", "2")),
            _write("evaluation", answers, values, gpus),
        ),
    )


def count_synthesis_tokens(recipe: Recipe, values: Mapping[str, float]) -> float:
    """Tokens that the teachers write until phase 2 has its rows, one trace a problem."""
    synthesis = recipe.settings.synthesis
    votes = sum(judge.votes for judge in synthesis.judging.judges)
    distinct = values["synthesis.share_well_formed"] * values["synthesis.share_distinct"]
    good = values["synthesis.share_judged_good"]
    combinations = values["work.phase_2_rows"] / (
        distinct * good * values["synthesis.share_solved"]
    )
    of_solutions = synthesis.solutions.samples_per_problem * values["synthesis.tokens_of_solution"]
    of_judging = votes * values["synthesis.tokens_of_judgement"]
    return combinations * (
        values["synthesis.tokens_of_problem"] + distinct * (of_judging + good * of_solutions)
    )


def count_answers(recipe: Recipe) -> int:
    """Answers that all checkpoints give to all benchmarks, at each one's samples an item.

    Raises:
        ConfigError: A benchmark does not say how many items it has.
    """
    settings = recipe.settings
    total = 0
    for benchmark in settings.benchmarks:
        if not benchmark.expected_items:
            raise ConfigError(
                f"recipe {recipe.name}: benchmark {benchmark.name} does not say how many items it "
                "has",
                hint="set its expected_items, or estimate with --recipe paper",
            )
        samples = benchmark.samples_per_item or settings.evaluation.samples_per_item
        total += benchmark.expected_items * samples
    return total * len(settings.evaluation.checkpoints)


def training_efficiency(values: Mapping[str, float], gpus: int) -> float:
    """Share of ``gpus`` times one GPU's speed: even in log₂ between known numbers, flat after."""
    known = {
        1: 1.0,
        2: values["training.speedup_2"] / 2,
        8: values["training.efficiency_8"],
        64: values["training.efficiency_64"],
    }
    if gpus in known:
        return known[gpus]
    above = next((number for number in known if number > gpus), None)
    if above is None:
        return known[64]
    below = max(number for number in known if number < gpus)
    share = math.log2(gpus / below) / math.log2(above / below)
    return known[below] + share * (known[above] - known[below])


def list_assumed(constants: Constants, part: str, gpus: Sequence[int]) -> list[str]:
    """Names of a part's constants that nobody measured: with any, the figure is an assumption."""
    (formula,) = (f for f in FORMULAS if f.part == part)
    names = list(formula.uses)
    if part.startswith("training"):
        names += _TRAINING_USES
        names += ["training.speedup_2"] if any(1 < n < 8 for n in gpus) else []
        names += ["training.efficiency_8"] if any(2 < n < 64 for n in gpus) else []
        names += ["training.efficiency_64"] if any(n > 8 for n in gpus) else []
    return [name for name in names if constants[name].kind == "assumed"]


def _write(name: str, tokens: float, values: Mapping[str, float], gpus: int) -> Part:
    """Tokens that independent servers write: every GPU adds its whole speed."""
    gpu_hours = tokens / values[f"{name}.tokens_per_s"] / _HOUR_S
    return _of_gpus(name, tokens, values, gpus=gpus, gpu_hours=gpu_hours)


def _train(recipe: Recipe, values: Mapping[str, float], gpus: int, phase: str) -> Part:
    settings = recipe.settings.training.phases.get(phase)
    epochs = settings.epochs if settings is not None else 0.0
    rows = values[f"work.phase_{phase}_rows"]
    tokens = rows * values[f"work.phase_{phase}_tokens_per_row"] * epochs
    rate = values["training.tokens_per_s"] * values["training.share_end_to_end"]
    gpu_hours = tokens / (rate * training_efficiency(values, gpus)) / _HOUR_S
    return _of_gpus(f"training, phase {phase}", tokens, values, gpus=gpus, gpu_hours=gpu_hours)


def _of_gpus(
    name: str, tokens: float, values: Mapping[str, float], *, gpus: int, gpu_hours: float
) -> Part:
    return Part(
        name=name,
        amount=tokens,
        unit="tokens",
        gpu_hours=gpu_hours,
        hours=gpu_hours / gpus,
        usd=gpu_hours * values["price.usd_per_gpu_hour"],
    )


def _build(values: Mapping[str, float], gpus: int) -> Part:
    """Both phases' datasets, on the cores of the machines that the GPUs are in."""
    rows = values["work.phase_1_rows"] + values["work.phase_2_rows"]
    cores = values["curriculum.cores_per_gpu"] * gpus
    each, alone = values["curriculum.us_per_row"] / 1e6, values["curriculum.us_alone"] / 1e6
    hours = rows * ((each - alone) / cores + alone) / _HOUR_S
    return Part(
        name="curriculum",
        amount=rows,
        unit="rows",
        gpu_hours=0.0,
        hours=hours,
        usd=hours * cores * values["price.usd_per_core_hour"],
    )


def capacity_as_json(constants: Constants, plans: Sequence[Plan]) -> dict[str, Any]:
    """Plans, formulas and constants as one JSON-ready object."""
    return {
        "plans": [
            {
                "gpus": plan.gpus,
                "hours": plan.hours,
                "usd": plan.usd,
                "parts": [
                    {
                        "part": part.name,
                        part.unit: part.amount,
                        "gpu_hours": part.gpu_hours,
                        "hours": part.hours,
                        "usd": part.usd,
                        "assumed": list_assumed(constants, part.name, [plan.gpus]),
                    }
                    for part in plan.parts
                ],
            }
            for plan in plans
        ],
        "formulas": {formula.part: formula.text for formula in FORMULAS},
        "constants": {name: constant.model_dump() for name, constant in constants.items()},
    }
