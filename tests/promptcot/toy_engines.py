"""Small engines of our own protocol, each with one trait that a real engine has."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import TeacherError
from pipeline.hashing import content_hash
from pipeline.records import Message
from pipeline.settings import Recipe, load_recipe
from promptcot.engines.account import Account
from promptcot.engines.protocol import Answer, Capabilities, Request
from promptcot.engines.teacher import Teacher


class ToyEngine:
    """Each answer takes as long as ``delay`` says, and depends on the group it came in.

    Attributes:
        seeds: Seeds of all requests asked, in the order of asking.
        peak: The most requests that were in flight at once.
    """

    def __init__(
        self,
        group_size: int | None = None,
        *,
        slots: int = 8,
        delay: Callable[[int], float] = lambda seed: 0.0,
        reply: Callable[[Request], Answer] | None = None,
    ) -> None:
        self.capabilities = Capabilities(
            name="embedded",
            model="toy",
            constraints=frozenset(),
            group_size=group_size,
            max_concurrency=slots,
        )
        self.seeds: list[int] = []
        self.num_calls = 0
        self.num_running = self.peak = 0
        self.is_closed = False
        self.threads: set[int] = set()
        self._delay = delay
        self._reply = reply

    async def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
        self.num_calls += 1
        self.threads.add(threading.get_ident())
        self.seeds += [r.seed for r in requests]
        self.num_running += len(requests)
        self.peak = max(self.peak, self.num_running)
        try:
            await asyncio.sleep(max(self._delay(r.seed) for r in requests))
        finally:
            self.num_running -= len(requests)
        together = content_hash([r.seed for r in requests]) if len(requests) > 1 else "alone"
        if self._reply is not None:
            return [self._reply(r) for r in requests]
        return [Answer(f"{r.seed} {together}", "stop", 1, 2) for r in requests]

    async def close(self) -> None:
        self.is_closed = True
        self.threads.add(threading.get_ident())


class FailsAfter(ToyEngine):
    """Answers some requests, then none any more."""

    def __init__(self, group_size: int | None, num_answers: int) -> None:
        super().__init__(group_size, slots=1)
        self._left = num_answers

    async def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
        if self._left < len(requests):
            raise TeacherError("it broke", hint="mend it")
        self._left -= len(requests)
        return await super().answer(requests)


def questions(count: int, first: int = 0, **changes: Any) -> list[Request]:
    values: dict[str, Any] = {"temperature": 0.6, "top_p": 1.0, "max_tokens": 9, **changes}
    return [
        Request(messages=(Message(role="user", content=f"question {i}"),), seed=i, **values)
        for i in range(first, first + count)
    ]


def toy_recipe(folder: Path, text: str = "") -> Recipe:
    path = folder / "recipe.toml"
    path.write_text('name = "toy"\n' + text, encoding="utf-8")
    return load_recipe(str(path))


def open_toy(engine: ToyEngine, out: Path, *, recipe: Recipe | None = None) -> Teacher:
    account = Account(recipe or toy_recipe(out), out)
    return Teacher(engine, name="default", account=account)
