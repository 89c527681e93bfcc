"""What synthesis has cost so far, by stage, and per row that was accepted.

Inputs: the ledger of ``<out>/answers`` and the manifests of the newest versions. The ledger counts
everything that was ever asked in a run folder, pilots and replaced versions included; rows are
those of the newest versions. So a cost per row is what the folder paid for the rows it has now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.manifest import LATEST, Version, resolve_version
from pipeline.settings.recipe import Recipe
from promptcot.engines.ledger import LedgerLine, cost_of, read_ledger
from promptcot.stage_names import SEED_STAGES, STAGES

_OTHER_NAMES = {"tests": "verified"}
"""Labels of requests that are asked within a stage of another name."""
_COUNTED = ("requests", "failed", "prompt_tokens", "completion_tokens", "seconds")


def stage_of_label(label: str) -> str:
    """The stage that a label of requests belongs to."""
    return _OTHER_NAMES.get(label, label)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """What one stage asked of its teachers, and the rows it has to show for it."""

    stage: str
    rows_out: int | None
    """Accepted rows of the newest version; none when there is no version."""
    requests: int = 0
    """Requests that ended: answers and errors. What is read from the store is none."""
    failed: int = 0
    """Requests that ended as an error."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """During which at least one request was with a teacher."""
    usd: float = 0.0
    gpu_hours: float = 0.0

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.prompt_tokens + self.completion_tokens

    def per(self, rows: int | None) -> dict[str, float] | None:
        """Tokens, seconds and money for each of some rows."""
        if not rows:
            return None
        return {
            "requests": self.requests / rows,
            "prompt_tokens": self.prompt_tokens / rows,
            "completion_tokens": self.completion_tokens / rows,
            "seconds": self.seconds / rows,
            "gpu_hours": self.gpu_hours / rows,
            "usd": self.usd / rows,
        }

    def as_json(self) -> dict[str, Any]:
        """The figures, with those per accepted row of this stage."""
        return {
            "rows_out": self.rows_out,
            "requests": self.requests,
            "failed": self.failed,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "seconds": round(self.seconds, 3),
            "gpu_hours": self.gpu_hours,
            "usd": self.usd,
            "per_accepted_row": self.per(self.rows_out),
        }


def newest_versions(out: Path) -> dict[str, Version]:
    """The newest version of every stage that has one, in the chain's order, then the others."""
    root = out / "synthesis"
    names = [*SEED_STAGES, *STAGES]
    names += sorted(path.name for path in root.glob("*") if path.name not in names)
    return {
        name: resolve_version(root / name) for name in names if (root / name / LATEST).is_file()
    }


def collect_costs(recipe: Recipe, out: Path) -> list[StageCost]:
    """Costs of all stages that exist or have asked something, in the chain's order."""
    versions = newest_versions(out)
    lines: dict[str, list[LedgerLine]] = {}
    for line in read_ledger(out):
        lines.setdefault(stage_of_label(line.stage), []).append(line)
    names = [name for name in (*SEED_STAGES, *STAGES) if name in versions or name in lines]
    names += sorted((versions.keys() | lines.keys()) - set(names))
    return [_add_up(recipe, name, lines.get(name, ()), versions.get(name)) for name in names]


def _add_up(
    recipe: Recipe, stage: str, lines: Sequence[LedgerLine], version: Version | None
) -> StageCost:
    teachers = recipe.settings.teachers
    # A teacher that the recipe no longer names has no price any more; its tokens still count.
    prices = [cost_of(line, teachers[line.teacher]) for line in lines if line.teacher in teachers]
    return StageCost(
        stage=stage,
        rows_out=version.manifest.rows_out if version else None,
        usd=sum(price.usd for price in prices),
        gpu_hours=sum(price.gpu_hours for price in prices),
        **_sums(lines),
    )


def total_cost(costs: Sequence[StageCost]) -> StageCost:
    """All stages together; its rows are the verified traces."""
    traces = next((cost.rows_out for cost in costs if cost.stage == STAGES[-1]), None)
    return StageCost(
        stage="all",
        rows_out=traces,
        usd=sum(cost.usd for cost in costs),
        gpu_hours=sum(cost.gpu_hours for cost in costs),
        **_sums(costs),
    )


def _sums(entries: Sequence[LedgerLine] | Sequence[StageCost]) -> dict[str, Any]:
    """What lines of the ledger and costs of stages both count."""
    return {name: sum(getattr(entry, name) for entry in entries) for name in _COUNTED}


def costs_as_json(costs: Sequence[StageCost]) -> dict[str, Any]:
    """All of it as one object; ``per_trace`` is per finally verified trace."""
    total = total_cost(costs)
    return {
        "stages": {
            cost.stage: {**cost.as_json(), "per_trace": cost.per(total.rows_out)} for cost in costs
        },
        "total": total.as_json(),
    }


def show_costs(costs: Sequence[StageCost]) -> None:
    """Print what was asked, and below it what one accepted row and one verified trace cost."""
    total = total_cost(costs)
    rows = [*costs, total]
    with_money = total.usd > 0
    with_gpus = total.gpu_hours > 0
    head = ["stage", "requests", "failed", "tokens in", "tokens out", "busy s"]
    head += ["GPU-h"] * with_gpus + ["USD"] * with_money
    console.table(
        "Cost",
        head,
        [
            [
                *(c.stage, c.requests, c.failed),
                *(c.prompt_tokens, c.completion_tokens, round(c.seconds, 1)),
                *([c.gpu_hours] * with_gpus + [c.usd] * with_money),
            ]
            for c in rows
        ],
    )
    if total.requests:
        _show_per_row(costs, total)


def _show_per_row(costs: Sequence[StageCost], total: StageCost) -> None:
    money = ["USD"] if total.usd else (["GPU-h"] if total.gpu_hours else [])
    head = ["stage", "accepted", "tokens each", "s each", *(f"{name} each" for name in money)]
    head += ["tokens / trace", *(f"{name} / trace" for name in money)]
    console.table(
        "Cost per accepted row, and per verified trace",
        head,
        [
            [
                cost.stage,
                "–" if cost.rows_out is None else cost.rows_out,
                *_each(cost, cost.rows_out, money, with_seconds=True),
                *_each(cost, total.rows_out, money, with_seconds=False),
            ]
            for cost in [*costs, total]
        ],
    )


def _each(
    cost: StageCost, rows: int | None, money: Sequence[str], *, with_seconds: bool
) -> list[object]:
    found: Mapping[str, float] | None = cost.per(rows)
    if found is None:
        return ["–"] * (1 + with_seconds + len(money))
    cells: list[object] = [found["prompt_tokens"] + found["completion_tokens"]]
    if with_seconds:
        cells.append(found["seconds"])
    return [*cells, *(found["usd" if name == "USD" else "gpu_hours"] for name in money)]
