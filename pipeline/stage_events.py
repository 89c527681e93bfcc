"""How a stage tells its progress as events: begun, shard after shard, over.

Listeners hear of every shard. The log gets few lines: at most one in ``events.interval_s``, rarer
the longer the stage lasts. Counts are those of the stage so far, so a line that is missing takes
nothing from the next one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context, ContextVar, Token, copy_context
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from pipeline.errors import PipelineError, StoreError, WorkPending
from pipeline.events import current_recording, describe_error, emit, outcome_of
from pipeline.manifest import Manifest

Spending = Callable[[], Mapping[str, Any]]
"""Reads what a run folder's teachers have taken so far: the fields of ``ledger.summed``."""

_work: ContextVar[Work | None] = ContextVar("work", default=None)
_LONGEST_PAUSE_S = 60.0
_LINES_A_STAGE = 200
"""A stage that lasts longer than 200 intervals pauses for a 200th of its time so far."""
_SHOWN_REASONS = 8
"""Reasons with a number of their own in a line; the others are summed, as they may be many."""
_LEDGER_PAUSE_S, _LEDGER_SHARE = 10.0, 0.01
"""Summing up millions of answers takes seconds: it is done for at most a hundredth of the time."""


@dataclass(slots=True)
class Counts:
    """What a stage's finished shards add up to."""

    rows_in: int = 0
    rows_out: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """By stage and reason."""
    tokens: Counter[str] = field(default_factory=Counter)

    def add(self, receipt: Mapping[str, Any]) -> None:
        """Add a shard's ``num_in``, ``num_out``, ``rejected`` (stage, reason) and ``tokens``."""
        self.rows_in += receipt["num_in"]
        self.rows_out += receipt["num_out"]
        self.tokens.update(receipt["tokens"])
        for stage, reasons in receipt["rejected"].items():
            self.rejected.update({f"{stage}: {reason}": n for reason, n in reasons.items()})

    def as_fields(self) -> dict[str, Any]:
        """As events tell them."""
        common = dict(self.rejected.most_common(_SHOWN_REASONS))
        total = self.rejected.total()
        if rest := total - sum(common.values()):
            common["other"] = rest
        return {
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "rejected": total,
            "reasons": common,
            "tokens": dict(self.tokens),
        }


def describe_counts(manifest: Manifest) -> dict[str, Any]:
    """A finished version's name and counts, as events tell them."""
    receipt = {
        "num_in": manifest.rows_in,
        "num_out": manifest.rows_out,
        "rejected": manifest.rejected,
        "tokens": manifest.tokens,
    }
    counts = Counts()
    counts.add(receipt)
    return {"version": manifest.version, **counts.as_fields()}


def tell_answers(advance: Callable[[int], None], num_asked: int) -> Callable[[int], None]:
    """Let the stage that works in this context tell how its requests are answered, too.

    Args:
        advance: Told how many more answers are there, perhaps from another thread.
        num_asked: Requests.

    Returns:
        What to call instead of ``advance``.
    """
    work = _work.get()
    if work is None:
        return advance
    work.count_answers(num_asked, 0)

    def advance_and_tell(amount: int) -> None:
        advance(amount)
        work.count_answers(0, amount)

    return advance_and_tell


class Work:
    """One stage at work in this process; use as a context manager.

    Args:
        stage: Its name.
        unit: What its rows are.
        total: Shards (or steps) in all; none while that is not known.
        done: How many an earlier process finished.
        spending: Reads the ledger, where the stage asks teachers.
    """

    def __init__(
        self,
        stage: str,
        unit: str,
        total: int | None,
        *,
        done: int = 0,
        spending: Spending | None = None,
    ) -> None:
        self.total = total
        self.done = 0
        self.counts = Counts()
        self._fields: dict[str, Any] = {"stage": stage, "unit": unit}
        self._num_before = done
        self._spending = spending
        self._start = self._last = time.monotonic()
        self._ledger_due = 0.0
        self._num_untold = 0
        self._closing = dict[str, Any]()
        self._failed: dict[str, str] = {}
        self._answers = self._asked = 0
        self._answers_told = 0.0
        self._lock = threading.Lock()
        self._context = Context()
        self._token: Token[Work | None] | None = None

    def __enter__(self) -> Work:
        event = "stage.resumed" if self._num_before else "stage.started"
        emit(event, **self._fields, done=self._num_before, total=self.total)
        self._context = copy_context()
        self._token = _work.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._token is not None:
            _work.reset(self._token)
        if error is None:
            self._sum_ledger()
            emit("stage.finished", **(self._state() | self._closing))
            return
        if isinstance(error, PipelineError) and self._failed and not isinstance(error, WorkPending):
            error.place = self._name_place()
        # The failure itself is what the user is told, and it may be a full disk.
        with suppress(StoreError):
            told = {**self._state(), **self._failed, **describe_error(error)}
            emit(f"stage.{outcome_of(error)}", **told)
            self._sum_ledger()

    def skip(self, receipt: Mapping[str, Any] | None = None) -> None:
        """Count a shard that an earlier process finished."""
        self.done += 1
        if receipt is not None:
            self.counts.add(receipt)

    def finish_shard(self, shard: str, receipt: Mapping[str, Any]) -> None:
        """Tell that a shard is finished, and safely on disk.

        Raises:
            StoreError: The log cannot be written; the shard is kept.
        """
        self.done += 1
        self.counts.add(receipt)
        self.tell("shard.finished", shard=shard)

    def name_failure(self, shard: str) -> None:
        """Note which shard could not be done, for the event that ends the stage."""
        self._failed = {"shard": shard}

    def tell(self, event: str, *, is_due: bool = False, **fields: Any) -> None:
        """Tell an event of the stage's progress; the log gets it if it ``is_due`` or time has come.

        Raises:
            StoreError: The log cannot be written.
        """
        self._num_untold += 1
        now = time.monotonic()
        is_kept = is_due or now - self._last >= self._pause(now)
        emit(event, is_kept=is_kept, **self._state(), events=self._num_untold, **fields)
        if is_kept:
            self._last, self._num_untold = now, 0
            if now >= self._ledger_due:
                self._sum_ledger()

    def count_answers(self, num_asked: int, num_answers: int) -> None:
        """Tell now and then how many requests have answers; from any thread.

        What is wrong with the disk is told by the stage's own thread, at its next shard.
        """
        with self._lock:
            self._asked += num_asked
            self._answers += num_answers
            now = time.monotonic()
            if now - self._answers_told >= self._context.run(self._pause, now):
                self._answers_told = now
                figures: dict[str, Any] = {"answers": self._answers, "asked": self._asked}
                with suppress(StoreError):
                    self._context.run(emit, "answers.arrived", **self._fields, **figures)

    def close_with(self, **fields: Any) -> None:
        """What ``stage.finished`` tells besides, or instead of the counts so far."""
        self._closing = fields

    def _name_place(self) -> str:
        """E.g. ``problems-00003, 3 of 8 shards finished``."""
        number = self._failed["shard"].partition("-")[0]
        return f"{self._fields['stage']}-{number}, {self.done:,} of {self.total:,} shards finished"

    def _state(self) -> dict[str, Any]:
        return {
            **self._fields,
            "done": self.done,
            "total": None if self.total is None else max(self.done, self.total),
            "seconds": round(time.monotonic() - self._start, 3),
            **self.counts.as_fields(),
        }

    def _pause(self, now: float) -> float:
        opened = current_recording()
        interval = 0.0 if opened is None else opened.settings.interval_s
        if not interval:
            return 0.0
        return max(interval, min(_LONGEST_PAUSE_S, (now - self._start) / _LINES_A_STAGE))

    def _sum_ledger(self) -> None:
        if self._spending is None:
            return
        start = time.monotonic()
        emit("ledger.summed", **self._spending())
        end = time.monotonic()
        self._ledger_due = end + max(_LEDGER_PAUSE_S, (end - start) / _LEDGER_SHARE)
