"""Which rows two versions share, and why the others are in one of them only.

Held in memory: 40 bytes a row of each version (hashes of its id and of its parts), no texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from pipeline.hashing import canonical_json
from pipeline.manifest import Version
from pipeline.store import ROW_GROUP_ROWS, read_rows

if TYPE_CHECKING:
    import pyarrow as pa

Keys = npt.NDArray[np.uint64]

PARTS: dict[str, tuple[str, ...]] = {
    "text": ("prompt", "completion", "question"),
    "labels": ("source", "source_revision", "source_id", "licence", "domain", "difficulty"),
    "tokens": ("num_prompt_tokens", "num_completion_tokens"),
    "provenance": ("provenance",),
}
"""What of a row can change while its id stays."""
MAX_EXAMPLES = 5
_UNKNOWN = ("", "not among the inputs")
_COPIES = ("mix", "fewer copies")


@dataclass(frozen=True, slots=True)
class RowKeys:
    """The rows of a version, in their order."""

    version: Version
    ids: Keys
    base_ids: Keys
    """Ids without the number of a copy."""
    sources: npt.NDArray[np.uint16]
    parts: npt.NDArray[np.uint32]
    """Shape (n, number of parts): a hash of each part."""
    source_names: tuple[str, ...]

    def find(self, keys: Keys) -> npt.NDArray[np.int64]:
        """The place of each key, or -1."""
        order = np.argsort(self.ids, kind="stable")
        ranks = np.searchsorted(self.ids, keys, sorter=order)
        places = order[np.minimum(ranks, max(0, len(order) - 1))] if len(order) else ranks
        is_found = (self.ids[places] == keys) if len(order) else np.zeros(len(keys), np.bool_)
        found: npt.NDArray[np.int64] = np.where(is_found, places, -1)
        return found


def compare_rows(a: Version, b: Version) -> dict[str, Any]:
    """Rows in both, added, removed and changed, by source and reason."""
    old, new = read_keys(a), read_keys(b)
    in_new, in_old = new.find(old.ids), old.find(new.ids)
    common = np.flatnonzero(in_new >= 0)
    differs = old.parts[common] != new.parts[in_new[common]]
    changed = common[differs.any(axis=1)]
    return {
        "rows": {
            "in_both": len(common),
            "only_in_a": int((in_new < 0).sum()),
            "only_in_b": int((in_old < 0).sum()),
        },
        "changed": {
            "rows": len(changed),
            **{name: int(differs[:, number].sum()) for number, name in enumerate(PARTS)},
            "examples": _examples(a, old, changed),
        },
        "same_order": bool((np.diff(in_new[common]) > 0).all()),
        "removed": _account(old, np.flatnonzero(in_new < 0), new),
        "added": _account(new, np.flatnonzero(in_old < 0), old),
    }


def read_keys(version: Version) -> RowKeys:
    """Hash a version's rows, in one pass over its shards."""
    names: dict[str, int] = {}
    blocks = [
        _read_block(batch, names) for path in version.shard_paths() for batch in _batches(path)
    ]
    columns = zip(*blocks, strict=True) if blocks else iter([(), (), (), ()])
    ids, base_ids, sources, parts = (np.concatenate(c) if c else np.zeros(0) for c in columns)
    return RowKeys(
        version=version,
        ids=ids.astype(np.uint64),
        base_ids=base_ids.astype(np.uint64),
        sources=sources.astype(np.uint16),
        parts=parts.reshape(-1, len(PARTS)).astype(np.uint32),
        source_names=tuple(names),
    )


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(
            batch_size=ROW_GROUP_ROWS,
            columns=["id", *(n for names in PARTS.values() for n in names)],
        )


def _read_block(batch: pa.RecordBatch, names: dict[str, int]) -> tuple[npt.NDArray[Any], ...]:
    ids = batch["id"].to_pylist()
    sources = [names.setdefault(name, len(names)) for name in batch["source"].to_pylist()]
    columns = [_hash_texts(batch)]
    for part in ("labels", "tokens", "provenance"):
        values = (batch[name].to_pylist() for name in PARTS[part])
        columns.append([_key(canonical_json(row)) for row in zip(*values, strict=True)])
    return (
        np.array([_key(text) for text in ids], np.uint64),
        np.array([_key(_base(text)) for text in ids], np.uint64),
        np.array(sources, np.uint16),
        (np.array(columns, np.uint64).T & np.uint64(0xFFFFFFFF)).astype(np.uint32),
    )


def _hash_texts(batch: pa.RecordBatch) -> list[int]:
    """A hash of each row's messages and question, without making Python texts of them."""
    hashes = [_key(text) for text in batch["question"].to_pylist()]
    for name in ("prompt", "completion"):
        turns = batch[name]
        starts = np.asarray(turns.offsets)
        for field in ("role", "content"):
            texts = turns.values.field(field)
            # A row's turns lie one after another: one slice of the bytes holds them all.
            ends = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset :][starts].tolist()
            data = memoryview(texts.buffers()[2] or b"")
            for row, (start, end) in enumerate(pairwise(ends)):
                hashes[row] = xxh3_64_intdigest(data[start:end], hashes[row])
    return hashes


def _base(row_id: str) -> str:
    return row_id.partition("-")[0]


def _key(text: str) -> int:
    return xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


def _account(have: RowKeys, missing: npt.NDArray[np.int64], lack: RowKeys) -> dict[str, Any]:
    """Rows that ``have`` holds and ``lack`` does not, by source and by what became of them."""
    codes, reasons = _find_reasons(lack, have.base_ids[missing])
    # One number for source and reason together: a count per pair, whatever the number of rows.
    pairs = have.sources[missing].astype(np.int64) * len(reasons) + codes
    rows = [
        {"source": have.source_names[pair // len(reasons)], "stage": stage, "reason": reason,
         "rows": count}
        for pair, count in enumerate(np.bincount(pairs).tolist())
        if count
        for stage, reason in [reasons[pair % len(reasons)]]
    ]  # fmt: skip
    return {
        "by_reason": sorted(rows, key=lambda row: (row["source"], row["stage"], row["reason"])),
        "examples": _examples(have.version, have, missing),
    }


def _find_reasons(
    lack: RowKeys, base_ids: Keys
) -> tuple[npt.NDArray[np.int64], list[tuple[str, str]]]:
    """Why a version has not got some rows: a code for each, and stage and reason of the codes.

    Copies of what it kept are known too. Of a row that was refused twice the first reason counts.
    """
    names = {_UNKNOWN: 0, _COPIES: 1}
    wanted, inverse = np.unique(base_ids, return_inverse=True)
    codes = np.where(np.isin(wanted, lack.base_ids), 1, 0)
    for path in sorted((lack.version.folder / "rejected").glob("*.parquet")):
        if codes.all():
            break
        for row in read_rows(path, ["row_id", "stage", "reason"]):
            key = np.uint64(_key(row["row_id"]))
            place = int(np.searchsorted(wanted, key))
            if place < len(wanted) and wanted[place] == key and not codes[place]:
                codes[place] = names.setdefault((row["stage"], row["reason"]), len(names))
    return codes[inverse], list(names)


def _examples(version: Version, keys: RowKeys, places: npt.NDArray[np.int64]) -> list[str]:
    wanted: set[int] = set(places[:MAX_EXAMPLES].tolist())
    if not wanted:
        return []
    rows = islice(version.rows(["id"]), max(wanted) + 1)
    return [row["id"] for place, row in enumerate(rows) if place in wanted]
