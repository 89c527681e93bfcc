"""Stage ``distinct``: duplicates and benchmark items leave before more is paid for them.

Input: a ``problems`` version. Output: the same rows, less those refused as ``benchmark_item``,
``duplicate`` (the same statement in another spelling) or ``near_duplicate``; of a family the
earliest row stays. Template twins of benchmark items (the same text with other numbers) are counted
and stay.

Eight bytes a row are kept for equal statements; :mod:`pipeline.near_duplicates` says what it keeps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from threading import Lock

import numpy as np

from pipeline.benchmark_index import load_benchmark_index
from pipeline.benchmarks import benchmark_inputs
from pipeline.contamination import Match, find_in_row
from pipeline.manifest import Version
from pipeline.near_duplicates import NearDuplicate, find_near_duplicates
from pipeline.questions import question_key
from pipeline.records import Problem, Rejected
from pipeline.settings.base import determining
from pipeline.stages import Batch, BatchResult, BatchStream, run_stage
from promptcot.cards import render_card
from promptcot.run_context import SynthesisRun, input_of

STAGE = "distinct"
_NGRAM = 3
_SHOWN_SPAN = 200


def run_distinct(run: SynthesisRun, problems: Version) -> Version:
    """Keep one problem of each family, and none that is a benchmark item.

    Raises:
        SourceError: A benchmark's file is missing or malformed.
        TooManyRejected: Too few problems are left.
    """
    settings = run.settings.distinct
    is_searched = settings.enabled and settings.decontaminate
    stage = run.stage(
        STAGE,
        record=Problem,
        settings={
            "distinct": determining(settings),
            **(decontamination_settings(run) if is_searched else {}),
        },
        inputs=[
            input_of(problems, "problems"),
            *(benchmark_inputs(run.recipe) if is_searched else ()),
        ],
    )
    batches = BatchStream(
        rows=lambda: enumerate(_problems(problems)),
        num_rows=problems.manifest.rows_out,
        size=run.settings.batch_size,
        key=lambda numbered: numbered[1].id,
    )
    return run_stage(stage, batches, partial(_check_batch, _Plan(run, problems)), card=render_card)


def decontamination_settings(run: SynthesisRun) -> dict[str, object]:
    """What of the recipe decides which texts are benchmark items."""
    settings = run.recipe.settings
    return {
        "decontamination": determining(settings.curriculum.decontamination),
        "benchmarks": [determining(entry) for entry in settings.benchmarks],
    }


def describe_match(match: Match) -> str:
    """Which item was found, by which rule, and in which words."""
    span = match.span[:_SHOWN_SPAN]
    return f"{match.benchmark} {match.item_id} ({match.rule} {match.score}, {match.part}): {span}"


def _problems(version: Version) -> Iterator[Problem]:
    return (Problem.model_validate(row) for row in version.rows())


@dataclass(frozen=True, slots=True)
class _Refusal:
    reason: str
    detail: str


class _Plan:
    """What becomes of each row; needs to see all of them, so it is made with the first batch.

    Benchmark items are found first: a problem must not go because it resembles one that goes.
    """

    def __init__(self, run: SynthesisRun, problems: Version) -> None:
        self._recipe = run.recipe
        self._settings = run.settings.distinct
        self._problems = problems
        self._lock = Lock()
        self._refused: dict[int, _Refusal] | None = None
        self._twins: set[int] = set()

    def refusal(self, position: int) -> _Refusal | None:
        """Why a row is refused, if it is."""
        with self._lock:
            if self._refused is None:
                refused: dict[int, _Refusal] = {}
                if self._settings.enabled:
                    if self._settings.decontaminate:
                        self._find_items(refused)
                    self._find_duplicates(refused)
                self._refused = refused
        return self._refused.get(position)

    def is_twin(self, position: int) -> bool:
        """Whether a row is a template twin of a benchmark item; asked after its refusal."""
        return position in self._twins

    def _statements(self) -> Iterator[str]:
        return (row["statement"] for row in self._problems.rows(["statement"]))

    def _find_items(self, refused: dict[int, _Refusal]) -> None:
        index = load_benchmark_index(self._recipe)
        if not len(index):
            return
        for position, text in enumerate(self._statements()):
            hit, twin = find_in_row(index, user_text=text, question=text, thinking="")
            if hit is not None:
                refused[position] = _Refusal("benchmark_item", describe_match(hit))
            elif twin is not None:
                self._twins.add(position)

    def _find_duplicates(self, refused: dict[int, _Refusal]) -> None:
        repeats = _find_repeats(self._statements(), self._problems.manifest.rows_out, refused)
        near: list[NearDuplicate] = []
        if self._settings.near_duplicate_jaccard < 1:
            # What is refused already is an empty text here: it takes part in nothing.
            near = find_near_duplicates(
                lambda: (
                    "" if position in refused or position in repeats else text
                    for position, text in enumerate(self._statements())
                ),
                threshold=self._settings.near_duplicate_jaccard,
                ngram=_NGRAM,
            )
        kept = {*repeats.values(), *(pair.kept for pair in near)}
        names = {
            position: row["id"]
            for position, row in enumerate(self._problems.rows(["id"]))
            if position in kept
        }
        for removed, first in repeats.items():
            refused[removed] = _Refusal("duplicate", f"the same statement as {names[first]}")
        for pair in near:
            detail = f"Jaccard {pair.jaccard} with {names[pair.kept]}"
            refused[pair.removed] = _Refusal("near_duplicate", detail)


def _find_repeats(
    statements: Iterable[str], num_rows: int, refused: Collection[int]
) -> dict[int, int]:
    """Row → the first row with the same statement, among those not refused."""
    keys = np.fromiter(
        (int(question_key(text)[:16], 16) for text in statements), dtype=np.uint64, count=num_rows
    )
    rows = np.setdiff1d(np.arange(num_rows), np.fromiter(refused, dtype=np.int64))
    _, firsts, families = np.unique(keys[rows], return_index=True, return_inverse=True)
    first_of = rows[firsts[families]]
    is_repeat = first_of != rows
    return dict(zip(rows[is_repeat].tolist(), first_of[is_repeat].tolist(), strict=True))


def _check_batch(plan: _Plan, batch: Batch) -> BatchResult:
    rows: list[Problem] = []
    rejected: list[Rejected] = []
    num_twins = 0
    for position, problem in batch.rows:
        refusal = plan.refusal(position)
        if refusal is None:
            rows.append(problem)
            num_twins += plan.is_twin(position)
        else:
            reason, detail = refusal.reason, refusal.detail
            rejected.append(Rejected(row_id=problem.id, stage=STAGE, reason=reason, detail=detail))
    return BatchResult(
        num_in=len(batch.rows),
        rows=rows,
        rejected=rejected,
        counts={"template_twins": num_twins} if num_twins else {},
    )
