"""Rows that are not in a phase: each with stage and reason, and what stands for removed ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curriculum.dedupe import REASONS as DUPLICATE_REASONS
from curriculum.dedupe import STAGE as DEDUPE
from curriculum.features import Rows
from curriculum.mixing import IN_OTHER_PHASE, NEAR_IN_OTHER_PHASE, describe_refusal
from curriculum.mixing import REASONS as MIX_REASONS
from curriculum.mixing import STAGE as MIX
from curriculum.prepared import PreparedSource
from curriculum.reworded import REASON as REWORDED
from curriculum.selection import MEASURE, OVER_MAX_TOKENS, Selection
from pipeline.contamination import STAGE as DECONTAMINATE
from pipeline.records import Rejected, arrow_schema
from pipeline.stages import Batch, Stage, WrittenBatch, staged_path
from pipeline.store import write_table

REJECTED_SCHEMA = arrow_schema(Rejected)
DUPLICATES_SCHEMA = pa.schema(
    [
        pa.field("removed_id", pa.string(), nullable=False),
        pa.field("kept_id", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("jaccard", pa.float32(), nullable=False),
    ]
)
"""Which row stands for a removed one; the Jaccard similarity is that of the two questions."""


Refused = tuple[Rows, pa.Table]
"""Row numbers, and what is said of each."""
Part = tuple[int, PreparedSource, int]
"""Number over all sources, source, and number within the source."""


class RefusalWriter:
    """Writes the refused rows of some prepared parts at a time."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        own = len(selection.settings.sources)
        self._parts = [
            (number, source, index)
            for number, source, index in selection.corpus.parts()
            if source in selection.corpus.sources[:own]
        ]

    @property
    def num_parts(self) -> int:
        """Parts of the phase's own sources."""
        return len(self._parts)

    def write(self, stage: Stage, batch: Batch) -> WrittenBatch:
        """Write the refusals of a range of parts."""
        work = batch.rows[0]
        starts = self._selection.corpus.starts
        low, high = int(starts[work.start]), int(starts[work.end])
        parts = self._parts[work.start : work.end]
        duplicates = self._duplicates(low, high)
        late = [
            self._reworded(low, high),
            self._over_limit(low, high),
            self._as_refusals(duplicates, low, high),
        ]
        late.append(self._not_chosen(low, high))
        rows = np.concatenate([rows for rows, _ in late])
        refused = pa.concat_tables([table for _, table in late])
        origins = _tell_origins(parts, rows - low)
        tables = [source.read_rejected(index) for _, source, index in parts]
        tables.append(_refusals(refused, origins))
        table = pa.concat_tables(tables).combine_chunks()
        if len(table):
            write_table(staged_path(stage, "rejected", work.index, batch), table)
        stand_ins = pa.concat_tables([duplicates, self._in_other_phases(low, high)])
        if len(stand_ins):
            write_table(staged_path(stage, "duplicates", work.index, batch), stand_ins)
        rejected: dict[str, Counter[str]] = {}
        grouped = table.group_by(["stage", "reason"]).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            rejected.setdefault(row["stage"], Counter())[row["reason"]] += row["count_all"]
        return WrittenBatch(
            num_in=len(table),
            num_out=0,
            rejected={name: dict(sorted(c.items())) for name, c in sorted(rejected.items())},
        )

    def _reworded(self, low: int, high: int) -> Refused:
        found = self._selection.reworded
        span = slice(*np.searchsorted(found.rows, [low, high]).tolist())
        details = [
            " ".join(
                f"{pair.benchmark}/{pair.item_id} by judge ({pair.verdict}) {pair.cosine:g} in the "
                f"question: {pair.span}".split()
            )[:300]
            for pair in found.pairs[span]
        ]
        return self._table(found.rows[span], DECONTAMINATE, [REWORDED] * len(details), details)

    def _over_limit(self, low: int, high: int) -> Refused:
        rows = _within(self._selection.over, low, high)
        limit = self._selection.settings.max_tokens
        sizes = self._selection.corpus.features.num_tokens[rows].tolist()
        details = [f"{size} tokens, limit {limit}" for size in sizes]
        return self._table(rows, MEASURE, [OVER_MAX_TOKENS] * len(rows), details)

    def _duplicates(self, low: int, high: int) -> pa.Table:
        found = self._selection.duplicates
        span = slice(*np.searchsorted(found.removed, [low, high]).tolist())
        reasons = pa.array(DUPLICATE_REASONS).take(pa.array(found.reasons[span]))
        return self._pairs(found.removed[span], found.kept[span], reasons, found.jaccard[span])

    def _in_other_phases(self, low: int, high: int) -> pa.Table:
        """Rows that are left to another phase, with the rows that it holds."""
        choice = self._selection.choice
        span = slice(*np.searchsorted(choice.refused, [low, high]).tolist())
        is_other = np.isin(choice.reasons[span], (IN_OTHER_PHASE, NEAR_IN_OTHER_PHASE))
        found = self._selection.taken.take(choice.refused[span][is_other])
        reasons = pa.array(MIX_REASONS).take(pa.array(choice.reasons[span][is_other]))
        return self._pairs(found.rows, found.kept, reasons, found.jaccard)

    def _pairs(
        self, removed: Rows, kept: Rows, reasons: pa.Array, jaccard: npt.NDArray[np.float32]
    ) -> pa.Table:
        ids = [pa.array(self._ids(rows), pa.string()) for rows in (removed, kept)]
        return pa.table([*ids, reasons, pa.array(jaccard)], schema=DUPLICATES_SCHEMA)

    def _as_refusals(self, duplicates: pa.Table, low: int, high: int) -> Refused:
        details = pc.binary_join_element_wise("kept", duplicates["kept_id"], "instead", " ")
        rows = _within(self._selection.duplicates.removed, low, high)
        return rows, _of_stage(duplicates["removed_id"], DEDUPE, duplicates["reason"], details)

    def _not_chosen(self, low: int, high: int) -> Refused:
        choice, settings = self._selection.choice, self._selection.settings
        span = slice(*np.searchsorted(choice.refused, [low, high]).tolist())
        rows, reasons = choice.refused[span], choice.reasons[span].tolist()
        sources = self._selection.corpus.features.source[rows].tolist()
        pairs = list(zip(sources, reasons, strict=True))
        texts = {pair: describe_refusal(settings, *pair) for pair in set(pairs)}
        names = [MIX_REASONS[reason] for reason in reasons]
        return self._table(rows, MIX, names, [texts[pair] for pair in pairs])

    def _table(self, rows: Rows, stage: str, reasons: list[str], details: list[str]) -> Refused:
        texts = [pa.array(column, pa.string()) for column in (self._ids(rows), reasons, details)]
        return rows, _of_stage(texts[0], stage, texts[1], texts[2])

    def _ids(self, rows: Rows) -> list[str]:
        return self._selection.corpus.features.hex_ids(rows)


def count_refused(selection: Selection) -> dict[str, int]:
    """Prepared rows that a phase left out, by stage and reason."""
    counts = {
        f"{DECONTAMINATE}: {REWORDED}": len(selection.reworded.rows),
        f"{MEASURE}: {OVER_MAX_TOKENS}": len(selection.over),
    }
    for stage, names, reasons in (
        (DEDUPE, DUPLICATE_REASONS, selection.duplicates.reasons),
        (MIX, MIX_REASONS, selection.choice.reasons),
    ):
        for name, count in zip(names, np.bincount(reasons, minlength=len(names)), strict=True):
            counts[f"{stage}: {name}"] = int(count)
    return {name: count for name, count in counts.items() if count}


def _within(rows: Rows, low: int, high: int) -> Rows:
    start, end = np.searchsorted(rows, [low, high])
    return rows[start:end]


def _of_stage(ids: Any, stage: str, reasons: Any, details: Any) -> pa.Table:
    """What a stage says of rows that it refused."""
    stages = pa.repeat(pa.scalar(stage), len(ids))
    texts = pa.repeat(pa.scalar(""), len(ids))
    fields = [REJECTED_SCHEMA.field(n) for n in ("row_id", "stage", "reason", "detail", "text")]
    return pa.table([ids, stages, reasons, details, texts], schema=pa.schema(fields))


def _tell_origins(parts: Sequence[Part], places: Rows) -> pa.Table:
    """Where rows stand in their sources, given by their places among the accepted rows of parts."""
    tables = []
    for _, source, index in parts:
        table = source.read_table(index, ("source_file", "source_position"))
        names = pa.repeat(pa.scalar(source.name), len(table))
        tables.append(table.add_column(0, "source", names))
    return pa.concat_tables(tables).take(places)


def _refusals(refused: pa.Table, origins: pa.Table) -> pa.Table:
    """Refused rows in the schema of all stages."""
    return pa.table([*refused.columns, *origins.columns], schema=REJECTED_SCHEMA)
