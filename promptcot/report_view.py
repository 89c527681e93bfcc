"""What the synthesis page says in its tables and tiles, from figures already collected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.manifest import Version
from promptcot.cards import title_of
from promptcot.costs import total_cost
from promptcot.report_data import SynthesisFacts
from promptcot.stage_names import COMMANDS


@dataclass(frozen=True, slots=True)
class Reason:
    """Why rows were refused, how many, and as a share of the stage's most frequent reason."""

    text: str
    count: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageView:
    """One stage of the chain with its counts."""

    key: str
    title: str
    command: str
    unit: str
    num_in: int
    num_out: int
    reasons: Sequence[Reason]
    version: str
    code_version: str
    inputs: str

    @property
    def num_rejected(self) -> int:
        """Refused rows, over all reasons."""
        return self.num_in - self.num_out

    @property
    def accepted_share(self) -> float:
        """Share of the incoming rows that went on."""
        return self.num_out / self.num_in if self.num_in else 0.0


@dataclass(frozen=True, slots=True)
class Tile:
    """One headline number."""

    label: str
    value: str
    details: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class JudgeView:
    """What one judge said about all problems it was asked about."""

    name: str
    teacher: str
    votes: int
    perfect: int
    acceptable: int
    bad: int
    unreadable: int
    ratings: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PairView:
    """How far two judges, or the votes of one, agree."""

    name: str
    num_items: int
    observed: str
    kappa: str
    note: str


@dataclass(frozen=True, slots=True)
class RoundView:
    """One round of refinement."""

    number: int
    num_in: int
    num_out: int
    objective: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class LevelTable:
    """Rows of each level through the stages."""

    stages: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[int]]]


def describe_chain(facts: SynthesisFacts) -> list[StageView]:
    """Every stage that has run, in order."""
    return [_describe_stage(stage, version) for stage, version in facts.chain]


def _describe_stage(stage: str, version: Version) -> StageView:
    manifest = version.manifest
    counts = [item for found in manifest.rejected.values() for item in found.items()]
    ordered = sorted(counts, key=lambda item: (-item[1], item[0]))
    largest = ordered[0][1] if ordered else 1
    return StageView(
        key=stage,
        title=title_of(stage),
        command=f"python -m promptcot {COMMANDS[stage]}",
        unit=str(manifest.extra["unit"]),
        num_in=manifest.rows_in,
        num_out=manifest.rows_out,
        reasons=[Reason(n.replace("_", " "), c, c / largest) for n, c in ordered],
        version=version.name,
        code_version=manifest.code_version,
        inputs=", ".join(f"{ref.name} {ref.version[:16]}" for ref in manifest.inputs),
    )


def describe_tiles(facts: SynthesisFacts) -> list[Tile]:
    """The headline numbers of what has run."""
    tiles = [
        _row_tile(facts, "combinations", "Combinations", "drawn"),
        _row_tile(facts, "distinct", "Distinct problems", "written"),
        _row_tile(facts, "judged", "Accepted by judges", "judged"),
        _row_tile(facts, "verified", "Traces kept", "solutions"),
    ]
    total = total_cost(facts.costs)
    if total.requests:
        each = f"{total.tokens / total.rows_out:,.0f} per trace" if total.rows_out else ""
        tiles.append(Tile("Tokens", _short(total.tokens), [each] if each else []))
    if total.usd:
        each = f"{total.usd / total.rows_out:,.4f} per trace" if total.rows_out else ""
        tiles.append(Tile("Money", f"{total.usd:,.2f} USD", [each] if each else []))
    elif total.gpu_hours:
        tiles.append(Tile("GPU-hours", f"{total.gpu_hours:,.2f}"))
    if facts.lengths.size:
        middle = f"{np.median(facts.lengths):,.0f} tokens"
        tiles.append(Tile("Median solution", middle, [f"{facts.num_cut_off:,} cut off"]))
    return [tile for tile in tiles if tile is not None]


def _row_tile(facts: SynthesisFacts, stage: str, label: str, what: str) -> Tile | None:
    version = facts.versions.get(stage)
    if version is None:
        return None
    manifest = version.manifest
    details = [f"of {manifest.rows_in:,} {what}"] if manifest.rows_in != manifest.rows_out else []
    if stage == "verified" and (unconfirmed := facts.methods.get("unverified", 0)):
        details.append(f"{unconfirmed:,} confirmed by nothing")
    return Tile(label, f"{manifest.rows_out:,}", details)


def _short(number: int) -> str:
    for size, name in ((1_000_000_000, "G"), (1_000_000, "M"), (10_000, "k")):
        if number >= size:
            return f"{number / (1000 if name == 'k' else size):,.1f} {name}"
    return f"{number:,}"


def level_table(facts: SynthesisFacts) -> LevelTable:
    """Rows by domain and level, stage by stage."""
    known = {
        "combinations": "Drawn",
        "problems": "Written",
        "distinct": "Distinct",
        "judged": "Accepted",
        "verified": "Verified",
    }
    stages = [stage for stage in known if stage in facts.versions]
    return LevelTable(
        stages=[known[stage] for stage in stages],
        rows=[
            (domain, level, [counts.get(stage, 0) for stage in stages])
            for (domain, level), counts in facts.levels.items()
        ],
    )


def describe_judges(version: Version | None) -> list[JudgeView]:
    """Each judge's verdicts over all problems, kept and refused."""
    found = _agreement(version).get("judges", [])
    return [
        JudgeView(
            name=judge["judge"],
            teacher=judge["teacher"],
            votes=judge["votes_per_problem"],
            perfect=judge["verdicts"]["perfect"],
            acceptable=judge["verdicts"]["acceptable"],
            bad=judge["verdicts"]["bad"],
            unreadable=sum(judge["unreadable"].values()),
            ratings={n.replace("_", " "): r for n, r in judge["ratings"].items()},
        )
        for judge in found
    ]


def describe_pairs(version: Version | None) -> list[PairView]:
    """Agreement of each pair of judges, of one judge's own votes, and of all votes together."""
    found = _agreement(version)
    rows = [(" and ".join(pair["judges"]), pair) for pair in found.get("pairs", [])]
    rows += [
        (f"{judge['judge']}, its own votes", judge["own_votes"])
        for judge in found.get("judges", [])
        if "own_votes" in judge
    ]
    if "all_votes" in found and len(rows) > 1:
        rows.append(("all votes", found["all_votes"]))
    return [
        PairView(
            name=name,
            num_items=figures["num_items"],
            observed=_with_interval(figures["observed"], figures["observed_interval"], "{:.1%}"),
            kappa=_with_interval(figures["kappa"], figures["kappa_interval"], "{:.2f}"),
            note=figures["note"],
        )
        for name, figures in rows
    ]


def describe_calibration(version: Version | None) -> str:
    """How the judges did on problems that a person labelled; empty where nobody asked."""
    found = version.manifest.extra.get("calibration") if version else None
    if not found:
        return ""
    precision = found["panel"]["precision"]
    shown = _with_interval(precision["value"], [precision["low"], precision["high"]], "{:.1%}")
    return (
        f"On {found['num_problems']:,} problems that a person labelled "
        f"({found['labels']['file']}), {precision['hits']:,} of the {precision['total']:,} that "
        f"the judges kept were rightly kept: a precision of {shown}."
    )


def _agreement(version: Version | None) -> dict[str, Any]:
    found: dict[str, Any] = version.manifest.extra.get("agreement", {}) if version else {}
    return found


def _with_interval(value: float | None, interval: Sequence[float] | None, form: str) -> str:
    if value is None:
        return "–"
    shown = form.format(value)
    return shown + (
        f" ({form.format(interval[0])} to {form.format(interval[1])})" if interval else ""
    )


def describe_rounds(facts: SynthesisFacts) -> list[RoundView]:
    """The rounds of refinement that have run."""
    names = [name for name in facts.versions if name.startswith("refined-")]
    views = []
    for name in sorted(names, key=lambda name: int(name.removeprefix("refined-"))):
        manifest = facts.versions[name].manifest
        views.append(
            RoundView(
                number=int(name.removeprefix("refined-")),
                num_in=manifest.rows_in,
                num_out=manifest.rows_out,
                objective=_objective(manifest.extra),
            )
        )
    return views


def _objective(extra: Mapping[str, Any]) -> dict[str, Any] | None:
    """Means of the chosen and of all drawn rationales, as the stage recorded them."""
    found = extra.get("objective")
    if not isinstance(found, dict) or not {"chosen", "drawn"} <= found.keys():
        return None
    return found
