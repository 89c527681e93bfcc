"""An accepted row as it is stored between preparation and publication.

A stored row holds the row's short columns as JSON and its long texts as they are, so that neither
writing nor reading ever looks at what the texts hold, and a checksum. It is read back once, soon
after: compressing it took half as long as counting its tokens (measured), so that is left to those
who lack the disk.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from json.encoder import encode_basestring
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.json
import zstandard
from xxhash import xxh3_64_digest

from pipeline.errors import StoreError
from pipeline.records import Provenance, TrainingRow, arrow_schema
from pipeline.word_hashes import offsets_of

ROW_SCHEMA = arrow_schema(TrainingRow)
_SIZES = struct.Struct("<4I")
"""Bytes of the short columns, the prompt, the completion and the question."""
_CHECKSUM_BYTES = 8
_NO_CHECKSUM = bytes(_CHECKSUM_BYTES)
_LEVEL = -3
"""Compression of rows that are read back once: a third of the time of level 1, half as much larger
(measured); the published files are compressed well."""
_FRAME = b"\x28\xb5\x2f\xfd"
"""How a zstd frame begins; no row's short columns are so long that their size does."""
_MOST_BYTES = 2**31 - 1
"""Of one column of a row group: what 32-bit offsets reach."""


_TEXTS = ("prompt", "completion", "question")
RECURRING_COLUMNS = (
    "prompt.list.element.role",
    "completion.list.element.role",
    "source",
    "source_revision",
    "licence",
    "domain",
    "difficulty",
    *(
        f"provenance.{name}"
        for name in ("teacher", "source_dataset", "source_split", "source_file")
    ),
    "provenance.level",
    "provenance.concepts.list.element",
    "provenance.verdicts.list.element",
)
"""Parquet columns whose values recur; the rest is numbers, keys and long texts."""
_FIELDS_SCHEMA = pa.schema([field for field in ROW_SCHEMA if field.name not in _TEXTS])
"""The short columns."""


class StoredRow(NamedTuple):
    """A row as it is stored; texts are UTF-8."""

    fields: bytes
    """The short columns as JSON."""
    prompt: bytes
    """The user's turn."""
    completion: bytes | memoryview
    """The assistant's turn."""
    question: bytes


RECURRING_FIELDS = ("source", "source_revision", "licence", "domain", "difficulty")
"""Short columns whose values many rows share."""


def render_fields(
    recurring: tuple[str | None, ...], own: Mapping[str, str | int], provenance: Provenance
) -> bytes:
    """A row's short columns as JSON, without making a record: ten thousand a second are written.

    Args:
        recurring: Values of :data:`RECURRING_FIELDS`.
        own: All other fields but the provenance.
        provenance: Of the row.
    """
    parts = [_render_recurring(*recurring)]
    for name, value in own.items():
        text = encode_basestring(value) if isinstance(value, str) else value
        parts.append(f'"{name}":{text}')
    parts.append(f'"provenance":{provenance.model_dump_json()}')
    return f"{{{','.join(parts)}}}".encode()


@lru_cache(maxsize=1024)
def _render_recurring(*values: str | None) -> str:
    pairs = zip(RECURRING_FIELDS, values, strict=True)
    return json.dumps(dict(pairs), ensure_ascii=False)[1:-1]


def join_rows(rows: Sequence[StoredRow], *, compress: bool) -> tuple[bytearray, list[int]]:
    """Rows as they are stored, one after another, and the size of each.

    Args:
        rows: The rows.
        compress: Whether each becomes a zstd frame.
    """
    parts = [_parts(row) for row in rows]
    lengths = [sum(map(len, part)) for part in parts]
    # Joined once: a row's checksum is written where its place was left.
    data = bytearray().join([piece for part in parts for piece in (*part, _NO_CHECKSUM)])
    whole, end = memoryview(data), 0
    for length in lengths:
        start, end = end, end + length
        checksum = xxh3_64_digest(whole[start:end])
        start, end = end, end + _CHECKSUM_BYTES
        whole[start:end] = checksum
    sizes = [length + _CHECKSUM_BYTES for length in lengths]
    return _compress(whole, sizes) if compress else (data, sizes)


def _parts(row: StoredRow) -> tuple[bytes | memoryview, ...]:
    sizes = _SIZES.pack(len(row.fields), len(row.prompt), len(row.completion), len(row.question))
    # Most turns begin with the question.
    question = b"" if row.prompt.startswith(row.question) else row.question
    return sizes, row.fields, row.prompt, row.completion, question


def _compress(rows: memoryview, sizes: Sequence[int]) -> tuple[bytearray, list[int]]:
    """Each row as a frame, its checksum as it is."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    pieces: list[bytes | memoryview] = []
    found, end = [], 0
    for size in sizes:
        start, end = end, end + size
        frame = compressor.compress(rows[start : end - _CHECKSUM_BYTES])
        pieces += [frame, rows[end - _CHECKSUM_BYTES : end]]
        found.append(len(frame) + _CHECKSUM_BYTES)
    return bytearray().join(pieces), found


def open_row(stored: bytes) -> tuple[memoryview, memoryview, memoryview, memoryview]:
    """A row's short columns, prompt, completion and question.

    Raises:
        ValueError: The row is damaged.
    """
    data = memoryview(stored)[:-_CHECKSUM_BYTES]
    if data[: len(_FRAME)] == _FRAME:
        try:
            data = memoryview(zstandard.ZstdDecompressor().decompress(data))
        except zstandard.ZstdError as exc:
            raise ValueError(str(exc)) from exc
    if xxh3_64_digest(data) != stored[-_CHECKSUM_BYTES:]:
        raise ValueError("a row is not what its checksum says")
    fields, prompt, completion, question = _SIZES.unpack_from(data)
    start = _SIZES.size + fields
    middle, end = start + prompt, start + prompt + completion
    asked = data[end:] if len(data) > end else data[start : start + question]
    return data[_SIZES.size : start], data[start:middle], data[middle:end], asked


def make_table(rows: Sequence[Sequence[memoryview]]) -> pa.Table:
    """Opened rows as the columns of published ones."""
    fields, prompts, completions, questions = zip(*rows, strict=True)
    columns = {
        **_parse_fields(fields),
        "prompt": _make_turns("prompt", "user", prompts),
        "completion": _make_turns("completion", "assistant", completions),
        "question": _make_texts(questions),
    }
    return pa.table([columns[name] for name in ROW_SCHEMA.names], schema=ROW_SCHEMA)


def _parse_fields(lines: Sequence[memoryview]) -> dict[str, pa.Array]:
    """Short columns; five times faster than by way of Python objects (measured)."""
    data = b"\n".join(lines)
    table = pyarrow.json.read_json(
        BytesIO(data),
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=_FIELDS_SCHEMA, unexpected_field_behavior="error"
        ),
    ).cast(_FIELDS_SCHEMA)
    return {name: table[name].combine_chunks() for name in table.column_names}


def _make_texts(texts: Sequence[memoryview]) -> pa.Array:
    """A column of texts, whose bytes are copied once and not looked at: they were texts before.

    Raises:
        StoreError: They are longer than one column can hold.
    """
    offsets = offsets_of([len(text) for text in texts])
    if offsets[-1] > _MOST_BYTES:
        raise StoreError(
            f"{len(texts)} rows hold {offsets[-1]:,} bytes of text, more than one row group can",
            hint="lower curriculum.validation.max_chars",
        )
    buffers = [pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(b"".join(texts))]
    return pa.StringArray.from_buffers(len(texts), *buffers)


def _make_turns(column: str, role: str, contents: Sequence[memoryview]) -> pa.Array:
    """Conversations of one turn each."""
    kind: Any = ROW_SCHEMA.field(column).type
    turn = kind.value_type
    roles = pa.array([role] * len(contents), pa.string())
    turns = pa.StructArray.from_arrays(
        [roles, _make_texts(contents)], fields=[turn.field(n) for n in range(2)]
    )
    offsets = pa.array(range(len(contents) + 1), pa.int32())
    return pa.ListArray.from_arrays(offsets, turns, type=kind)
