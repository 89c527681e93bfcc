"""Prepared sources on disk: what one source's rows became, whatever phase takes them later.

    <out>/prepared/<source>/<version>/part-000000.rows                 accepted rows
    <out>/prepared/<source>/<version>/part-000000.rejected.parquet     refused rows
    <out>/prepared/<source>/<version>/part-000000.table.parquet        features; written last
    <out>/prepared/<source>/<version>/manifest.json                    totals; ends the preparation

A part whose table exists is finished. Any rows, in any order, can be gathered by their offsets
without another pass over the texts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curriculum.features import DOMAINS, Features, pack_ids
from curriculum.row_files import append_rows
from curriculum.stored_rows import StoredRow
from pipeline.errors import StoreError
from pipeline.manifest import Manifest
from pipeline.near_duplicates import NUM_BANDS
from pipeline.records import Record, Rejected, arrow_schema
from pipeline.store import atomic_path, write_parquet
from pipeline.word_hashes import offsets_of

_COUNTS = b"counts"
"""Key of a table's metadata that holds what else its part became."""


class Finding(Record):
    """A benchmark item found in a row."""

    benchmark: str
    item_id: str
    rule: str
    score: float
    part: str
    span: str
    differs: str = ""
    """Of a template twin: in what it differs from the item."""


TABLE_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.binary(16), nullable=False),
        pa.field("source_file", pa.string()),
        pa.field("source_position", pa.int64()),
        pa.field("offset", pa.uint64(), nullable=False),
        pa.field("size", pa.uint32(), nullable=False),
        pa.field("question", pa.uint64(), nullable=False),
        pa.field("trace", pa.uint64(), nullable=False),
        pa.field("numbers", pa.uint64(), nullable=False),
        pa.field("answer", pa.uint32(), nullable=False),
        pa.field("num_prompt_tokens", pa.uint32(), nullable=False),
        pa.field("num_completion_tokens", pa.uint32(), nullable=False),
        pa.field("num_chars", pa.uint32(), nullable=False),
        pa.field("is_verified", pa.bool_(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("difficulty_rank", pa.float32(), nullable=False),
        pa.field("bands", pa.binary(4 * NUM_BANDS), nullable=False),
        pa.field("grams", pa.list_(pa.uint32()), nullable=False),
    ]
)
"""What a phase needs to know of an accepted row; ``answer`` is a hash of its boxed answer, 0 for
none, and ``bands`` are 32-bit keys, one after another."""


_NUMBERS = (
    "question",
    "trace",
    "num_prompt_tokens",
    "num_completion_tokens",
    "is_verified",
    "difficulty_rank",
)
FEATURES = ("row_id", "domain", "licence", *_NUMBERS)
"""Columns that become :class:`curriculum.features.Features`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A few rows of a part, prepared: what is in memory together."""

    num_in: int
    rows: Sequence[StoredRow]
    columns: Mapping[str, Any]
    """Arrays or lists of the table's columns, but for ``offset`` and ``size``."""
    rejected: Sequence[Rejected]
    findings: Sequence[tuple[str, Finding]] = ()
    """Benchmark items in accepted and in rejected rows, with the row's id."""


@dataclass(frozen=True, slots=True)
class PartCounts:
    """What a part became, in numbers."""

    num_in: int
    rejected: dict[str, dict[str, int]]
    findings: list[dict[str, Any]]


def part_stem(index: int) -> str:
    """Common beginning of a part's file names."""
    return f"part-{index:06d}"


def table_path(folder: Path, index: int) -> Path:
    """The file that says that a part is finished."""
    return folder / f"{part_stem(index)}.table.parquet"


def rows_path(folder: Path, index: int) -> Path:
    """The file that holds a part's accepted rows."""
    return folder / f"{part_stem(index)}.rows"


def rejected_path(folder: Path, index: int) -> Path:
    """The file that holds a part's refused rows; absent when there are none."""
    return folder / f"{part_stem(index)}.rejected.parquet"


def write_part(
    folder: Path, index: int, slices: Iterable[Slice], *, compress: bool = False
) -> PartCounts:
    """Write a part's files as its slices come, the table last.

    Args:
        folder: Of the preparation.
        index: The part.
        slices: Its rows, in order.
        compress: Whether accepted rows are compressed.

    Raises:
        StoreError: Rows do not add up, or the disk is full.
    """
    tables, num_in = [TABLE_SCHEMA.empty_table()], 0
    rejected: list[Rejected] = []
    findings: list[dict[str, Any]] = []
    with (
        atomic_path(rows_path(folder, index)) as temporary,
        temporary.open("wb", buffering=0) as handle,
    ):
        for piece in slices:
            tables.append(_write_slice(piece, handle, compress=compress))
            rejected += piece.rejected
            findings += [{"row_id": row_id, **f.model_dump()} for row_id, f in piece.findings]
            num_in += piece.num_in
    reasons: dict[str, Counter[str]] = {}
    for row in rejected:
        reasons.setdefault(row.stage, Counter())[row.reason] += 1
    counts = PartCounts(
        num_in, {stage: dict(sorted(c.items())) for stage, c in sorted(reasons.items())}, findings
    )
    if rejected:
        write_parquet(rejected_path(folder, index), rejected, arrow_schema(Rejected))
    _write_table(table_path(folder, index), pa.concat_tables(tables), counts)
    return counts


def _write_slice(piece: Slice, handle: FileIO, *, compress: bool) -> pa.Table:
    """Append the rows; their features."""
    if piece.num_in != len(piece.rows) + len(piece.rejected):
        raise StoreError(
            f"{piece.num_in} rows in, {len(piece.rows)} accepted, {len(piece.rejected)} rejected",
            hint="report this with the recipe; nothing was published",
        )
    start = handle.tell()
    sizes = append_rows(handle.fileno(), piece.rows, compress=compress)
    offsets = start + offsets_of(sizes)[:-1]
    columns = {
        **piece.columns,
        "offset": offsets.astype(np.uint64),
        "size": np.array(sizes, dtype=np.uint32),
    }
    arrays = [make_column(columns[column.name], column.type) for column in TABLE_SCHEMA]
    return pa.table(arrays, schema=TABLE_SCHEMA)


def make_column(values: Any, kind: pa.DataType) -> pa.Array:
    """A table's column of an array or list."""
    return values if isinstance(values, pa.Array) else pa.array(values, kind)


def _write_table(path: Path, table: pa.Table, counts: PartCounts) -> None:
    text = json.dumps(asdict(counts), sort_keys=True, ensure_ascii=False)
    table = table.replace_schema_metadata({_COUNTS: text.encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, version="2.6", compression="lz4", use_dictionary=False)


def decode_features(table: pa.Table, source: int) -> Features:
    """A table's features as arrays; ``source`` is the place of its source in the phase."""
    licences = table["licence"].combine_chunks().dictionary_encode()
    domains = table["domain"].combine_chunks().dictionary_encode()
    codes = [DOMAINS.index(name) for name in domains.dictionary.to_pylist()]
    numbers: dict[str, Any] = {name: table[name].to_numpy() for name in _NUMBERS}
    return Features(
        source=np.full(len(table), source, dtype=np.uint8),
        row_id=pack_ids(read_fixed(table["row_id"]).tobytes()),
        domain=np.array(codes, dtype=np.uint8)[domains.indices.to_numpy()],
        licence=licences.indices.to_numpy().astype(np.uint16),
        licences=tuple(licences.dictionary.to_pylist()),
        **numbers,
    )


def read_fixed(column: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    """A column of byte strings of one length, a row each."""
    values = column.combine_chunks()
    width = values.type.byte_width
    data = np.frombuffer(values.buffers()[1] or b"", dtype=np.uint8)
    whole: npt.NDArray[np.uint8] = data[: (values.offset + len(values)) * width]
    return whole.reshape(-1, width)[values.offset :]


@dataclass(frozen=True)
class PreparedSource:
    """A finished preparation."""

    name: str
    """The source's name in the recipe."""
    folder: Path
    manifest: Manifest = field(repr=False)

    @cached_property
    def num_parts(self) -> int:
        """Parts, numbered from 0."""
        return int(self.manifest.extra["num_parts"])

    def read_table(self, index: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of a part's table."""
        # Not read_table, whose data set of one file takes longer to open than these to read.
        with pq.ParquetFile(table_path(self.folder, index)) as file:
            return file.read(columns=list(columns), use_threads=False)

    def read_counts(self, index: int) -> PartCounts:
        """What a part became."""
        return read_counts(self.folder, index)

    def read_rejected(self, index: int) -> pa.Table:
        """A part's refused rows."""
        path = rejected_path(self.folder, index)
        return pq.read_table(path) if path.is_file() else arrow_schema(Rejected).empty_table()


def read_counts(folder: Path, index: int) -> PartCounts:
    """What a part became, from its table's metadata."""
    metadata = pq.read_schema(table_path(folder, index)).metadata
    return PartCounts(**json.loads(metadata[_COUNTS]))
