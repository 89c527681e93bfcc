"""A hard limit on what a run folder may spend on answers.

Spent is what the ledger says, over all teachers and all earlier runs in the folder. A request is
sent only when spent, plus the worst case of everything in flight, plus its own worst case stay
within the limit. So a limit is never passed, whatever the teachers reply. Two processes at work in
one folder each see what was spent when they started, not each other's requests.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import BudgetExceeded
from pipeline.settings.synthesis import BudgetSettings
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.answers import Purpose, Spent
from promptcot.engines.protocol import Answer, Request

_TOKENS_PER_MESSAGE = 16
"""What a chat format may add to a message; a token of text is never less than a byte."""
_HOUR_S = 3600.0
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Reserved:
    """The worst case of requests that are in flight."""

    completion_tokens: int = 0
    usd: float = 0.0


@dataclass(slots=True)
class _Total:
    completion_tokens: int = 0
    usd: float = 0.0
    hours: float = 0.0


class Budget:
    """Limits, what is spent and what may be; safe for the threads of several teachers."""

    def __init__(
        self,
        limits: BudgetSettings,
        teachers: Mapping[str, TeacherSettings],
        spent: Iterable[Spent] = (),
    ) -> None:
        self._limits = limits
        self._teachers = teachers
        self._lock = threading.Lock()
        self._spent = _Total()
        self._reserved = _Total()
        self.is_limited = bool(limits.max_completion_tokens or limits.max_usd or limits.max_hours)
        for line in spent:
            self._add_tokens(line.purpose.teacher, line.prompt_tokens, line.completion_tokens)
            self._add_seconds(line.purpose.teacher, line.seconds)

    def reserve(self, teacher: str, requests: Sequence[Request]) -> Reserved | None:
        """Set the worst case of requests aside; ``None``: not before something comes back.

        Raises:
            BudgetExceeded: They do not fit into what is left, whatever comes back.
        """
        if not self.is_limited:
            return Reserved()
        wanted = self._worst_case(teacher, requests)
        with self._lock:
            self._require_room(wanted)
            if not self._fits(wanted, self._reserved):
                return None
            self._reserved.completion_tokens += wanted.completion_tokens
            self._reserved.usd += wanted.usd
        return wanted

    def settle(self, teacher: str, reserved: Reserved, answers: Sequence[Answer]) -> None:
        """Replace a reservation by what the answers took; none for requests that were cut off."""
        if not self.is_limited:
            return
        with self._lock:
            self._reserved.completion_tokens -= reserved.completion_tokens
            self._reserved.usd -= reserved.usd
            for answer in answers:
                self._add_tokens(teacher, answer.num_prompt_tokens, answer.num_completion_tokens)

    def add_seconds(self, seconds: Mapping[Purpose, float]) -> None:
        """Count time during which teachers were working."""
        with self._lock:
            for purpose, amount in seconds.items():
                self._add_seconds(purpose.teacher, amount)

    def _prices(self, teacher: str) -> TeacherSettings:
        # A teacher that the recipe no longer names has no price any more; its tokens count.
        return self._teachers.get(teacher, _FREE)

    def _add_tokens(self, teacher: str, num_prompt: int, num_completion: int) -> None:
        self._spent.completion_tokens += num_completion
        self._spent.usd += token_usd(self._prices(teacher), num_prompt, num_completion)

    def _add_seconds(self, teacher: str, seconds: float) -> None:
        self._spent.hours += seconds / _HOUR_S
        self._spent.usd += self._prices(teacher).usd_per_hour * seconds / _HOUR_S

    def _worst_case(self, teacher: str, requests: Sequence[Request]) -> Reserved:
        num_completion = sum(request.max_tokens for request in requests)
        if not self._limits.max_usd:
            return Reserved(num_completion)
        num_prompt = sum(
            len(message.content.encode("utf-8", "surrogatepass")) + _TOKENS_PER_MESSAGE
            for request in requests
            for message in request.messages
        )
        prices = self._prices(teacher)
        return Reserved(num_completion, token_usd(prices, num_prompt, num_completion))

    def _fits(self, wanted: Reserved, beside: _Total) -> bool:
        limits, spent = self._limits, self._spent
        tokens = spent.completion_tokens + beside.completion_tokens + wanted.completion_tokens
        usd = spent.usd + beside.usd + wanted.usd
        return (not limits.max_completion_tokens or tokens <= limits.max_completion_tokens) and (
            not limits.max_usd or usd <= limits.max_usd + _ROUNDING
        )

    def _require_room(self, wanted: Reserved) -> None:
        limits, spent = self._limits, self._spent
        if limits.max_hours and spent.hours >= limits.max_hours:
            _refuse("max_hours", f"{limits.max_hours:g}", f"{spent.hours:.2f} h were worked")
        if self._fits(wanted, _Total()):
            return
        tokens = spent.completion_tokens
        if limits.max_completion_tokens < tokens + wanted.completion_tokens and (
            limits.max_completion_tokens
        ):
            _refuse(
                "max_completion_tokens",
                f"{limits.max_completion_tokens:,}",
                f"{tokens:,} tokens are spent and the next request may take "
                f"{wanted.completion_tokens:,}",
            )
        _refuse(
            "max_usd",
            f"{limits.max_usd:,.2f}",
            f"{spent.usd:,.4f} USD are spent and the next request may cost {wanted.usd:,.4f}",
        )


def token_usd(prices: TeacherSettings, num_prompt: int, num_completion: int) -> float:
    """What tokens cost at a teacher's prices."""
    return (
        num_prompt * prices.usd_per_million_prompt_tokens
        + num_completion * prices.usd_per_million_completion_tokens
    ) / 1e6


def _refuse(name: str, limit: str, why: str) -> None:
    raise BudgetExceeded(
        f"the budget ends the run: {why}, of synthesis.budget.{name} = {limit}; "
        "all answers so far are kept",
        hint=f"raise synthesis.budget.{name} and run the same command again: it goes on where it "
        "stopped",
    )


_FREE = TeacherSettings()
