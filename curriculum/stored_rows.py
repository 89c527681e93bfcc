"""An accepted row as it is stored between preparation and publication: one zstd frame.

A frame holds the row's short columns as JSON and its three long texts as they are, so that neither
writing nor reading ever looks at what the texts hold.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.json
import zstandard

from pipeline.records import Provenance, TrainingRow, arrow_schema

ROW_SCHEMA = arrow_schema(TrainingRow)
_SIZES = struct.Struct("<4I")
"""Bytes of the short columns, the prompt, the completion and the question."""
_LEVEL = -3
"""Compression of rows that are read back once: a third of the time of level 1, half as much larger
(measured); the published files are compressed well."""


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


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row as it is stored; texts are UTF-8."""

    fields: bytes
    """The short columns as JSON."""
    prompt: bytes
    """The user's turn."""
    completion: bytes
    """The assistant's turn."""
    question: bytes


def render_fields(values: Mapping[str, Any], provenance: Provenance) -> bytes:
    """A row's short columns as JSON, without making a record: ten thousand a second are written.

    Args:
        values: All fields but the provenance.
        provenance: Of the row.
    """
    text = json.dumps(values, ensure_ascii=False)
    return f'{text[:-1]}, "provenance": {provenance.model_dump_json()}}}'.encode()


def compress_rows(rows: Sequence[StoredRow]) -> list[bytes]:
    """A frame of every row."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    return [compressor.compress(_join(row)) for row in rows]


def _join(row: StoredRow) -> bytes:
    parts = (row.fields, row.prompt, row.completion, row.question)
    return b"".join((_SIZES.pack(*map(len, parts)), *parts))


def open_frame(frame: bytes, decompressor: zstandard.ZstdDecompressor) -> list[bytes]:
    """A row's short columns, prompt, completion and question.

    Raises:
        ValueError: The frame is damaged.
    """
    try:
        data = decompressor.decompress(frame)
        sizes = _SIZES.unpack_from(data)
    except (zstandard.ZstdError, struct.error) as exc:
        raise ValueError(str(exc)) from exc
    if sum(sizes) + _SIZES.size != len(data):
        raise ValueError(f"{len(data)} bytes where {sum(sizes) + _SIZES.size} are announced")
    parts, start = [], _SIZES.size
    for size in sizes:
        parts.append(data[start : start + size])
        start += size
    return parts


def make_table(rows: Sequence[Sequence[bytes]]) -> pa.Table:
    """Opened frames as the columns of published rows."""
    fields, prompts, completions, questions = zip(*rows, strict=True)
    columns = {
        **_parse_fields(fields),
        "prompt": _make_turns("prompt", "user", prompts),
        "completion": _make_turns("completion", "assistant", completions),
        "question": pa.array(questions, pa.string()),
    }
    return pa.table([columns[name] for name in ROW_SCHEMA.names], schema=ROW_SCHEMA)


def _parse_fields(lines: Sequence[bytes]) -> dict[str, pa.Array]:
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


def _make_turns(column: str, role: str, contents: Sequence[bytes]) -> pa.Array:
    """Conversations of one turn each."""
    kind: Any = ROW_SCHEMA.field(column).type
    turn = kind.value_type
    roles = pa.array([role] * len(contents), pa.string())
    turns = pa.StructArray.from_arrays(
        [roles, pa.array(contents, pa.string())], fields=[turn.field(n) for n in range(2)]
    )
    offsets = pa.array(range(len(contents) + 1), pa.int32())
    return pa.ListArray.from_arrays(offsets, turns, type=kind)
