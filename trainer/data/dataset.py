"""The rows of a run: a map-style dataset over token files, read at random without a start-up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data.collator import IGNORED, Row
from trainer.data.schedule import Schedule
from trainer.data.token_files import TokenFiles


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Row ``step * rows_per_step + place`` of a run; rows may be empty where a step needs fewer.

    Any row is read by itself: a run that resumes at a step reads nothing of those before it.
    """

    files: TokenFiles
    kept: npt.NDArray[np.int64]
    """Numbers, in the files, of the documents that are trained on."""
    schedule: Schedule

    def __len__(self) -> int:
        return len(self.schedule)

    def __iter__(self) -> Iterator[Row]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Row:
        """``input_ids``, ``labels`` and ``seq_idx``, each (tokens,) int32.

        Labels are -100 on the prompt and on every document's first token; ``seq_idx`` numbers the
        row's documents from 0.

        Raises:
            IndexError: No such row.
        """
        documents = [
            self.files.document(int(self.kept[place])) for place in self.schedule.row(number)
        ]
        sizes = [len(ids) for ids, _ in documents]
        input_ids = np.empty(sum(sizes), np.int32)
        labels = np.empty_like(input_ids)
        seq_idx = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        start = 0
        for (ids, num_prompt), size in zip(documents, sizes, strict=True):
            end = start + size
            input_ids[start:end] = ids
            labels[start:end] = ids
            labels[start : start + max(1, num_prompt)] = IGNORED
            start = end
        return {"input_ids": input_ids, "labels": labels, "seq_idx": seq_idx}

    def row_numbers(
        self, step: int, *, rank: int = 0, num_processes: int = 1, micro_batch: int = 1
    ) -> list[list[int]]:
        """Rows of one optimiser step that a process takes: a list for each forward pass.

        Forward passes are dealt to the processes in turn, as accelerate does; all processes
        together take every row of the step once.
        """
        first = step * self.schedule.rows_per_step
        passes = range(first, first + self.schedule.rows_per_step, micro_batch)
        return [list(range(p, p + micro_batch)) for p in passes[rank::num_processes]]

    def as_dataset(self) -> Any:
        """A ``datasets.Dataset`` of the same rows, as TRL asks for one; rows are made when read."""
        import pyarrow as pa
        from datasets import Dataset
        from datasets.table import InMemoryTable

        numbers = InMemoryTable(pa.table({"row": np.arange(len(self), dtype=np.int64)}))
        # Named, or datasets would pickle the table to make up a name, which fails on Python 3.12.
        return Dataset(numbers, fingerprint="rows").with_transform(self._read)

    def _read(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        rows = [self[number] for number in batch["row"]]
        return {name: [row[name] for row in rows] for name in ("input_ids", "labels", "seq_idx")}
