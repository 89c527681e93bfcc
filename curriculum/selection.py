"""From the survivors of pass one to the rows of a phase: duplicates, licences, shares, order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from curriculum.dedupe import STAGE as DEDUPE
from curriculum.dedupe import remove_duplicates
from curriculum.mixing import STAGE as MIX
from curriculum.mixing import Survivor, draw_share, order_rows
from curriculum.planning import Plan
from pipeline.errors import LicenceRefused


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a row that was well formed is not in the phase."""

    stage: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Selection:
    """A phase's rows in output order, and what became of the other well-formed rows."""

    rows: list[Survivor]
    refused: dict[int, Refusal]
    """By position over the whole phase."""
    shard_rows: int

    @property
    def num_shards(self) -> int:
        """Parquet files of the version."""
        return -(-len(self.rows) // self.shard_rows)


def select_rows(plan: Plan, survivors: Sequence[Survivor]) -> Selection:
    """Choose and order a phase's rows.

    Raises:
        LicenceRefused: A chosen row's licence is not among the phase's.
        ConfigError: A share rounds to no rows.
    """
    settings = plan.recipe.settings.curriculum
    refused: dict[int, Refusal] = {}
    if settings.deduplicate:
        entries = [row.entry for row in survivors]
        for pair in remove_duplicates(entries, settings.traces_per_question):
            detail = f"kept {pair.kept.row_id} instead"
            refused[pair.removed.position] = Refusal(DEDUPE, pair.reason, detail)
    unique = [row for row in survivors if row.entry.position not in refused]
    drawn = _draw(plan, unique, refused)
    check_licences(plan, drawn)
    ordered = order_rows(
        drawn, plan.settings.order, seed=plan.recipe.settings.seed, phase=plan.phase
    )
    return Selection(rows=ordered, refused=refused, shard_rows=settings.shard_rows)


def _draw(plan: Plan, rows: Sequence[Survivor], refused: dict[int, Refusal]) -> list[Survivor]:
    """Each source's share; rows left out are added to ``refused``."""
    by_source: dict[int, list[Survivor]] = defaultdict(list)
    for row in rows:
        by_source[row.entry.priority].append(row)
    chosen = []
    for number, entry in enumerate(plan.settings.sources):
        drawn, left = draw_share(
            by_source[number], entry.share, seed=plan.recipe.settings.seed, phase=plan.phase
        )
        chosen += drawn
        for row in left:
            detail = f"share {entry.share:g} of source {entry.source}"
            refused[row.entry.position] = Refusal(MIX, "not_drawn", detail)
    return chosen


def check_licences(plan: Plan, rows: Sequence[Survivor]) -> None:
    """Hold the phase to its allowed licences; nothing is written when one is outside.

    Raises:
        LicenceRefused: With the number of rows per licence and source.
    """
    allowed = {licence.lower() for licence in plan.settings.allowed_licences}
    if not allowed:
        return
    outside: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if not set(row.licence.replace(",-", ",").split(",")) <= allowed:
            outside[row.licence, plan.sources[row.entry.priority].name] += 1
    if outside:
        found = ", ".join(f"{n} rows {lic!r} ({src})" for (lic, src), n in sorted(outside.items()))
        raise LicenceRefused(
            f"phase {plan.phase} allows the licences {', '.join(sorted(allowed))}; found {found}",
            hint=f"add the licence to curriculum.phases.{plan.phase}.allowed_licences after "
            "reading it, or drop the source",
        )
