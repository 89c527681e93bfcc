"""The largest batch that fits a budget: calculated from what was measured, then proven."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field

import torch

from evaluation.throughput.attention import synchronise
from evaluation.throughput.memory import Memory, ran_out
from evaluation.throughput.runners import Runner, Session

_PROBE_BATCHES = (8, 64)
"""Multiples of eight, as the decode loop takes rows on a CPU."""
_PROBE_TOKENS = 64
_MAX_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a step takes beside weights and caches, in bytes."""

    fixed: int
    per_sequence: int


@dataclass(slots=True)
class Fit:
    """The outcome of a search."""

    batch: int
    """Sequences; 0: not even one fits."""
    peak_bytes: int = 0
    """Needed at that batch, weights and CUDA itself included."""
    cache_bytes: int = 0
    refused: list[int] = field(default_factory=list)
    """Batches that were tried and did not fit."""


def largest_batch(usable_bytes: float, sequence_bytes: float, most: int) -> int:
    """Whole sequences that fit."""
    return max(0, min(most, int(usable_bytes // sequence_bytes)))


def measure_overhead(runner: Runner, memory: Memory) -> Overhead:
    """Peaks of two small batches, less weights and caches, as a line over the batch."""
    needed = []
    if runner.device.type == "cuda":
        # The first steps also try compiled kernels, which takes memory that no later step does.
        session = runner.open(_PROBE_BATCHES[0], _PROBE_TOKENS)
        _take_steps(session, _PROBE_TOKENS - 1, runner.device)
        session.close()
    for batch in _PROBE_BATCHES:
        memory.start()
        session = runner.open(batch, _PROBE_TOKENS)
        _take_steps(session, _PROBE_TOKENS - 1, runner.device)
        needed.append(memory.peak() - runner.weight_bytes - session.cache_bytes)
        session.close()
    small, large = _PROBE_BATCHES
    slope = max(0, (needed[1] - needed[0]) // (large - small))
    return Overhead(fixed=max(0, needed[0] - slope * small), per_sequence=slope)


class Search:
    """Finds a batch for one model under one budget.

    Args:
        runner: The model.
        memory: Of its device.
        limit: Bytes that may be used, everything included.
        overhead: Measured before.
        most: Largest batch to try.
    """

    def __init__(
        self, runner: Runner, memory: Memory, limit: int, overhead: Overhead, most: int
    ) -> None:
        self.runner, self.memory, self.limit, self.overhead = runner, memory, limit, overhead
        self.most = most

    def find(self, tokens: int) -> tuple[Fit, Session | None]:
        """The largest batch for sequences of ``tokens`` tokens, and it, open.

        The first try is the calculated batch. While nothing was refused, room that is left makes it
        larger; after a refusal it is halved into the range between what fits and what does not,
        down to a fiftieth.
        """
        each = self.runner.subject.cache_bytes(tokens) + self.overhead.per_sequence
        room = self.limit - self.runner.weight_bytes - self.overhead.fixed
        best, batch, shrink = Fit(0), largest_batch(room, each, self.most), 0
        session: Session | None = None
        for _ in range(_MAX_ATTEMPTS):
            if batch <= best.batch:
                break
            if session is not None:
                session.close()
            found, session = self._try(batch, tokens)
            if session is not None:
                best.batch, best.peak_bytes, best.cache_bytes = batch, *found
                more = min(self.most - batch, int((self.limit - best.peak_bytes) // each))
            else:
                best.refused.append(batch)
                shrink = max(1, batch // 50, 2 * shrink)
            if not best.refused:
                batch += more if more > batch // 50 else 0
            elif best.batch:
                gap = min(best.refused) - best.batch
                batch = best.batch + (gap // 2 if gap > max(1, best.batch // 50) else 0)
            else:
                batch = max(0, batch - shrink)
        while session is None and best.batch:
            _, session = self._try(best.batch, tokens)
            if session is None:
                # What fitted once fails when memory lies otherwise.
                best.refused.append(best.batch)
                best.batch -= max(1, best.batch // 50)
        return best, session

    def _try(self, batch: int, tokens: int) -> tuple[tuple[int, int], Session | None]:
        """Allocate and take steps at the last position.

        Returns:
            Bytes needed and bytes of the caches, and the open batch; none if the budget does not
            allow it.
        """
        self.memory.restrict(self.limit)
        self.memory.start()
        session: Session | None = None
        try:
            session = self.runner.open(batch, tokens)
            _take_steps(session, tokens - 1, self.runner.device)
            # Freed memory that a CPU's process kept is used again without growing it.
            counted = self.runner.weight_bytes + session.cache_bytes
            self.memory.check(self.limit, counted)
        except RuntimeError as exc:
            if not ran_out(exc):
                raise
        else:
            return (max(self.memory.peak(), counted), session.cache_bytes), session
        if session is not None:
            session.close()
        elif self.runner.device.type == "cuda":
            gc.collect()  # an allocation that failed half-way is held by its traceback
        return (0, 0), None


def _take_steps(session: Session, position: int, device: torch.device) -> None:
    step, _ = session.step_at(position)
    step()
    step()
    synchronise(device)
