"""The one protocol between synthesis and whatever answers: embedded, HTTP, vLLM or a script.

An engine turns one request (or one group, where the composition of a group matters) into answers.
Everything that all engines need once wraps the protocol from outside, in
:mod:`promptcot.engines.teacher`: how many are asked at once, stored answers, budget and ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    top_k: int = 0
    """0: off."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    """Over prompt and generated tokens; 1: off."""
    constraint: Constraint | None = None
    stop: tuple[str, ...] = ()
    template: Literal["chat", "none"] = "chat"
    """``none``: the one message's text is the prompt as it is, for models without a chat format."""

    def key(self, model: str) -> str:
        """Content hash under which the answer is stored (32 hex digits)."""
        # Named only where it is used: most requests never had it, and keep their keys.
        penalty = {"repetition_penalty": self.repetition_penalty}
        return content_hash(
            {
                **(penalty if self.repetition_penalty != 1 else {}),
                "model": model,
                "messages": [m.model_dump() for m in self.messages],
                "temperature": self.temperature,
                "top_p": self.top_p,
                "max_tokens": self.max_tokens,
                "seed": self.seed,
                "top_k": self.top_k,
                "min_p": self.min_p,
                "template": self.template,
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
    detail: str = ""
    """With ``error``: why this one request has no text. Such an answer is never stored."""


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

    async def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """Answers of one group in its order, or of a single request where there are no groups.

        Called from one event loop, up to ``max_concurrency`` requests at a time (one group at a
        time with groups). It must leave the loop free while it waits or computes, and end soon
        after its task is cancelled.

        A request that cannot be answered (too long, refused, garbage after all retries) gives an
        ``error`` answer whose detail says why; the row is then rejected and counted.

        Raises:
            TeacherUnreachable: No server has answered anything for longer than the limit.
            TeacherError: The engine itself is unusable: wrong model, key or installation.
            WorkPending: The request was handed out and its answer comes later.
        """

    async def close(self) -> None:
        """Free the model or the connections; called in the loop that ``answer`` ran in."""
