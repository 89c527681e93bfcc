"""Which documents share a row, and which rows an optimiser step, from lengths and seeds alone.

Nothing here reads tokens: the schedule of a run is made in a second for a million documents, is the
same for any number of processes, and gives the rows of any step without those before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.hashing import derive_seed
from trainer.data.packing import balance_steps, count_rows_needed, fill_rows
from trainer.data.settings import DataSettings

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Epoch:
    """Rows of one pass over the documents, a whole number of steps of them."""

    documents: Int64s
    """Row after row; each once."""
    starts: Int64s
    """Where each row begins in ``documents``, and where the last one ends; rows may be empty."""
    loads: Int64s
    """Tokens of each row."""

    @property
    def num_rows(self) -> int:
        """Rows, empty ones included."""
        return len(self.loads)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Rows of a whole run: every optimiser step takes the next ``rows_per_step``."""

    epochs: Sequence[Epoch]
    rows_per_step: int
    num_steps: int
    """The last epoch may be left before its end."""
    first_rows: Int64s
    """Number of each epoch's first row in the run."""

    def __len__(self) -> int:
        return self.num_steps * self.rows_per_step

    def row(self, number: int) -> Int64s:
        """Documents of a row of the run, in the order that they have in it.

        Raises:
            IndexError: No such row.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        place = int(np.searchsorted(self.first_rows, number, side="right")) - 1
        epoch, own = self.epochs[place], number - int(self.first_rows[place])
        return epoch.documents[epoch.starts[own] : epoch.starts[own + 1]]

    def step(self, number: int) -> Int64s:
        """All documents of an optimiser step, row after row."""
        first = number * self.rows_per_step
        return np.concatenate([self.row(first + place) for place in range(self.rows_per_step)])

    def used_rows(self) -> Iterator[tuple[Epoch, int]]:
        """Every epoch with the number of its rows that the run reaches."""
        left = len(self)
        for epoch in self.epochs:
            yield epoch, min(left, epoch.num_rows)
            left -= min(left, epoch.num_rows)


def make_schedule(lengths: Int64s, names: Int64s, settings: DataSettings) -> Schedule:
    """Lay out a run.

    Args:
        lengths: Tokens of each document, in the dataset's order; at least one document, none longer
            than ``settings.max_row_tokens``.
        names: A number of each document that stays when others are left out; orders are drawn
            from it.
        settings: What decides the rows.
    """
    orders = _Orders(names, settings)
    shape = _choose_shape(lengths, orders, settings)
    rows_per_step = shape.rows
    epochs: list[Epoch] = []
    while not _are_enough(epochs, rows_per_step, settings):
        order = orders.of_epoch(len(epochs))
        is_same = bool(epochs) and orders.are_equal
        epochs.append(epochs[0] if is_same else _lay_out(order, lengths, shape, settings))
    sizes = np.array([epoch.num_rows for epoch in epochs], np.int64)
    return Schedule(
        epochs=epochs,
        rows_per_step=rows_per_step,
        num_steps=_count_steps(sizes // rows_per_step, settings),
        first_rows=np.cumsum(sizes) - sizes,
    )


def _are_enough(epochs: Sequence[Epoch], rows_per_step: int, settings: DataSettings) -> bool:
    if settings.max_steps > 0:
        return sum(epoch.num_rows for epoch in epochs) >= settings.max_steps * rows_per_step
    return len(epochs) >= math.ceil(settings.epochs)


def _count_steps(epoch_steps: Int64s, settings: DataSettings) -> int:
    if settings.max_steps > 0:
        return settings.max_steps
    whole = math.floor(settings.epochs)
    rest = settings.epochs - whole
    steps = int(epoch_steps[:whole].sum())
    # A rounding error of the product must not add a step.
    return steps + (math.ceil(rest * int(epoch_steps[whole]) - 1e-9) if rest else 0)


class _Orders:
    """The order of the documents in each epoch."""

    def __init__(self, names: Int64s, settings: DataSettings) -> None:
        self._names, self._seed = names, settings.seed
        self.are_equal = settings.order == "as_given"

    def of_epoch(self, epoch: int) -> Int64s:
        if self.are_equal:
            return np.arange(len(self._names), dtype=np.int64)
        lots = _draw_lots(self._names, derive_seed(self._seed, "order", str(epoch)))
        return np.argsort(lots, kind="stable")


def _draw_lots(names: Int64s, seed: int) -> npt.NDArray[np.uint64]:
    """A lot of each document: splitmix64 of its name; the same on every machine and NumPy."""
    lots = names.astype(np.uint64) + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    for _ in range(2):
        lots += np.uint64(0x9E3779B97F4A7C15)
        lots = (lots ^ (lots >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        lots = (lots ^ (lots >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        lots ^= lots >> np.uint64(31)
    return lots


@dataclass(frozen=True, slots=True)
class _Shape:
    """Rows of every step."""

    used: int
    """Rows that hold documents; decided by lengths alone, so that steps have the same documents for
    any number of processes."""
    rows: int
    """With those that make it a whole number of forward passes of all processes."""


def _choose_shape(lengths: Int64s, orders: _Orders, settings: DataSettings) -> _Shape:
    """As few rows as hold every step (``exact``), or the wanted documents on average."""
    unit, wanted = settings.row_unit, settings.documents_per_step
    if settings.packing == "off":
        used = wanted
    elif settings.packing == "exact":
        used = _count_rows_for_all(lengths, orders, settings)
    else:
        own = lengths[orders.of_epoch(0)]
        num_rows = fill_rows(own, settings.window, settings.max_row_tokens)[1]
        used = max(1, round(wanted * num_rows / len(lengths)))
    return _Shape(used, -(-used // unit) * unit)


def _count_rows_for_all(lengths: Int64s, orders: _Orders, settings: DataSettings) -> int:
    """Rows in which every step of every epoch balances.

    More rows never make the fullest of a step fuller (longest first into the emptiest row), so the
    number that one step needs holds every step that needs fewer.
    """
    wanted = settings.documents_per_step
    num_epochs = 1
    if not orders.are_equal and settings.max_steps > 0:
        num_epochs = math.ceil(settings.max_steps / math.ceil(len(lengths) / wanted))
    elif not orders.are_equal:
        num_epochs = math.ceil(settings.epochs)
    return max(
        count_rows_needed(
            lengths[orders.of_epoch(epoch)], wanted, max_tokens=settings.max_row_tokens
        )
        for epoch in range(num_epochs)
    )


def _place(lengths: Int64s, shape: _Shape, settings: DataSettings) -> tuple[Int64s, int]:
    """The row of each document, and how many steps there are."""
    wanted = settings.documents_per_step
    num_steps = -(-len(lengths) // wanted)
    if settings.packing == "exact":
        return balance_steps(lengths, wanted, shape.rows), num_steps
    if settings.packing == "off":
        rows = np.arange(len(lengths), dtype=np.int64)
    else:
        rows, num_rows = fill_rows(lengths, settings.window, settings.max_row_tokens)
        num_steps = -(-num_rows // shape.used)
    steps, places = np.divmod(rows, shape.used)
    return steps * shape.rows + places, num_steps


def _lay_out(order: Int64s, lengths: Int64s, shape: _Shape, settings: DataSettings) -> Epoch:
    """Rows of an epoch; within a step the longest first.

    The longest first meets a lack of memory at the first forward pass, gives the processes rows of
    like length at the same time, and puts empty rows at the end. It changes no gradient: the loss
    is averaged over the tokens of the whole step.
    """
    ordered = lengths[order]
    rows, num_steps = _place(ordered, shape, settings)
    rows_per_step = shape.rows
    # Sums of whole numbers below 2**53 are exact in float64.
    loads = np.bincount(rows, weights=ordered, minlength=num_steps * rows_per_step).astype(np.int64)
    by_step = loads.reshape(num_steps, rows_per_step)
    ranking = np.argsort(-by_step, axis=1, kind="stable")
    numbers = np.empty_like(loads)
    firsts = np.arange(num_steps, dtype=np.int64)[:, None] * rows_per_step
    numbers[(ranking + firsts).ravel()] = np.arange(len(loads))
    rows = numbers[rows]
    starts = np.zeros(len(loads) + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=len(loads)), out=starts[1:])
    return Epoch(
        documents=order[np.argsort(rows, kind="stable")],
        starts=starts,
        loads=np.take_along_axis(by_step, ranking, axis=1).ravel(),
    )
