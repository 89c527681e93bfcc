"""Tokens of a dataset version, made once and kept by content.

    <cache>/<format>/<sha256 of the shard>.arrow   one file a shard, mapped into memory when used
    <cache>/<format>/<sha256 of the shard>.json    its receipt, written last

``<format>`` is the hash of tokenizer, chat format and the code that applies them. Length limits,
packing and order are no part of it, so other phases, limits and packings find the same files, and
two versions that share a shard share its tokens. A killed run goes on at the first shard without a
receipt; every file has the same bytes, whoever made it and with how many processes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import BaseModel, ConfigDict, ValidationError

import pipeline.student
from pipeline import console
from pipeline.hashing import content_hash, file_sha256
from pipeline.manifest import Version
from pipeline.store import atomic_path, explain_disk_errors, read_rows, write_json
from pipeline.student import TOKENIZER_SHA256
from trainer.data.encoding import (
    COLUMNS,
    Document,
    Encode,
    encode_by_chunks,
    encode_by_reference,
    encode_rows,
)

SCHEMA = pa.schema(
    [
        pa.field("input_ids", pa.list_(pa.uint16()), nullable=False),
        pa.field("num_prompt", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
    ]
)
"""A document: its ids, how many of them carry no loss, and its row's place in the shard."""
CODE = ("tokens.py", "encoding.py", "chunk_encoder.py", "chunk_kernels.py")
"""Files of this package that decide the token files' bytes, beside the chat format."""
BATCH_ROWS = 500
"""Rows of a record batch, however many are encoded together: 6 MB of long documents."""
MIN_ROWS_A_WORKER = 2000
"""Starting a process takes as long as tokenising some hundred long rows."""
MIN_ROWS_TO_COMPILE = 1000
"""Compiling takes seconds once on a machine, as long as it saves on some hundred long rows."""
NOT_ENCODABLE = "not_encodable"
REMEDY = "lower training.tokenise_workers or training.tokenise_batch_rows"
"""What helps when workers run out of memory."""


class Receipt(BaseModel):
    """What a token file holds, and a hash to tell that it still does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    documents: int
    tokens: int
    rejected: dict[str, int]
    bytes: int
    xxh3: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """What a worker needs to tokenise a shard."""

    shard: Path
    target: Path
    num_rows: int
    encoded_rows: int
    encode: Encode = encode_by_reference
    """Decides how fast, never what."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token files of a version, in its order, and the rows that have none."""

    paths: Sequence[Path]
    rejected: dict[str, int]


def tokenise(version: Version, cache: Path, *, num_workers: int, encoded_rows: int) -> Tokens:
    """Make the token files of a version that are not there yet.

    Args:
        version: The dataset.
        cache: Folder of token files, shared by all runs.
        num_workers: Processes at work, each on a shard of its own.
        encoded_rows: Rows that a process holds at a time.

    Raises:
        SourceError: A row that is not in the training schema, or another tokenizer's counts.
        StoreError: The disk is full; finished shards are kept.
    """
    folder = cache / format_key()
    tasks = [
        ShardTask(
            shard=version.folder / shard.path,
            target=folder / f"{shard.sha256}.arrow",
            num_rows=shard.rows,
            encoded_rows=encoded_rows,
        )
        for shard in version.manifest.shards
    ]
    # Equal shards of a version have one token file.
    missing = _list_missing({task.target: task for task in tasks}.values())
    if missing:
        with _wait_for_lock(folder / ".lock"):
            # Whoever had the lock before may have made them.
            _run_tasks(_list_missing(missing), num_workers)
    receipts = [Receipt.model_validate_json(_receipt_path(t.target).read_bytes()) for t in tasks]
    rejected: dict[str, int] = {}
    for receipt in receipts:
        for reason, count in receipt.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
    return Tokens([task.target for task in tasks], rejected)


def format_key() -> str:
    """Hash of everything but the rows that decides the token files' bytes."""
    files = [Path(__file__).with_name(name) for name in CODE]
    code = [file_sha256(path) for path in [Path(pipeline.student.__file__), *files]]
    return content_hash({"tokenizer": TOKENIZER_SHA256, "code": code})


def _list_missing(tasks: Iterable[ShardTask]) -> list[ShardTask]:
    return [task for task in tasks if _read_receipt(task.target) is None]


def _run_tasks(missing: Sequence[ShardTask], num_workers: int) -> None:
    from pipeline.executors import PoolExecutor, SerialExecutor

    if not missing:
        return
    num_rows = sum(task.num_rows for task in missing)
    processes = min(num_workers, len(missing), 1 + num_rows // MIN_ROWS_A_WORKER)
    pool = PoolExecutor(processes, REMEDY) if processes > 1 else None
    try:
        with console.progress("tokenise", total=num_rows) as advance:
            executor = pool or SerialExecutor()
            if num_rows >= MIN_ROWS_TO_COMPILE:
                missing = [replace(task, encode=encode_by_chunks) for task in missing]
            for task, _ in executor.map(tokenise_shard, missing, _name):
                advance(task.num_rows)
    finally:
        if pool is not None:
            pool.close()


def _name(task: ShardTask) -> str:
    return f"tokens {task.target.name}"


def tokenise_shard(task: ShardTask) -> None:
    """Write one shard's token file and receipt; what a worker does."""
    num_rows = num_documents = num_tokens = 0
    with (
        atomic_path(task.target) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, SCHEMA) as writer,
    ):
        documents = _encode_shard(task)
        while piece := list(islice(documents, BATCH_ROWS)):
            kept = [document for document in piece if document is not None]
            if kept:
                writer.write_batch(_to_batch(kept))
            num_rows += len(piece)
            num_documents += len(kept)
            num_tokens += sum(len(document.input_ids) for document in kept)
    lost = num_rows - num_documents
    receipt = Receipt(
        rows=num_rows,
        documents=num_documents,
        tokens=num_tokens,
        rejected={NOT_ENCODABLE: lost} if lost else {},
        bytes=task.target.stat().st_size,
        xxh3=_hash(task.target),
    )
    write_json(_receipt_path(task.target), receipt.model_dump())


def _encode_shard(task: ShardTask) -> Iterator[Document | None]:
    """A shard's documents, a few rows in memory as text at a time."""
    rows = read_rows(task.shard, COLUMNS, batch_rows=task.encoded_rows)
    first = 0
    while piece := list(islice(rows, task.encoded_rows)):
        yield from encode_rows(piece, first, source=str(task.shard), encode=task.encode)
        first += len(piece)


def _to_batch(documents: Sequence[Document]) -> pa.RecordBatch:
    sizes = [len(document.input_ids) for document in documents]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    values = np.concatenate([document.input_ids for document in documents])
    ids = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
    return pa.record_batch(
        [
            ids,
            pa.array([document.num_prompt for document in documents], pa.int32()),
            pa.array([document.row for document in documents], pa.int32()),
        ],
        schema=SCHEMA,
    )


def _receipt_path(target: Path) -> Path:
    return target.with_suffix(".json")


def _read_receipt(target: Path) -> Receipt | None:
    """A file's receipt, or None if it has to be made (again)."""
    path = _receipt_path(target)
    if not path.is_file():
        return None
    try:
        receipt = Receipt.model_validate_json(path.read_bytes())
    except ValidationError:
        is_whole = False
    else:
        is_whole = (
            target.is_file()
            and target.stat().st_size == receipt.bytes
            and _hash(target) == receipt.xxh3
        )
        if is_whole:
            return receipt
    console.warn(f"{target} is damaged; its shard is tokenised again")
    return None


def _hash(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as handle:
        while piece := handle.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def _wait_for_lock(path: Path) -> Iterator[None]:
    """Let one process tokenise; the others of a run wait and find its work.

    The kernel frees the lock of a process that dies.
    """
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.say(f"another process tokenises into {path.parent}; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
