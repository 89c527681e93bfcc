"""An accepted row as it is stored between preparation and publication.

A stored row holds its long texts as they are, so that neither writing nor reading ever looks at
what they hold, its short columns as JSON, the sizes of both and a checksum. The completion comes
first: it is read to where it will be written from, and the rest, which is short, is overwritten
there by the next row. A row is read back once, soon after: compressing it took half as long as
counting its tokens (measured), so that is left to those who lack the disk.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from json.encoder import encode_basestring
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.json
import zstandard
from xxhash import xxh3_64, xxh3_64_digest

from curriculum.candidates import Candidate, Origin
from curriculum.measure import Size
from curriculum.texts import Utf8
from pipeline.errors import StoreError
from pipeline.records import TrainingRow, arrow_schema
from pipeline.word_hashes import offsets_of

ROW_SCHEMA = arrow_schema(TrainingRow)
_SIZES = struct.Struct("<4I")
"""Bytes of the completion, the short columns, the prompt and the question."""
_CHECKSUM_BYTES = 8
_LEVEL = -3
"""Compression of rows that are read back once: a third of the time of level 1, half as much larger
(measured); the published files are compressed well."""
_FRAME = b"\x28\xb5\x2f\xfd"
"""How a zstd frame begins, and no text: its second byte begins no character."""
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
    completion: Sequence[Utf8]
    """The assistant's turn, in pieces."""
    question: bytes


_NO_SYNTHESIS = '"concepts":[],"verdicts":[]'
"""Lists of a row that nobody synthesized, which are empty and not null."""
RECURRING_FIELDS = ("source", "source_revision", "licence", "domain", "difficulty")
"""Short columns whose values many rows share."""


def render_fields(row: Candidate, licence: str, size: Size) -> bytes:
    """A row's short columns as JSON, without making a record: ten thousand a second are written.

    Args:
        row: The row.
        licence: As it is published.
        size: Tokens of the row.
    """
    shared = (row.source, row.source_revision, licence, row.domain, row.difficulty)
    text = (
        f'{{{_render_recurring(*shared)},"id":"{row.row_id}",'
        f'"source_id":{encode_basestring(row.source_id)},'
        f'"num_prompt_tokens":{size.num_prompt_tokens},'
        f'"num_completion_tokens":{size.num_completion_tokens},"num_tokens":{size.num_tokens},'
        f'"provenance":{{{_render_origin(row.provenance)}}}}}'
    )
    return text.encode()


@lru_cache(maxsize=1024)
def _render_recurring(*values: str | None) -> str:
    pairs = zip(RECURRING_FIELDS, values, strict=True)
    return json.dumps(dict(pairs), ensure_ascii=False)[1:-1]


def _render_origin(origin: Origin) -> str:
    """Members of a :class:`pipeline.records.Provenance`; those that are left out are null."""
    teacher, row, dataset, split, file, position, synthesis = origin
    text = _render_place(teacher, dataset, split, file)
    if row is not None:
        text = f'{text},"source_row":{encode_basestring(row)}'
    if position is not None:
        text = f'{text},"source_position":{position}'
    others = json.dumps(synthesis, ensure_ascii=False)[1:-1] if synthesis else _NO_SYNTHESIS
    return f"{text},{others}"


@lru_cache(maxsize=1024)
def _render_place(*values: str | None) -> str:
    pairs = zip(("teacher", "source_dataset", "source_split", "source_file"), values, strict=True)
    return json.dumps(dict(pairs), ensure_ascii=False)[1:-1]


def pack_row(row: StoredRow) -> list[Utf8]:
    """A row as it is stored: the completion's pieces, which are not copied, and the rest."""
    # Most turns begin with the question.
    question = b"" if row.prompt.startswith(row.question) else row.question
    completion = sum(map(len, row.completion))
    sizes = _SIZES.pack(completion, len(row.fields), len(row.prompt), len(row.question))
    rest = b"".join((row.fields, row.prompt, question, sizes))
    digest = xxh3_64()
    for piece in row.completion:
        digest.update(piece)
    digest.update(rest)
    return [*row.completion, rest + digest.digest()]


def compress_row(pieces: Sequence[Utf8]) -> list[Utf8]:
    """A packed row with all but its checksum in a zstd frame."""
    data = memoryview(b"".join(pieces))
    frame = zstandard.ZstdCompressor(level=_LEVEL).compress(data[:-_CHECKSUM_BYTES])
    return [frame, data[-_CHECKSUM_BYTES:]]


class OpenedRow(NamedTuple):
    """A stored row's columns, as UTF-8."""

    fields: memoryview
    prompt: memoryview
    question: memoryview
    completion: memoryview
    """Where the stored row stands, unless it was compressed."""


def open_row(stored: memoryview) -> OpenedRow:
    """The columns of a stored row; all but the completion outlive what they were read from.

    Raises:
        ValueError: The row is damaged.
    """
    data = stored[:-_CHECKSUM_BYTES]
    if data[: len(_FRAME)] == _FRAME:
        try:
            data = memoryview(zstandard.ZstdDecompressor().decompress(data))
        except zstandard.ZstdError as exc:
            raise ValueError(str(exc)) from exc
    is_whole = len(data) >= _SIZES.size and xxh3_64_digest(data) == stored[-_CHECKSUM_BYTES:]
    if not is_whole:
        raise ValueError("a row is not what its checksum says")
    completion, fields, prompt, question = _SIZES.unpack_from(data, len(data) - _SIZES.size)
    rest = memoryview(bytes(data[completion : -_SIZES.size]))
    end = fields + prompt
    asked = rest[end:] if len(rest) > end else rest[fields : fields + question]
    return OpenedRow(rest[:fields], rest[fields:end], asked, data[:completion])


def make_table(rows: Sequence[OpenedRow], completions: pa.StringArray) -> pa.Table:
    """Opened rows as the columns of published ones.

    Args:
        rows: The rows.
        completions: Their completions, gathered.

    Raises:
        StoreError: They are longer than one column can hold.
    """
    columns = {
        **_parse_fields([row.fields for row in rows]),
        "prompt": _make_turns("prompt", "user", _join_texts([row.prompt for row in rows])),
        "completion": _make_turns("completion", "assistant", completions),
        "question": _join_texts([row.question for row in rows]),
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


def _join_texts(texts: Sequence[memoryview]) -> pa.StringArray:
    return make_texts([len(text) for text in texts], b"".join(texts))


def make_texts(sizes: Sequence[int], data: Any) -> pa.StringArray:
    """A column of texts that nobody looks at again: they were texts before.

    Args:
        sizes: Bytes of each.
        data: Their UTF-8, one after another, and anything behind.

    Raises:
        StoreError: They are longer than one column can hold.
    """
    offsets = offsets_of(sizes)
    if offsets[-1] > _MOST_BYTES:
        raise StoreError(
            f"{len(sizes)} rows hold {offsets[-1]:,} bytes of text, more than one row group can",
            hint="lower curriculum.validation.max_chars",
        )
    buffers = [pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
    return pa.StringArray.from_buffers(len(sizes), *buffers)


def _make_turns(column: str, role: str, contents: pa.StringArray) -> pa.Array:
    """Conversations of one turn each."""
    kind: Any = ROW_SCHEMA.field(column).type
    turn = kind.value_type
    roles = pa.array([role] * len(contents), pa.string())
    turns = pa.StructArray.from_arrays([roles, contents], fields=[turn.field(n) for n in range(2)])
    offsets = pa.array(np.arange(len(contents) + 1, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, turns, type=kind)
