"""From a run's parameters to a recipe's overrides, a name, tags, and the run itself.

The parameters are those of the form: a few knobs (``flows.catalog`` says which keys of the recipe
they turn), a ``config`` in sections (``flows.forms``) and ``overrides`` as for ``--set``. What is
left empty stays as the recipe says; ``overrides`` win over knobs, and knobs over ``config``.

No postponed annotations here: Prefect evaluates what flows are made of in a served process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import State, get_client
from prefect.runtime import flow_run

from flows.catalog import CatalogEntry, find_entry
from flows.engine_logs import quiet_engine_logs
from flows.failures import fail
from flows.forms import UNTURNED, Config, as_toml, list_overrides
from flows.next_command import spell_run
from flows.planning import plan_steps
from flows.running import explain, run_steps
from flows.steps import Step
from pipeline.errors import ConfigError
from pipeline.settings.recipe import Recipe, load_recipe

_DEFAULT_TEACHER = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a run was asked for."""

    entry: CatalogEntry
    recipe: str
    out: str
    overrides: tuple[str, ...]
    """Knobs, form and ``overrides`` as ``section.key=value`` texts, in the order they apply."""
    knobs: dict[str, Any]
    """The knobs that were turned."""
    phase: str
    """Of datasets and training; 1 where the flow has none."""
    dry_run: bool
    asks_teacher: str = ""
    """Teacher whose settings the form changes; empty when it changes none."""

    def load(self) -> Recipe:
        """The recipe with the overrides.

        Raises:
            ConfigError: There is no such recipe, or it does not take a value.
        """
        if self.asks_teacher:
            known = sorted(load_recipe(self.recipe).settings.teachers)
            if self.asks_teacher not in known:
                # It would only add a teacher that nothing asks.
                raise ConfigError(
                    f"the form changes teacher {self.asks_teacher!r}, which recipe {self.recipe} "
                    "does not have",
                    hint=f"choose one with the parameter teacher: {', '.join(known)}",
                )
        return load_recipe(self.recipe, self.overrides)


def read_request(flow_name: str, parameters: Mapping[str, Any]) -> Request:
    """Understand a run's parameters.

    Args:
        flow_name: Of the catalog.
        parameters: By name; ``recipe``, ``out``, ``overrides``, ``dry_run``, ``config`` and the
            flow's own knobs.
    """
    entry = find_entry(flow_name)
    phase = str(parameters.get("phase", 1))
    turned = {name: parameters[name] for name in entry.knobs if parameters[name] != UNTURNED[name]}
    teacher = str(turned.get("teacher", _DEFAULT_TEACHER))
    config: Config = parameters["config"]
    filled = list_overrides(config, phase=phase, teacher=teacher)
    knobs = [
        template.format(
            value=value,
            toml=as_toml(value),
            phase=phase,
            math_share=1.0 if value == "math" else 0.0,
        )
        for name, value in turned.items()
        for template in entry.knobs[name]
    ]
    return Request(
        entry=entry,
        recipe=parameters["recipe"],
        out=parameters["out"],
        # The form first: its share of maths would contradict the knob ``domain``.
        overrides=(*filled, *knobs, *parameters["overrides"]),
        knobs=turned,
        phase=phase,
        dry_run=bool(parameters["dry_run"]),
        asks_teacher=teacher if any(text.startswith("teachers.") for text in filled) else "",
    )


def this_request() -> Request:
    """What the running flow was asked for."""
    return read_request(flow_run.flow_name, flow_run.parameters)


def run_request(request: Request, steps: Sequence[Step], *, next_command: str) -> State[Any]:
    """The body of every flow: tag the run, then do its steps, or only plan them.

    Args:
        request: What was asked for.
        steps: What to run, in order.
        next_command: What comes after; empty at the end.

    Returns:
        The flow run's final state.
    """
    try:
        recipe = request.load()
    except ConfigError as exc:
        tag_run(request, None)
        quiet_engine_logs()
        return fail(explain(exc))
    tag_run(request, recipe)
    out = recipe.out(Path(request.out) if request.out else None)
    if request.dry_run:
        return plan_steps(steps, recipe, out)
    return run_steps(steps, recipe, out, changes=request.overrides, next_command=next_command)


def next_flow(request: Request, flow: str, *own: str) -> str:
    """The command of the flow that comes after, on the same recipe and run folder.

    Args:
        request: What this run was asked for.
        flow: Of the catalog.
        own: ``name=value`` of its own parameters.
    """
    return spell_run(flow, own, request.recipe, request.out, request.overrides)


def tag_run(request: Request, recipe: Recipe | None) -> None:
    """Add to the run's tags what it is about; a run started without a deployment has none yet."""
    if flow_run.id is None:
        return
    wanted = [*request.entry.tags, *list_tags(request, recipe)]
    with get_client(sync_client=True) as client:
        there = client.read_flow_run(flow_run.id).tags
        if tags := [tag for tag in wanted if tag not in there]:
            client.update_flow_run(flow_run.id, tags=[*there, *tags])


def list_tags(request: Request, recipe: Recipe | None) -> list[str]:
    """``recipe:…``, ``domain:…`` and ``dry-run``, as far as they are known."""
    tags = [f"recipe:{Path(request.recipe).stem}"]
    if recipe is not None:
        tags += [f"domain:{domain}" for domain in _domains(request, recipe)]
    return tags + (["dry-run"] if request.dry_run else [])


def _domains(request: Request, recipe: Recipe) -> Sequence[str]:
    """Domains that the run is about, where its flow knows any."""
    settings = recipe.settings
    if request.entry.stage in ("synthesis", "all"):
        share = settings.synthesis.combinations.math_share
        if request.entry.name == "refine-rationales" or 0 < share < 1:
            return settings.synthesis.domains
        return ["math" if share else "code"]
    if request.entry.stage == "curriculum" and request.phase in settings.curriculum.phases:
        return settings.curriculum.phases[request.phase].domains
    return []


def run_label(request: Request, suffix: str = "") -> str:
    """A run's name, e.g. ``demo-math-40x2-seed7+1``: recipe, knobs, and how much else was changed.

    Args:
        request: What was asked for.
        suffix: What distinguishes runs of the same recipe.
    """
    turned = request.knobs
    parts = [Path(request.recipe).stem, str(turned.get("domain", "")), suffix]
    parts += [f"seed{turned['seed']}" if "seed" in turned else ""]
    parts += ["plan" if request.dry_run else ""]
    told = [name for name in turned if name in ("domain", "seed", "rows", "rounds", "samples")]
    others = len(request.overrides) - sum(len(request.entry.knobs[name]) for name in told)
    return "-".join(part for part in parts if part) + (f"+{others}" if others else "")
