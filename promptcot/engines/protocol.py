"""The one protocol between synthesis and whatever answers: embedded, HTTP, vLLM or a script.

An engine turns requests into answers and keeps itself full. Everything that all engines need once
(stored answers, retries of unfinished groups, the ledger) wraps the protocol from outside, in
:mod:`promptcot.engines.teacher`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.hashing import content_hash
from pipeline.records import FinishReason, Message

ConstraintKind = Literal["regex", "json_schema"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """The form an answer must have, enforced while it is generated."""

    kind: ConstraintKind
    value: str
    """A regular expression, or a JSON schema as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One chat completion asked of a teacher."""

    messages: tuple[Message, ...]
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    constraint: Constraint | None = None
    stop: tuple[str, ...] = ()

    def key(self, model: str) -> str:
        """Content hash under which the answer is stored (32 hex digits)."""
        return content_hash(
            {
                "model": model,
                "messages": [m.model_dump() for m in self.messages],
                "temperature": self.temperature,
                "top_p": self.top_p,
                "max_tokens": self.max_tokens,
                "seed": self.seed,
                "constraint": (
                    [self.constraint.kind, self.constraint.value] if self.constraint else None
                ),
                "stop": list(self.stop),
            },
            length=32,
        )

    @property
    def prompt_hash(self) -> str:
        """Content hash of the messages alone, kept as provenance."""
        return content_hash([m.model_dump() for m in self.messages])


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; ``finish_reason`` ``length`` means that the text was cut off."""

    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine can do, and how it wants to be fed."""

    name: str
    model: str
    """Identity of the weights as far as the engine knows it; part of every request key."""
    constraints: frozenset[ConstraintKind]
    group_size: int | None
    """Requests answered together, where the composition of a group changes its sampled text
    (batched kernels); ``None`` when requests are independent of each other."""
    max_concurrency: int


class Engine(Protocol):
    """Turns requests into answers."""

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do."""

    def answer(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Answer], None]:
        """Yield (position, answer) as they finish, each position exactly once.

        Raises:
            TeacherUnreachable: No answer within the configured retries.
            TeacherError: The engine refused or failed.
        """

    async def close(self) -> None:
        """Free the model or the connections."""
