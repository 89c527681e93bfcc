"""What the round before kept: competitors and few-shot examples of the next one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pyarrow as pa

from pipeline.manifest import Version
from pipeline.records import Domain, Seed, Triple, arrow_schema
from promptcot.bank import SeedTable
from promptcot.few_shot import ExampleIndex
from promptcot.rationales import problem_key, seed_of

_ROWS = 1024


class FormerRound:
    """The triples of a version, kept as an Arrow table: the bytes of their texts and a key each."""

    def __init__(self, version: Version) -> None:
        self.version = version
        schema = arrow_schema(Triple)
        self._batches: list[pa.RecordBatch] = []
        self._places: dict[str, tuple[int, int]] = {}
        rows: list[dict[str, object]] = []
        for row in version.rows():
            triple = Triple.model_validate(row)
            self._places[problem_key(seed_of(triple))] = (len(self._batches), len(rows))
            rows.append(row)
            if len(rows) == _ROWS:
                self._batches.append(pa.RecordBatch.from_pylist(rows, schema=schema))
                rows = []
        self._batches.append(pa.RecordBatch.from_pylist(rows, schema=schema))

    def find(self, key: str) -> Triple | None:
        """The triple kept for the problem with this key."""
        if key not in self._places:
            return None
        batch, row = self._places[key]
        return Triple.model_validate(self._batches[batch].slice(row, 1).to_pylist()[0])

    def indexes(self) -> dict[Domain, ExampleIndex]:
        """Few-shot examples by domain."""
        table = _seed_table(self._triples())
        domains: tuple[Domain, ...] = get_args(Domain)
        return {domain: ExampleIndex(table.of_domain(domain)) for domain in domains}

    def _triples(self) -> Iterator[Triple]:
        for batch in self._batches:
            yield from (Triple.model_validate(row) for row in batch.to_pylist())


def _seed_table(triples: Iterator[Triple]) -> SeedTable:
    schema = arrow_schema(Seed)
    batches, rows = [], []
    for triple in triples:
        rows.append(seed_of(triple).model_dump(mode="json"))
        if len(rows) == _ROWS:
            batches.append(pa.RecordBatch.from_pylist(rows, schema=schema))
            rows = []
    batches.append(pa.RecordBatch.from_pylist(rows, schema=schema))
    return SeedTable(pa.Table.from_batches(batches, schema=schema))
