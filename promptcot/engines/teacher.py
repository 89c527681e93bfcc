"""Ask a teacher: stored answers first, then the engine, everything kept as it arrives.

This wraps any engine once. Answers are stored under a hash of what determines them, so a run that
was killed, or is run again, asks only for what is missing; a finished run loads no model.

An engine whose sampled text depends on which requests run together declares a group size. Its
requests are cut into consecutive groups before the store is looked at, the group is part of each
answer's key, and a group is stored in one write or asked again whole. So a killed run ends with
the same texts as an undisturbed one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline import console
from pipeline.errors import TeacherError
from pipeline.hashing import content_hash
from pipeline.run_folder import append_log
from pipeline.settings.recipe import Recipe
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.answers import AnswerStore
from promptcot.engines.protocol import Answer, Capabilities, Engine, Request
from promptcot.engines.registry import make_engine

LEDGER = "ledger"
"""Name of the log that gets one line per call: tokens, seconds, stored answers."""


@dataclass(slots=True)
class Usage:
    """What a teacher was asked, and what that took."""

    num_requests: int = 0
    num_stored: int = 0
    """Requests served from stored answers."""
    num_prompt_tokens: int = 0
    """Of newly generated answers only, as the engine counts."""
    num_completion_tokens: int = 0
    seconds: float = 0.0

    def add(self, other: Usage) -> None:
        """Add another usage to this one."""
        self.num_requests += other.num_requests
        self.num_stored += other.num_stored
        self.num_prompt_tokens += other.num_prompt_tokens
        self.num_completion_tokens += other.num_completion_tokens
        self.seconds += other.seconds


@dataclass(frozen=True, slots=True)
class _Unit:
    """Requests that are asked and stored together, with the keys of their answers."""

    requests: tuple[Request, ...]
    keys: tuple[str, ...]


class Teacher:
    """A teacher with its stored answers; use as a context manager.

    Attributes:
        usage: Totals since the teacher was opened.
    """

    def __init__(self, engine: Engine, *, num_threads: int, out: Path) -> None:
        self._engine = engine
        self._out = out
        self._store: AnswerStore | None = None
        self._lock = threading.Lock()
        self.usage = Usage()
        capabilities = engine.capabilities
        scope = [capabilities.name, capabilities.model]
        # The number of threads changes the order of sums in batched kernels, hence the samples.
        self._scope = [*scope, num_threads] if capabilities.name == "embedded" else scope

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""
        return self._engine.capabilities

    def __enter__(self) -> Teacher:
        self._store = AnswerStore(self._out / "answers")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
        asyncio.run(self._engine.close())

    def answer_all(self, requests: Sequence[Request], label: str) -> list[Answer]:
        """Answer all requests, in their order.

        Call it from a thread without a running event loop. One call runs at a time.

        Args:
            requests: What to ask. The cut into groups depends on them and their order.
            label: What the progress line and the ledger call this work.

        Raises:
            TeacherError: The engine cannot serve a request, or failed; answers so far are kept.
            TeacherUnreachable: No answer within the retries; answers so far are kept.
            StoreError: The stored answers cannot be read or written.
        """
        self._check_constraints(requests)
        with self._lock:
            store = self._opened_store()
            units = self._cut(requests)
            missing = _missing_units(units, store)
            num_missing = sum(len(unit.keys) for unit in missing)
            usage = Usage(num_requests=len(requests), num_stored=len(requests) - num_missing)
            start = time.monotonic()
            try:
                with console.progress(label, total=len(requests), unit="answers") as advance:
                    advance(usage.num_stored)
                    if missing:
                        asyncio.run(self._ask(missing, store, usage=usage, advance=advance))
            finally:
                # Also after a failure: what was spent was spent.
                usage.seconds = time.monotonic() - start
                self.usage.add(usage)
                append_log(self._out, LEDGER, self._ledger_entry(label, usage))
            return _read(units, store)

    def _check_constraints(self, requests: Sequence[Request]) -> None:
        known = self.capabilities.constraints
        for request in requests:
            if request.constraint is not None and request.constraint.kind not in known:
                raise TeacherError(
                    f"the {self.capabilities.name} teacher cannot enforce a "
                    f"{request.constraint.kind} (it can: {', '.join(sorted(known)) or 'nothing'})",
                    hint="ask without a constraint, or use another teacher",
                )

    def _opened_store(self) -> AnswerStore:
        if self._store is None:
            raise RuntimeError("a teacher is used inside its with block")
        return self._store

    def _cut(self, requests: Sequence[Request]) -> list[_Unit]:
        """Groups of the engine's size, or single requests where they are independent."""
        scope = content_hash(self._scope)
        keys = [request.key(scope) for request in requests]
        size = self.capabilities.group_size
        if size is None:
            return [_Unit((r,), (key,)) for r, key in zip(requests, keys, strict=True)]
        units = []
        for start in range(0, len(requests), size):
            members = keys[start : start + size]
            group = content_hash(members, length=32)
            units.append(
                _Unit(
                    requests=tuple(requests[start : start + size]),
                    keys=tuple(f"{group}-{position}" for position in range(len(members))),
                )
            )
        return units

    async def _ask(
        self,
        missing: Sequence[_Unit],
        store: AnswerStore,
        *,
        usage: Usage,
        advance: Callable[[int], None],
    ) -> None:
        """Ask the engine and store each unit as soon as it is complete."""
        if self.capabilities.group_size is None:
            # Independent requests go out in one call, so that the engine can keep itself full.
            requests = [request for unit in missing for request in unit.requests]
            async for position, answer in self._stream(requests, usage, advance):
                store.put({missing[position].keys[0]: answer})
            return
        for unit in missing:
            group = {
                unit.keys[position]: answer
                async for position, answer in self._stream(unit.requests, usage, advance)
            }
            store.put(group)

    async def _stream(
        self, requests: Sequence[Request], usage: Usage, advance: Callable[[int], None]
    ) -> AsyncGenerator[tuple[int, Answer], None]:
        """The engine's answers, counted and shown."""
        num_answers = 0
        async with aclosing(self._engine.answer(requests)) as answers:
            async for position, answer in answers:
                num_answers += 1
                usage.num_prompt_tokens += answer.num_prompt_tokens
                usage.num_completion_tokens += answer.num_completion_tokens
                advance(1)
                yield position, answer
        if num_answers != len(requests):
            raise TeacherError(
                f"the {self.capabilities.name} teacher gave {num_answers} answers to "
                f"{len(requests)} requests",
                hint="report this with the recipe; complete groups are kept",
            )

    def _ledger_entry(self, label: str, usage: Usage) -> dict[str, Any]:
        seconds = max(usage.seconds, 1e-9)
        return {
            "event": "answers",
            "label": label,
            "engine": self.capabilities.name,
            "model": self.capabilities.model,
            "requests": usage.num_requests,
            "stored": usage.num_stored,
            "prompt_tokens": usage.num_prompt_tokens,
            "completion_tokens": usage.num_completion_tokens,
            "seconds": round(usage.seconds, 3),
            "completion_tokens_per_s": round(usage.num_completion_tokens / seconds, 1),
        }


def open_teacher(settings: TeacherSettings, *, recipe: Recipe, out: Path) -> Teacher:
    """A teacher whose answers are stored under ``out/answers``; use it in a ``with`` block.

    No model is loaded and no server contacted before an answer is missing.

    Raises:
        ConfigError: The recipe's teacher lacks a setting that its engine needs.
        TeacherError: The engine cannot be used as configured.
    """
    engine = make_engine(settings, recipe)
    return Teacher(engine, num_threads=settings.num_threads, out=out)


def _missing_units(units: Sequence[_Unit], store: AnswerStore) -> list[_Unit]:
    """Units with an answer that is not stored; equal requests count once."""
    stored = store.stored([key for unit in units for key in unit.keys])
    missing = {unit.keys: unit for unit in units if not stored.issuperset(unit.keys)}
    return list(missing.values())


def _read(units: Sequence[_Unit], store: AnswerStore) -> list[Answer]:
    """All answers in order, as stored: what another run would read."""
    keys = [key for unit in units for key in unit.keys]
    answers = store.get(keys)
    return [answers[key] for key in keys]
