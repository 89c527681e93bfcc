"""The problems that the synthesis page shows in full: some accepted ones and some refused ones.

The choice depends on content alone: the smallest hashes of row ids win, so that two reports of the
same versions show the same rows, and nobody picks the pretty ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from pipeline.hashing import content_hash
from pipeline.manifest import Version
from pipeline.records import ConceptCombination, Problem, Rejected, Solution, VerifiedTrace
from promptcot.report_data import read_batches, rejected_paths
from promptcot.stage_names import STAGES

NUM_SHOWN = 10
_REFUSING = STAGES[1:]
"""Stages whose refused rows are shown: those that look at what a teacher wrote."""


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A refused row with whatever is known about its problem."""

    rejected: Rejected
    problem: Problem | None = None
    combination: ConceptCombination | None = None
    solution: Solution | None = None


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """Where a row lies; ordered by its hash."""

    rank: str
    path: Path
    position: int


def choose_accepted(version: Version | None, count: int = NUM_SHOWN) -> list[VerifiedTrace]:
    """Verified traces of different problems."""
    if version is None:
        return []
    places = heapq.nsmallest(count, _trace_places(version))
    return [VerifiedTrace.model_validate(_read_row(place)) for place in places]


def _trace_places(version: Version) -> Iterator[_Place]:
    """The first trace of every problem."""
    before = None
    for path in version.shard_paths():
        position = 0
        for batch in read_batches(path, ["solution.problem.id"]):
            for problem in batch.column("solution").field("problem").field("id").to_pylist():
                if problem != before:
                    yield _Place(content_hash(["accepted", problem]), path, position)
                before, position = problem, position + 1


def _read_row(place: _Place) -> dict[str, Any]:
    """One row, without reading the rows after it."""
    start = 0
    for batch in read_batches(place.path, size=256):
        if place.position < start + batch.num_rows:
            row: dict[str, Any] = batch.slice(place.position - start, 1).to_pylist()[0]
            return row
        start += batch.num_rows
    raise AssertionError(f"{place.path} has fewer rows than it had")


def choose_refused(versions: Mapping[str, Version], count: int = NUM_SHOWN) -> list[RefusedRow]:
    """Refused rows, spread over stages and then over reasons."""
    by_stage = [_spread(versions[stage], count) for stage in _REFUSING if stage in versions]
    chosen = list(_take_turns(by_stage))[:count]
    order = {stage: position for position, stage in enumerate(_REFUSING)}
    chosen.sort(key=lambda found: order[found[0]])
    return _look_up([row for _, row in chosen], versions)


def _spread(version: Version, count: int) -> list[tuple[str, Rejected]]:
    """A stage's refused rows, one of each reason first, the most frequent reason leading."""
    kept: dict[str, list[tuple[str, str]]] = {}
    rows: dict[str, Rejected] = {}
    numbers: dict[str, int] = {}
    for path in rejected_paths(version):
        for batch in read_batches(path):
            for row in (Rejected.model_validate(entry) for entry in batch.to_pylist()):
                numbers[row.reason] = numbers.get(row.reason, 0) + 1
                best = kept.setdefault(row.reason, [])
                best.append((content_hash(["refused", row.row_id]), row.row_id))
                rows[row.row_id] = row
                if len(best) > count:
                    best.sort()
                    rows.pop(best.pop()[1], None)
    reasons = sorted(kept, key=lambda reason: (-numbers[reason], reason))
    stage = str(version.manifest.extra["stage"])
    lists = [[(stage, rows[row_id]) for _, row_id in sorted(kept[r])] for r in reasons]
    return list(_take_turns(lists))


def _take_turns(lists: Sequence[Sequence[Any]]) -> Iterator[Any]:
    """The first of each list, then the second of each, and so on."""
    return (item for item in chain.from_iterable(zip_longest(*lists)) if item is not None)


def _look_up(rows: Sequence[Rejected], versions: Mapping[str, Version]) -> list[RefusedRow]:
    """Find the problem that each row is about, or the combination where there is no problem."""
    solutions = {
        key: Solution.model_validate(found)
        for key, found in _find(versions.get("solutions"), {row.row_id for row in rows}).items()
    }
    wanted = {row.row_id: _problem_id(row.row_id) for row in rows}
    problems = {
        key: Problem.model_validate(found)
        for key, found in _find(versions.get("problems"), set(wanted.values())).items()
    }
    combinations = {
        key: ConceptCombination.model_validate(found)
        for key, found in _find(versions.get("combinations"), set(wanted)).items()
    }
    found = []
    for row in rows:
        solution = solutions.get(row.row_id)
        problem = solution.problem if solution else problems.get(wanted[row.row_id])
        found.append(RefusedRow(row, problem, combinations.get(row.row_id), solution))
    return found


def _problem_id(row_id: str) -> str:
    """The problem that a refused solution's id begins with, or the id itself."""
    return row_id.rsplit("-", 1)[0]


def _find(version: Version | None, ids: set[str]) -> dict[str, dict[str, Any]]:
    """Rows of a version by id."""
    found: dict[str, dict[str, Any]] = {}
    for path in version.shard_paths() if version else ():
        position = 0
        for batch in read_batches(path, ["id"]):
            for row_id in batch.column("id").to_pylist():
                if row_id in ids:
                    found[row_id] = _read_row(_Place("", path, position))
                position += 1
    return found
