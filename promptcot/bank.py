"""The concept bank: which concepts exist, how often, and which ones occur together.

Input: seeds, each one problem's concepts (see :class:`pipeline.records.Seed`), from the version
that stage ``concepts`` made of ``[[synthesis.seeds]]``, or from the JSONL file ``synthesis.bank``.
:func:`open_bank` is the one way to get them.

Counts are kept sparse and flat, eight bytes a neighbour: 1,000,000 seeds of 100,000 concepts with
8 million different pairs take 130 MiB, and 0.5 GiB while they are counted.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import ValidationError

from pipeline.errors import SourceError
from pipeline.hashing import file_sha256
from pipeline.manifest import InputRef, Version
from pipeline.records import Domain, Seed, arrow_schema
from pipeline.store import read_rows
from promptcot.run_context import SynthesisRun, input_of
from promptcot.stage_names import BANK

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
_TABLE_ROWS = 4096
"""Rows turned into records at once while seeds are iterated."""


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """One domain's concepts, in alphabetical order so that draws do not depend on hashing.

    Co-occurrence is a symmetric sparse matrix without a diagonal, in compressed rows.
    """

    domain: Domain
    seeds: Sequence[Seed]
    concepts: tuple[str, ...]
    frequency: Int64s
    """Seeds that hold each concept."""
    indptr: Int32s
    """Concept ``i``'s neighbours stand at ``indptr[i]:indptr[i + 1]``."""
    indices: Int32s
    """Neighbours of all concepts, ascending within each."""
    counts: Int32s
    """For each neighbour: the number of seeds that hold both."""

    def neighbours(self, concept: int) -> tuple[Int32s, Int32s]:
        """Concepts that share a seed with this one, and how many they share."""
        start, end = self.indptr[concept], self.indptr[concept + 1]
        return self.indices[start:end], self.counts[start:end]


class BankSource:
    """A run's seeds and what names them."""

    def __init__(self, ref: InputRef, seeds: Sequence[Seed]) -> None:
        self.input = ref
        """What a stage that reads the bank lists among its inputs."""
        self._seeds = seeds

    def seeds(self, domain: Domain) -> Sequence[Seed]:
        """The seeds of one domain, in their stored order; empty if there are none."""
        if isinstance(self._seeds, SeedTable):
            return self._seeds.of_domain(domain)
        return tuple(seed for seed in self._seeds if seed.domain == domain)


def open_bank(run: SynthesisRun) -> BankSource:
    """The run's bank: made from ``[[synthesis.seeds]]`` where the recipe lists any.

    Raises:
        SourceError: The bank or a seed file is missing, empty or malformed.
        TooManyRejected: No seed was fit for the bank.
    """
    if run.settings.seeds:
        # Here, because extraction needs engines and stages that a bank from a file does not.
        from promptcot.concepts import run_concepts

        version = run_concepts(run)
        return BankSource(input_of(version, BANK), SeedTable.of_version(version))
    path = run.recipe.file(run.settings.bank)
    seeds = load_bank(path)
    return BankSource(InputRef(name="bank", version=file_sha256(path)), seeds)


class SeedTable(Sequence[Seed]):
    """Seeds kept as one Arrow table; each becomes a record when it is asked for.

    Costs about the bytes of the texts (0.7 KB for a competition problem), a quarter of records.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @classmethod
    def of_version(cls, version: Version) -> SeedTable:
        """The rows of a ``concepts`` version."""
        schema = arrow_schema(Seed)
        batches: list[pa.RecordBatch] = []
        for path in version.shard_paths():
            rows: list[dict[str, object]] = []
            for row in read_rows(path):
                rows.append(row)
                if len(rows) == _TABLE_ROWS:
                    batches.append(pa.RecordBatch.from_pylist(rows, schema=schema))
                    rows = []
            batches.append(pa.RecordBatch.from_pylist(rows, schema=schema))
        return cls(pa.Table.from_batches(batches, schema=schema))

    def of_domain(self, domain: Domain) -> SeedTable:
        """The seeds of one domain."""
        column = self._table.column("domain").to_pylist()
        chosen = [value == domain for value in column]
        return self if all(chosen) else SeedTable(self._table.filter(pa.array(chosen)))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[Seed]:
        for batch in self._table.to_batches(max_chunksize=_TABLE_ROWS):
            yield from (Seed.model_validate(row) for row in batch.to_pylist())

    @overload
    def __getitem__(self, index: int) -> Seed: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Seed]: ...
    def __getitem__(self, index: int | slice) -> Seed | Sequence[Seed]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(index)
        chunk = int(np.searchsorted(self._starts, position, side="right")) - 1
        row = self._chunks[chunk].slice(position - int(self._starts[chunk]), 1).to_pylist()[0]
        return Seed.model_validate(row)

    @cached_property
    def _chunks(self) -> list[pa.RecordBatch]:
        return [batch for batch in self._table.to_batches() if batch.num_rows]

    @cached_property
    def _starts(self) -> Int64s:
        sizes = [batch.num_rows for batch in self._chunks]
        return np.cumsum([0, *sizes[:-1]], dtype=np.int64)


def load_bank(path: Path) -> tuple[Seed, ...]:
    """Read and check a seed file.

    Raises:
        SourceError: The file is missing, empty, or a line is not a seed.
    """
    if not path.is_file():
        raise SourceError(
            f"concept bank not found: {path}", hint="set synthesis.bank to a JSONL file of seeds"
        )
    seeds = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            seeds.append(_parse_seed(path, number, line))
    if not seeds:
        raise SourceError(f"{path}: no seeds in it", hint="write one seed (a JSON object) a line")
    return tuple(seeds)


def _parse_seed(path: Path, number: int, line: str) -> Seed:
    try:
        seed = Seed.model_validate(json.loads(line))
    except (json.JSONDecodeError, ValidationError) as exc:
        raise SourceError(
            f"{path}, line {number}: not a seed ({str(exc).splitlines()[0]})",
            hint='each line is {"concepts": [two or more names], "domain": "math" or "code", '
            '"level": …, "problem": …, "rationale": …}',
        ) from exc
    if len(set(seed.concepts)) != len(seed.concepts):
        raise SourceError(
            f"{path}, line {number}: a concept is named twice: {', '.join(seed.concepts)}",
            hint="name each concept once",
        )
    return seed


def build_bank(seeds: Sequence[Seed], domain: Domain) -> Bank:
    """Count frequencies and co-occurrences of one domain's concepts.

    Raises:
        SourceError: No seed of this domain.
    """
    chosen: Sequence[Seed] = seeds
    if any(seed.domain != domain for seed in seeds):
        chosen = tuple(seed for seed in seeds if seed.domain == domain)
    if not chosen:
        raise SourceError(
            f"the concept bank has no seeds of the domain {domain!r}",
            hint="add some, or set synthesis.combinations.math_share so that it is not needed",
        )
    names, mentions, sizes = _number_concepts(seed.concepts for seed in chosen)
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), dtype=np.int32)
    rank[order] = np.arange(len(names), dtype=np.int32)
    mentions = rank[mentions]
    indptr, indices, counts = _count_pairs(mentions, sizes, len(names))
    return Bank(
        domain=domain,
        seeds=chosen,
        concepts=tuple(names[index] for index in order),
        frequency=np.bincount(mentions, minlength=len(names)).astype(np.int64),
        indptr=indptr,
        indices=indices,
        counts=counts,
    )


def _number_concepts(lists: Iterable[Sequence[str]]) -> tuple[list[str], Int32s, Int32s]:
    """Names in order of appearance; all mentions as numbers, list after list; list lengths."""
    numbers: dict[str, int] = {}
    mentions, sizes = array("i"), array("i")
    for concepts in lists:
        sizes.append(len(concepts))
        mentions.extend(numbers.setdefault(concept, len(numbers)) for concept in concepts)
    return (
        list(numbers),
        np.frombuffer(mentions, dtype=np.int32),
        np.frombuffer(sizes, dtype=np.int32),
    )


def _count_pairs(mentions: Int32s, sizes: Int32s, num: int) -> tuple[Int32s, Int32s, Int32s]:
    """Shared seeds of each pair of concepts, as compressed rows."""
    keys = _pair_keys(mentions, sizes, num)
    keys.sort()
    firsts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
    shared = np.diff(firsts, append=len(keys)).astype(np.int32)
    low = (keys[firsts] // num).astype(np.int32)
    high = (keys[firsts] % num).astype(np.int32)
    del keys, firsts
    # Row i is its smaller neighbours (the pairs sorted by their larger end), then its larger ones.
    num_smaller, num_larger = np.bincount(high, minlength=num), np.bincount(low, minlength=num)
    indptr = np.concatenate([[0], np.cumsum(num_smaller + num_larger)]).astype(np.int32)
    indices, counts = np.empty(2 * len(low), np.int32), np.empty(2 * len(low), np.int32)
    by_high = np.argsort(high, kind="stable").astype(np.int32)
    smaller = _places(indptr[:-1], num_smaller)
    indices[smaller], counts[smaller] = low[by_high], shared[by_high]
    del smaller, by_high
    larger = _places(indptr[:-1] + num_smaller, num_larger)
    indices[larger], counts[larger] = high, shared
    return indptr, indices, counts


def _pair_keys(mentions: Int32s, sizes: Int32s, num: int) -> Int64s:
    """``smaller * num + larger`` for each pair of each seed: eight bytes a pair."""
    starts = np.cumsum(sizes, dtype=np.int64) - sizes
    keys = np.empty(int((sizes.astype(np.int64) * (sizes - 1) // 2).sum()), dtype=np.int64)
    filled = 0
    for size in np.unique(sizes):
        first = starts[sizes == size]
        for i, j in combinations(range(int(size)), 2):
            a, b = mentions[first + i], mentions[first + j]
            pairs = np.minimum(a, b).astype(np.int64) * num + np.maximum(a, b)
            keys[filled : filled + len(pairs)] = pairs
            filled += len(pairs)
    return keys


def _places(starts: Int32s | Int64s, sizes: Int64s) -> Int32s:
    """The positions ``starts[i], …, starts[i] + sizes[i] - 1`` of all rows, one after another."""
    shift = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes).astype(np.int32)
    return np.arange(len(shift), dtype=np.int32) + shift
