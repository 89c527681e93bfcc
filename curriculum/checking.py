"""Check files that are not part of a build: rows in a source's schema.

Rows are judged slice by slice. What stays in memory is about 100 bytes a row: its outcome, and the
features that duplicates are found by; the hashes of questions lie in a temporary folder meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast, get_args, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curriculum.dedupe import REASONS, find_duplicates
from curriculum.dedupe import STAGE as DEDUPE
from curriculum.features import Rows
from curriculum.judging import Judged, limit_length, make_columns, open_judge
from curriculum.loading import load_corpus
from curriculum.measure import Measured
from curriculum.near_questions import StoredQuestions, make_search
from curriculum.prepared import TABLE_SCHEMA, PreparedSource, make_column, table_path
from curriculum.sources.catalog import Parser, read_source_file
from curriculum.sources.questions import load_questions
from pipeline import console
from pipeline.errors import ConfigError
from pipeline.hashing import file_sha256
from pipeline.manifest import Manifest
from pipeline.records import Rejected
from pipeline.settings.curriculum import CurriculumSettings
from pipeline.settings.recipe import Recipe
from pipeline.settings.sources import SourceKind, SourceSettings

MAX_SHOWN = 20
SLICE_ROWS = 128
"""Rows whose texts are in memory together."""
_STORED_ROWS = 4096
"""Rows whose hashes share a temporary file."""
_NAME = pa.dictionary(pa.int32(), pa.string())
_OUTCOME = pa.schema(
    [
        ("row_id", pa.string()),
        ("stage", _NAME),
        ("reason", _NAME),
        ("detail", pa.string()),
        ("domain", _NAME),
        ("num_tokens", pa.uint32()),
    ]
)


@dataclass(frozen=True, slots=True)
class Repeats:
    """Rows that repeat another row of the file."""

    rows: Rows
    """Row numbers from 0, ascending."""
    reasons: npt.NDArray[np.uint8]
    """Positions in :data:`curriculum.dedupe.REASONS`."""
    kept: Rows
    """Numbers of the rows that stay."""


class Outcomes(Sequence[dict[str, Any]]):
    """What became of each row, in file order; made into objects as they are asked for."""

    def __init__(self, table: pa.Table, repeats: Repeats) -> None:
        self._table, self._repeats = table, repeats

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        numbers = range(len(self))[place]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        return self._describe(numbers, self._table.slice(numbers, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        number = 0
        for batch in self._table.to_batches():
            for row in batch.to_pylist():
                yield self._describe(number, row)
                number += 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def refused(self) -> Iterator[dict[str, Any]]:
        """Those that are not accepted."""
        return (row for row in self if not row["accepted"])

    def _describe(self, number: int, row: dict[str, Any]) -> dict[str, Any]:
        found, place = self._repeats, int(np.searchsorted(self._repeats.rows, number))
        if place < len(found.rows) and found.rows[place] == number:
            kept = self._table["row_id"][int(found.kept[place])].as_py()
            reason = REASONS[found.reasons[place]]
            row |= {"stage": DEDUPE, "reason": reason, "detail": f"kept {kept} instead"}
        return {"row": number + 1, "accepted": not row["reason"], **row}


def check_source_file(recipe: Recipe, source: str, path: Path) -> dict[str, Any]:
    """Judge every row of a file as a build would, duplicates within the file included.

    Args:
        recipe: Limits, benchmarks, and the join's question files.
        source: A source kind, or a source's name in the recipe.
        path: The file.

    Returns:
        The report; ``rows`` is an :class:`Outcomes`.

    Raises:
        ConfigError: Unknown source.
        SourceError: The file is missing, unreadable, empty or has other columns.
    """
    settings = _source_settings(recipe, source)
    max_tokens = _limit_of(recipe, settings.name)
    with TemporaryDirectory(prefix="ingest-") as folder:
        file = _File(Path(folder), recipe.settings.curriculum)
        for judged in _judge_slices(recipe, settings, path):
            file.add([limit_length(one, max_tokens) for one in judged])
        rows = file.finish()
    rejected: dict[str, Counter[str]] = {}
    for row in rows.refused():
        rejected.setdefault(row["stage"], Counter())[row["reason"]] += 1
    return {
        "path": str(path),
        "source": source,
        "max_tokens": max_tokens,
        "rows_in": len(rows),
        "accepted": len(rows) - sum(reasons.total() for reasons in rejected.values()),
        "rejected": {stage: dict(sorted(c.items())) for stage, c in sorted(rejected.items())},
        "rows": rows,
    }


def _judge_slices(recipe: Recipe, settings: SourceSettings, path: Path) -> Iterator[list[Judged]]:
    parser = Parser(settings=settings, questions=load_questions(recipe, settings.questions))
    judge = open_judge(recipe, parser)
    revision = file_sha256(path) if path.is_file() else ""
    rows = read_source_file(settings, path, revision)
    while piece := list(islice(rows, SLICE_ROWS)):
        yield judge.judge(piece)


def _source_settings(recipe: Recipe, source: str) -> SourceSettings:
    sources = recipe.settings.curriculum.sources
    for entry in sources:
        if entry.name == source:
            return entry
    for entry in sources:
        if entry.kind == source:
            return entry
    kinds = [kind for kind in get_args(SourceKind) if kind != "mapping"]
    if source not in kinds:
        known = ", ".join([*kinds, *(entry.name for entry in sources)])
        raise ConfigError(f"unknown source {source!r}", hint=f"use one of {known}")
    return SourceSettings.model_validate({"name": source, "kind": source, "paths": ["-"]})


def _limit_of(recipe: Recipe, source: str) -> int | None:
    """Token limit of the first phase that takes the source."""
    for _, phase in sorted(recipe.settings.curriculum.phases.items()):
        if any(entry.source == source for entry in phase.sources):
            return phase.max_tokens
    return None


class _File:
    """A file that is being checked: outcomes in memory, hashes of questions in a folder."""

    def __init__(self, folder: Path, settings: CurriculumSettings) -> None:
        self._folder, self._settings = folder, settings
        self._outcomes: list[pa.RecordBatch] = []
        self._accepted: list[Rows] = []
        self._waiting = [TABLE_SCHEMA.empty_table()]
        self._num_rows = self._num_parts = 0

    def add(self, judged: Sequence[Judged]) -> None:
        """Take the next rows."""
        rows = [_outcome_of(one) for one in judged]
        self._outcomes.append(pa.RecordBatch.from_pylist(rows, schema=_OUTCOME))
        is_accepted = np.array([isinstance(one.outcome, Measured) for one in judged], np.bool_)
        self._accepted.append(np.flatnonzero(is_accepted) + self._num_rows)
        self._num_rows += len(judged)
        self._waiting.append(_tabulate(judged))
        if sum(map(len, self._waiting)) >= _STORED_ROWS:
            self._store()

    def finish(self) -> Outcomes:
        """Find duplicates among all rows taken."""
        self._store()
        table = pa.Table.from_batches(self._outcomes, schema=_OUTCOME)
        none = np.zeros(0, np.int64)
        if not self._settings.deduplicate:
            return Outcomes(table, Repeats(none, np.zeros(0, np.uint8), none))
        corpus = load_corpus([PreparedSource("file", self._folder, _manifest(self._num_parts))])
        found = find_duplicates(
            corpus.features,
            np.arange(len(corpus.features)),
            self._settings.traces_per_question,
            find_near=make_search(StoredQuestions(corpus), self._settings),
        )
        rows = np.concatenate([none, *self._accepted])
        return Outcomes(table, Repeats(rows[found.removed], found.reasons, rows[found.kept]))

    def _store(self) -> None:
        table = pa.concat_tables(self._waiting)
        pq.write_table(table, table_path(self._folder, self._num_parts), use_dictionary=False)
        self._num_parts += 1
        self._waiting = [TABLE_SCHEMA.empty_table()]


def _outcome_of(judged: Judged) -> dict[str, Any]:
    if isinstance(judged.outcome, Rejected):
        names = ("row_id", "stage", "reason", "detail")
        stated = {name: getattr(judged.outcome, name) for name in names}
        return {**stated, "domain": "other", "num_tokens": 0}
    return {
        "row_id": judged.row_id,
        **dict.fromkeys(("stage", "reason", "detail"), ""),
        "domain": judged.outcome.row.candidate.domain,
        "num_tokens": judged.outcome.size.num_tokens,
    }


def _tabulate(judged: Sequence[Judged]) -> pa.Table:
    """The features of accepted rows as a prepared part has them; their texts are nowhere."""
    accepted = [one.outcome for one in judged if isinstance(one.outcome, Measured)]
    nowhere = np.zeros(len(accepted), np.int64)
    columns = {"offset": nowhere, "size": nowhere, **make_columns(accepted)}
    arrays = [make_column(columns[column.name], column.type) for column in TABLE_SCHEMA]
    return pa.table(arrays, schema=TABLE_SCHEMA)


def _manifest(num_parts: int) -> Manifest:
    """What the search asks a preparation for: how many parts it has."""
    return Manifest(
        version="",
        inputs=[],
        settings={},
        code_version="",
        rows_in=0,
        rows_out=0,
        rejected={},
        shards=[],
        licences={},
        tokens={},
        extra={"num_parts": num_parts},
    )


def show_check(report: dict[str, Any]) -> None:
    """Print counts, reasons, and the first rejected rows."""
    rows = cast("Outcomes", report["rows"])
    num_refused = report["rows_in"] - report["accepted"]
    if num_refused:
        console.table(
            f"rejected rows{_of_many(num_refused)}",
            ["row", "id", "stage", "reason", "detail"],
            [
                [r["row"], r["row_id"][:8], r["stage"], r["reason"], r["detail"]]
                for r in islice(rows.refused(), MAX_SHOWN)
            ],
        )
    limit = report["max_tokens"]
    console.say(
        f"{report['rows_in']:,} rows = {report['accepted']:,} accepted + {num_refused:,} rejected "
        f"({f'at most {limit:,} tokens' if limit else 'no token limit: no phase takes it'})"
    )


def _of_many(count: int) -> str:
    return f" (first {MAX_SHOWN} of {count:,})" if count > MAX_SHOWN else ""
