"""Long texts of a Parquet column as views of the memory that it was decoded into."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

_TEXTS_OF_TURNS = ("value", "content")
"""Fields of a turn that hold its text."""


def read_texts(column: pa.Array) -> list[memoryview | None]:
    """Each text's UTF-8.

    Args:
        column: Texts of any of Arrow's types, valid UTF-8.
    """
    is_short, is_large = pa.types.is_string(column.type), pa.types.is_large_string(column.type)
    texts = column if is_short or is_large else column.cast(pa.large_string())
    _, places, data = texts.buffers()
    if data is None:
        return [memoryview(b"") if valid else None for valid in texts.is_valid().to_pylist()]
    all_offsets = np.frombuffer(places, np.int32 if is_short else np.int64)
    offsets = all_offsets[texts.offset : texts.offset + len(texts) + 1].tolist()
    whole = memoryview(data)
    views: list[memoryview | None] = [whole[start:end] for start, end in pairwise(offsets)]
    if texts.null_count:
        for row in np.flatnonzero(texts.is_null().to_numpy(zero_copy_only=False)).tolist():
            views[row] = None
    return views


def read_exchanges(column: pa.Array) -> list[Any]:
    """Each row's turns as objects, whose texts are views.

    Args:
        column: Lists; what is in them is looked at by those who take turns apart.
    """
    kind = column.type.value_type
    if not pa.types.is_struct(kind) or not kind.num_fields:
        return list(column.to_pylist())
    turns = column.flatten()
    names = [field.name for field in kind]
    children = [
        _read_child(name, child) for name, child in zip(names, turns.flatten(), strict=True)
    ]
    objects = (dict(zip(names, values, strict=True)) for values in zip(*children, strict=True))
    counts = column.value_lengths().to_pylist()
    return [None if count is None else [next(objects) for _ in range(count)] for count in counts]


def _read_child(name: str, child: pa.Array) -> list[Any]:
    is_text = pa.types.is_string(child.type) or pa.types.is_large_string(child.type)
    if is_text and name in _TEXTS_OF_TURNS:
        return read_texts(child)
    return list(child.to_pylist())
