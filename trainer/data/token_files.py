"""Token files mapped into memory: any document by its number, nothing copied until it is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import StoreError

Int64s = npt.NDArray[np.int64]
UInt16s = npt.NDArray[np.uint16]


class TokenFiles:
    """All documents of a version, numbered in its order; picklable, opened when first read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._columns: list[tuple[UInt16s, Int64s]] = []
        """Ids and offsets of each record batch."""
        self._origins: list[tuple[int, npt.NDArray[np.int32]]] = []
        """Shard of each record batch, and the rows there of its documents."""
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        # Maps of files cannot be sent to another process; it opens them itself.
        return {"_paths": self._paths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_paths"])  # type: ignore[misc]

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def document(self, number: int) -> tuple[UInt16s, int]:
        """Ids of a document and how many of its first carry no loss."""
        batch = self._batch_of(number)
        values, offsets = self._columns[batch]
        place = number - int(self._firsts[batch])
        return values[offsets[place] : offsets[place + 1]], int(self.num_prompt[number])

    def places(self, numbers: Sequence[int]) -> list[tuple[int, int]]:
        """The shard of each document, counted from 0, and its row there."""
        places = []
        for number in numbers:
            batch = self._batch_of(number)
            shard, rows = self._origins[batch]
            places.append((shard, int(rows[number - int(self._firsts[batch])])))
        return places

    def _batch_of(self, number: int) -> int:
        return int(np.searchsorted(self._firsts, number, side="right")) - 1

    def _open(self) -> None:
        """Map the files; sets ``lengths`` and ``num_prompt``, both int64 (documents)."""
        lengths, prompts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        firsts = [0]
        for shard, path in enumerate(self._paths):
            for batch in _map_batches(path):
                ids, num_prompt, rows = batch.columns
                offsets = ids.offsets.to_numpy()
                self._columns.append((ids.values.to_numpy(), offsets))
                self._origins.append((shard, rows.to_numpy()))
                lengths.append(np.diff(offsets))
                prompts.append(num_prompt.to_numpy())
                firsts.append(firsts[-1] + len(ids))
        self.lengths: Int64s = np.concatenate(lengths).astype(np.int64)
        self.num_prompt: Int64s = np.concatenate(prompts).astype(np.int64)
        self._firsts: Int64s = np.array(firsts, np.int64)


def _map_batches(path: Path) -> list[Any]:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        return [reader.get_batch(number) for number in range(reader.num_record_batches)]
    except (OSError, pa.ArrowInvalid) as exc:
        raise StoreError(
            f"token file {path} cannot be read: {str(exc).splitlines()[0]}",
            hint="delete it and run the same command again: its shard is tokenised anew",
        ) from exc
