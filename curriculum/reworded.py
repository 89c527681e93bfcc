"""Benchmark items in other words: ``curriculum.decontamination.semantic``, off by default.

After a source is prepared, the questions of its accepted rows are embedded part by part, and a
teacher is asked about those whose nearest items are near enough (:mod:`curriculum.semantic_items`).
What it said of every pair is a version of its own, under ``OUT/judged/SOURCE``; a phase leaves out
the rows that it did not clear. Every part is a batch and every answer is stored, so that a killed
run asks nothing twice, and a grown source asks about its new rows only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curriculum.preparation import Preparation
from curriculum.prepared import PreparedSource, rows_path
from curriculum.row_files import Places, RowReader
from pipeline.benchmarks import benchmark_inputs, load_benchmark_items
from pipeline.errors import ConfigError
from pipeline.hashing import file_sha256
from pipeline.manifest import MANIFEST, InputRef, Version, load_version
from pipeline.records import Record
from pipeline.settings.base import determining
from pipeline.settings.recipe import Recipe
from pipeline.stages import Batch, BatchResult, BatchStream, Stage, run_stage
from promptcot.engines.ledger import sum_ledger

if TYPE_CHECKING:
    from curriculum.semantic_items import SemanticMatch

REASON = "benchmark_item_reworded"
RULE = "judge"
"""As the manifest's list of matches calls it."""
FOLDER = "judged"
PACKAGES = ("pipeline", "curriculum", "promptcot")
MAX_SPAN = 300
_SLICE_ROWS = 128


class JudgedPair(Record):
    """What the teacher said of an accepted row and one of its nearest benchmark items."""

    part: int
    row: int
    """Number among the accepted rows of the part."""
    row_id: str
    benchmark: str
    item_id: str
    cosine: float
    verdict: str
    """``yes``, ``no`` or ``unclear``; only ``no`` clears a row."""
    span: str
    """The beginning of the row's question."""


@dataclass(frozen=True, slots=True)
class Judging:
    """One source whose rows a teacher is to be asked about."""

    recipe: Recipe
    out: Path
    stage: Stage


def plan_judging(preparation: Preparation, out: Path) -> Judging | None:
    """Name the judging of a source's rows; ``None`` where the recipe does not ask for any.

    Raises:
        ConfigError: The recipe has no such teacher.
    """
    recipe = preparation.source.recipe
    decontamination = recipe.settings.curriculum.decontamination
    settings = decontamination.semantic
    if not (settings.enabled and decontamination.enabled and recipe.settings.benchmarks):
        return None
    if settings.teacher not in recipe.settings.teachers:
        known = ", ".join(sorted(recipe.settings.teachers)) or "none"
        raise ConfigError(
            f"curriculum.decontamination.semantic.teacher: recipe {recipe.name} has no teacher "
            f"{settings.teacher!r}",
            hint=f"its teachers are: {known}",
        )
    teacher = determining(recipe.settings.teachers[settings.teacher])
    name = preparation.source.name
    inputs = [InputRef(name=f"prepared:{name}", version=preparation.version)]
    inputs += benchmark_inputs(recipe)
    # A script is named by its content: its path differs between machines.
    script = teacher.pop("script", None)
    if script is not None and recipe.file(script).is_file():
        inputs.append(InputRef(name="script", version=file_sha256(recipe.file(script))))
    stage = Stage(
        name=f"{FOLDER}-{name}",
        root=out / FOLDER / name,
        record=JudgedPair,
        settings={"semantic": determining(settings), "teacher": teacher},
        inputs=inputs,
        packages=PACKAGES,
        unit="pairs",
        min_rows=0,
        concurrency=2,
    )
    return Judging(recipe, out, stage)


def judge_source(judging: Judging, prepared: PreparedSource) -> list[JudgedPair]:
    """The rows that the teacher did not clear, each with its nearest such item, in order.

    Raises:
        ConfigError: The encoder cannot be used.
        TeacherError: The teacher or the encoder failed; what was answered is kept.
        BudgetExceeded: The next request could pass the budget.
    """
    stage = judging.stage
    folder = stage.root / stage.version
    if (folder / MANIFEST).is_file():
        return _not_cleared(load_version(folder))
    from curriculum.semantic_items import ItemJudge, open_item_judge

    settings = judging.recipe.settings.curriculum.decontamination.semantic
    judge = ItemJudge(
        judging.recipe,
        settings.teacher,
        judging.out,
        nearest=settings.nearest,
        min_cosine=settings.min_cosine,
    )
    with open_item_judge(load_benchmark_items(judging.recipe), judge) as ask:

        def process(batch: Batch) -> BatchResult:
            (part,) = batch.rows
            rows = list(_read_questions(prepared, part))
            found = ask([(str(number), question) for number, (_, question) in enumerate(rows)])
            pairs = [_describe(part, match, rows) for match in found]
            return BatchResult(num_in=len(pairs), rows=pairs)

        parts = range(prepared.num_parts)
        batches = BatchStream(rows=lambda: parts, num_rows=len(parts), size=1, key=str)
        teachers = judging.recipe.settings.teachers
        spending = partial(sum_ledger, judging.out, teachers)
        stage = replace(stage, cancel=ask.cancel, spending=spending)
        return _not_cleared(run_stage(stage, batches, process))


def _describe(part: int, match: SemanticMatch, rows: Sequence[tuple[str, str]]) -> JudgedPair:
    number = int(match.text_id)
    row_id, question = rows[number]
    return JudgedPair(
        part=part,
        row=number,
        row_id=row_id,
        benchmark=match.benchmark,
        item_id=match.item_id,
        cosine=match.cosine,
        verdict=match.verdict,
        span=question[:MAX_SPAN],
    )


def _read_questions(prepared: PreparedSource, part: int) -> Iterator[tuple[str, str]]:
    """Ids and questions of a part's accepted rows, in their order."""
    table = prepared.read_table(part, ("offset", "size"))
    places = Places(
        paths=(rows_path(prepared.folder, part),),
        file=np.zeros(len(table), np.uint32),
        offset=table["offset"].to_numpy(),
        size=table["size"].to_numpy(),
    )
    with RowReader(places.paths) as reader:
        for start in range(0, len(places), _SLICE_ROWS):
            rows = reader.gather(places.slice(start, min(start + _SLICE_ROWS, len(places))))
            yield from zip(rows["id"].to_pylist(), rows["question"].to_pylist(), strict=True)


def _not_cleared(version: Version) -> list[JudgedPair]:
    """Of each row that was not cleared, the nearest item that speaks against it."""
    found: dict[tuple[int, int], JudgedPair] = {}
    for row in version.rows():
        if row["verdict"] != "no":
            pair = JudgedPair.model_validate(row)
            found.setdefault((pair.part, pair.row), pair)
    return list(found.values())
