"""Store answers beside the event loop: whatever arrives during one transaction forms the next."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pipeline.errors import StoreError
from promptcot.engines.account import Account
from promptcot.engines.answers import Purpose, StoredAnswer
from promptcot.engines.asks import Ask
from promptcot.engines.protocol import Answer

_LARGEST_GROUP = 2000
"""Answers of one transaction at most, so that the first of them are not held up."""


class Arrived(NamedTuple):
    """A unit with its answers."""

    ask: Ask
    answers: Sequence[Answer]
    seconds: float


class GroupWriter:
    """A thread that stores what it is given, then tells who may have it.

    Args:
        account: Whose store it is.
        deliver: Called with what was stored, and with answers that were there before.
        fail: Called when the store cannot be written; nothing is stored after that.
    """

    def __init__(
        self,
        account: Account,
        deliver: Callable[[Sequence[Arrived], dict[str, Answer]], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._account = account
        self._deliver = deliver
        self._fail = fail
        self._waiting: queue.SimpleQueue[tuple[Sequence[Arrived], Mapping[Purpose, float]] | None]
        self._waiting = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._has_failed = False

    def put(self, arrived: Sequence[Arrived], seconds: Mapping[Purpose, float]) -> None:
        """Have answers and working time stored; call it from one thread only."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
            self._thread.start()
        self._waiting.put((arrived, seconds))

    def close(self) -> None:
        """Return when all that was put is stored."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        while not self._is_closed:
            # Nothing is kept in a name here: while it waits, the thread must hold no answers.
            self._write(*self._collect())

    def _collect(self) -> tuple[list[Arrived], Mapping[Purpose, float]]:
        """Wait for something, and take what else has come by then."""
        group: list[Arrived] = []
        seconds: dict[Purpose, float] = {}
        is_waiting = True
        while is_waiting or (len(group) < _LARGEST_GROUP and not self._waiting.empty()):
            item = self._waiting.get()
            if item is None:
                self._is_closed = True
                break
            is_waiting = False
            group += item[0]
            for purpose, amount in item[1].items():
                seconds[purpose] = seconds.get(purpose, 0.0) + amount
        return group, seconds

    def _write(self, group: Sequence[Arrived], seconds: Mapping[Purpose, float]) -> None:
        if self._has_failed or not (group or seconds):
            return
        entries = [
            StoredAnswer(key, answer, ask.purpose, taken)
            for ask, answers, taken in group
            for key, answer in zip(ask.unit.keys, answers, strict=True)
        ]
        try:
            replaced = self._account.store.put(entries, seconds=seconds)
        except StoreError as exc:
            self._has_failed = True
            self._fail(exc)
            return
        self._deliver(group, replaced)


class WorkingTime:
    """Wall time during which something is in flight, by what it is for.

    Time that several purposes share is divided evenly between them, so that the sum is the time
    during which the teacher was at work.
    """

    def __init__(self) -> None:
        self._num_running: Counter[Purpose] = Counter()
        self._seconds: dict[Purpose, float] = {}
        self._last = 0.0

    def start(self, purpose: Purpose) -> None:
        """A request of this purpose is sent."""
        self._tick()
        self._num_running[purpose] += 1

    def end(self, purpose: Purpose) -> None:
        """A request of this purpose has ended."""
        self._tick()
        self._num_running[purpose] -= 1
        if not self._num_running[purpose]:
            del self._num_running[purpose]

    def take(self) -> dict[Purpose, float]:
        """Time since the last call, by purpose."""
        self._tick()
        taken, self._seconds = self._seconds, {}
        return taken

    def _tick(self) -> None:
        now = time.monotonic()
        share = (now - self._last) / max(len(self._num_running), 1)
        for purpose in self._num_running:
            self._seconds[purpose] = self._seconds.get(purpose, 0.0) + share
        self._last = now
