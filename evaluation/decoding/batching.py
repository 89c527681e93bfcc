"""Continuous batching: a queue of prompts, the decoder's slots, and texts as they end.

A slot whose sequence has ended is filled from the queue before the next step, so that the batch
stays full until the queue is empty, however different the lengths are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from evaluation.decoding.loop import Decoder

Tag = TypeVar("Tag")


@dataclass(frozen=True, slots=True)
class Job(Generic[Tag]):
    """One sequence to generate."""

    tag: Tag
    """The caller's own, handed back with the result."""
    prompt: tuple[int, ...]
    seed: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Generated(Generic[Tag]):
    """A sequence that has ended."""

    tag: Tag
    tokens: tuple[int, ...]
    """Without the end token."""
    reason: Literal["stop", "length"]


@dataclass(slots=True)
class _Running(Generic[Tag]):
    job: Job[Tag]
    tokens: list[int] = field(default_factory=list)


class Batcher(Generic[Tag]):
    """Keeps a decoder's slots full.

    Args:
        decoder: Its slots are all this batcher's.
        end_token: Ends a sequence.
        steps_per_check: Steps between two looks at the tokens. What a slot generates after its end
            is dropped, so this changes no text; on a GPU it saves waiting for every step.
    """

    def __init__(self, decoder: Decoder, *, end_token: int, steps_per_check: int = 1) -> None:
        self._decoder = decoder
        self._end_token = end_token
        self._steps = steps_per_check
        self._queue: deque[Job[Tag]] = deque()
        self._running: dict[int, _Running[Tag]] = {}
        self._free = deque(range(decoder.num_slots))
        self.num_tokens = 0
        """Tokens generated so far, in texts that have ended and in others."""

    @property
    def num_busy(self) -> int:
        """Slots with a sequence."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences in the queue."""
        return len(self._queue)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._running and not self._queue

    def add(self, job: Job[Tag]) -> None:
        """Queue a sequence."""
        self._queue.append(job)

    def drop(self, tag: Tag) -> None:
        """Forget a sequence, wherever it is."""
        self._queue = deque(job for job in self._queue if job.tag != tag)
        for slot in [slot for slot, own in self._running.items() if own.job.tag == tag]:
            self._release(slot)

    def step(self) -> list[Generated[Tag]]:
        """Fill free slots, run the decoder, and return what has ended."""
        while self._free and self._queue:
            slot, job = self._free.popleft(), self._queue.popleft()
            self._decoder.fill(slot, job.prompt, job.seed)
            self._running[slot] = _Running(job)
        if not self._running:
            return []
        self.num_tokens += len(self._running) * self._steps
        columns = self._decoder.run(self._steps).t().tolist()
        ended = [self._read(slot, columns[slot]) for slot in list(self._running)]
        return [generated for generated in ended if generated is not None]

    def run(self) -> Iterator[Generated[Tag]]:
        """All sequences in the order in which they end."""
        while not self.is_idle:
            yield from self.step()

    def _read(self, slot: int, tokens: list[int]) -> Generated[Tag] | None:
        running = self._running[slot]
        for token in tokens:
            if token == self._end_token:
                return self._end(slot, "stop")
            running.tokens.append(token)
            if len(running.tokens) == running.job.max_new_tokens:
                return self._end(slot, "length")
        return None

    def _end(self, slot: int, reason: Literal["stop", "length"]) -> Generated[Tag]:
        running = self._release(slot)
        return Generated(running.job.tag, tuple(running.tokens), reason)

    def _release(self, slot: int) -> _Running[Tag]:
        self._free.append(slot)
        return self._running.pop(slot)
