"""The artifact ``report`` of a run: what it came to, where it lies, its pages, and what is next.

Counts and reasons of all stages are the artifact ``funnel``; here stand shares, tokens, time and
money, which that one has no room for. Nothing here imports Prefect.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.next_command import spell_report
from flows.status_view import duration
from pipeline.settings.overrides import list_overrides
from pipeline.settings.recipe import Recipe
from promptcot.stage_names import SEED_STAGES, STAGES

if TYPE_CHECKING:
    from promptcot.costs import StageCost

_SYNTHESIS = frozenset((*SEED_STAGES, *STAGES))
_PAGES = {"promptcot": "synthesis.html", "evaluation": "index.html"}
"""Page of the folder ``report`` by the package that writes it."""


def describe_report(
    recipe: Recipe,
    out: Path,
    stages: Sequence[Mapping[str, Any]],
    told: Mapping[str, Any],
    next_command: str,
) -> tuple[str, str]:
    """One line and a page of Markdown.

    Args:
        recipe: Of the run.
        out: Its folder.
        stages: Those that the run was about (``flows.summary.describe_stage``).
        told: What its events say (``flows.run_state.RunState.as_json``).
        next_command: What comes after it; empty at the end.

    Raises:
        PipelineError: The stored answers or a manifest cannot be read.
    """
    line, parts = f"Files and pages of {out}", []
    if synthesis := [stage for stage in stages if stage["key"] in _SYNTHESIS]:
        from promptcot.costs import collect_costs

        line, page = describe_synthesis(synthesis, collect_costs(recipe, out), told)
        parts = [page]
    parts.append(f"Output folder, on {socket.gethostname()}: `{out.resolve()}`")
    parts.append(_describe_pages(recipe, out, with_synthesis=bool(synthesis)))
    if next_command:
        parts.append(f"Next:\n\n    {next_command}")
    return line, "\n\n".join(parts)


def describe_synthesis(
    stages: Sequence[Mapping[str, Any]], costs: Sequence[StageCost], told: Mapping[str, Any]
) -> tuple[str, str]:
    """What synthesis came to and took: one line, and a table of its stages.

    Args:
        stages: In the order of the data.
        costs: Of the folder (``promptcot.costs.collect_costs``); earlier runs and pilots included.
        told: What the run's events say.
    """
    from promptcot.costs import total_cost

    total = total_cost(costs)
    first, last = stages[0], stages[-1]
    # Problems become several solutions, so a share of the first stage would not be a yield.
    line = f"{last['out']:,} {last['stage'].lower()} from {first['out']:,} {first['unit']}"
    line += f"; {total.tokens:,} tokens, {_money(total)}"
    own = {step["step"]: step for step in told["steps"]}
    worked = [step["seconds"] for step in own.values() if step.get("seconds")]
    line += f"; this run took {duration(sum(worked))}"
    by_stage = {cost.stage: cost for cost in costs}
    heads = ["stage", "kept", "rate", "requests", "tokens", "a row", "asked for"]
    rows = [
        _describe_row(stage, by_stage.get(stage["key"]), own.get(stage["key"], {}))
        for stage in stages
    ]
    # The page has room for seven columns; an eighth is for those whom it costs something.
    if total.usd or total.gpu_hours:
        heads.append("money")
        for stage, cells in zip(stages, rows, strict=True):
            cost = by_stage.get(stage["key"])
            cells.append(_money(cost) if cost is not None and cost.requests else "")
    table = [heads, ["---"] * len(heads), *rows]
    note = (
        "Rates are of this run. Requests, tokens (in all, and for a row that was kept), the time "
        "that teachers worked and money are all that this folder ever asked for; answers are never "
        "paid for twice."
    )
    return line, "\n\n".join(["\n".join(f"| {' | '.join(row)} |" for row in table), note])


def _describe_row(
    stage: Mapping[str, Any], cost: StageCost | None, step: Mapping[str, Any]
) -> list[str]:
    kept = f"{stage['out']:,} of {stage['in']:,}"
    kept += f" ({stage['out'] / stage['in']:.0%})" if stage["in"] else ""
    rate = "reused" if step.get("reused") else ""
    if not rate and step.get("seconds"):
        rate = f"{stage['in'] / step['seconds']:,.3g}/s"
    cells = [stage["stage"], kept, rate]
    if cost is None or not cost.requests:
        return [*cells, "none", "", "", ""]
    each = f"{cost.tokens / stage['out']:,.0f}" if stage["out"] else ""
    return [*cells, f"{cost.requests:,}", f"{cost.tokens:,}", each, duration(cost.seconds)]


def _money(cost: StageCost) -> str:
    """Money, and machine time where a teacher's price is known as such."""
    hours = f", {cost.gpu_hours:,.2f} GPU-hours" if cost.gpu_hours else ""
    return f"{cost.usd:,.2f} USD{hours}"


def _describe_pages(recipe: Recipe, out: Path, *, with_synthesis: bool) -> str:
    """Links to the pages that are there, and the commands that write the others."""
    paths = {package: (out / "report" / file).resolve() for package, file in _PAGES.items()}
    there = [path for path in paths.values() if path.is_file()]
    parts = [f"- [{path.name}]({path.as_uri()}): `xdg-open {path}`" for path in there]
    if there:
        parts.append(
            "\nA browser opens such links only from a page that is a file itself: type the command."
        )
    wanted = [
        package
        for package, path in paths.items()
        if path not in there and (package == "evaluation" or with_synthesis)
    ]
    if wanted:
        parts.append("\nTo write a page of it:\n")
        name = recipe.path.stem if recipe.is_bundled else str(recipe.path)
        changes = list_overrides(recipe)
        commands = [spell_report(package, name, str(out), changes) for package in wanted]
        parts += [f"    {command}" for command in commands]
    return "\n".join(parts).strip()
