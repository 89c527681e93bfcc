"""What waits for a teacher: units of requests, and the calls that want their answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container
from dataclasses import dataclass, field

from pipeline.errors import TeacherError, WorkPending
from promptcot.engines.answers import Purpose
from promptcot.engines.budget import Reserved
from promptcot.engines.protocol import Answer, Request


class TeacherCancelled(TeacherError):
    """The run was stopped while a request waited for its answer."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Requests that are asked and stored together, with the keys of their answers."""

    requests: tuple[Request, ...]
    keys: tuple[str, ...]

    def is_within(self, answers: Container[str]) -> bool:
        """Whether all its answers are there."""
        return all(key in answers for key in self.keys)


class Call:
    """One caller and what it has got so far; changed under the dispatcher's lock."""

    def __init__(
        self,
        answers: dict[str, Answer],
        advance: Callable[[int], None],
        *,
        keeps_answers: bool = True,
    ) -> None:
        self.answers = answers
        self.advance = advance
        self.keeps_answers = keeps_answers
        """Whether the caller wants the texts, or only that they are stored."""
        self.num_left = 0
        """Units without an outcome."""
        self.pending: list[WorkPending] = []
        self.error: BaseException | None = None
        self.is_done = threading.Event()

    def settle_one(self) -> None:
        """One of its units has its outcome."""
        self.num_left -= 1
        if not self.num_left:
            self.is_done.set()

    def fail(self, error: BaseException) -> None:
        """End it with an error, unless it has ended."""
        if not self.is_done.is_set():
            self.error = error
            self.is_done.set()

    def wait(self) -> dict[str, Answer]:
        """Answers by key, when all are there.

        Raises:
            WorkPending: Some answers come later, outside this run.
            TeacherError: A request could not be served, or all was cancelled.
        """
        try:
            self.is_done.wait()
        finally:
            # After an interrupt nobody wants the rest; what is not sent yet is then skipped.
            self.is_done.set()
        if self.error is not None:
            raise self.error
        if self.pending:
            first = self.pending[0]
            raise WorkPending(f"{len(self.pending)} requests wait: {first}", hint=first.hint)
        return self.answers


@dataclass(slots=True, eq=False)
class Ask:
    """A unit on its way: in the queue, in flight or being stored."""

    unit: Unit
    purpose: Purpose
    calls: list[Call] = field(default_factory=list)
    reserved: Reserved = field(default_factory=Reserved)
    start: float = 0.0

    @property
    def is_wanted(self) -> bool:
        """Whether a caller still waits for it."""
        return any(not call.is_done.is_set() for call in self.calls)
