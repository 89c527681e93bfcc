"""Ask a teacher: stored answers first, then the engine, everything kept as it arrives.

This wraps any engine once. Answers are stored under a hash of what determines them, so a run that
was killed, or is run again, asks only for what is missing; a finished run loads no model.

Any number of threads ask at once. They share the engine: see :mod:`promptcot.engines.dispatch`.

An engine whose sampled text depends on which requests run together declares a group size. The
requests of one call are cut into consecutive groups, the group is part of each answer's key, and a
group is stored in one write or asked again whole. So a killed run ends with the same texts as an
undisturbed one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from pipeline import console
from pipeline.errors import TeacherError
from pipeline.hashing import content_hash
from pipeline.settings.recipe import Recipe
from pipeline.settings.teacher import TeacherSettings
from pipeline.stage_events import tell_answers
from promptcot.engines.account import Account
from promptcot.engines.answers import Purpose
from promptcot.engines.asks import Call, Unit
from promptcot.engines.dispatch import Dispatcher
from promptcot.engines.protocol import Answer, Capabilities, Engine, Request
from promptcot.engines.registry import make_engine


class Teacher:
    """A teacher with its stored answers; use as a context manager.

    Args:
        engine: What answers.
        name: The teacher's name in the recipe, as the ledger and the budget know it.
        num_threads: CPU threads of the embedded engine.
        account: Stored answers and budget of the run folder.
        owns_account: Whether to open and close it with the teacher; else it is open already.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        account: Account,
        owns_account: bool = True,
        num_threads: int = 1,
    ) -> None:
        capabilities = engine.capabilities
        self._engine = engine
        self._name = name
        self._account = account
        self._owns_account = owns_account
        self._dispatcher = Dispatcher(engine, account, name)
        self._stack = ExitStack()
        self.watch: Callable[[str, Sequence[Request], Sequence[Answer]], None] | None = None
        """Told of every finished call: its label, requests and answers, stored ones included."""
        scope = [capabilities.name, capabilities.model]
        # The number of threads changes the order of sums in batched kernels, hence the samples.
        self._scope = content_hash(
            [*scope, num_threads] if capabilities.name == "embedded" else scope
        )

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""
        return self._engine.capabilities

    def __enter__(self) -> Teacher:
        if self._owns_account:
            self._stack.enter_context(self._account)
        self._stack.callback(self._dispatcher.close)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def answer_all(
        self, requests: Sequence[Request], label: str, *, is_shown: bool = True
    ) -> list[Answer]:
        """Answer all requests, in their order; call it from as many threads as you like.

        Calls are served in their order, and the engine never waits for one to end. An answer whose
        ``finish_reason`` is ``error`` says in ``detail`` why there is none; it is not stored.

        Args:
            requests: What to ask. The cut into groups depends on them and their order.
            label: The stage, as the progress line and the ledger call it.
            is_shown: Whether there is a progress line.

        Raises:
            TeacherError: The engine cannot serve a request, or failed; answers so far are kept.
            TeacherUnreachable: No answer within the retries; answers so far are kept.
            BudgetExceeded: The next request could pass the budget; answers so far are kept.
            WorkPending: Requests were handed out and their answers come later.
            StoreError: The stored answers cannot be read or written.
        """
        self._check_constraints(requests)
        units, purpose = self._cut(requests), self._purpose(label)
        with ExitStack() as shown:
            advance: Callable[[int], None] = _ignore
            if is_shown:
                line = console.meter(label, total=len(requests), unit="answers")
                advance = tell_answers(shown.enter_context(line), len(requests))
            answers = self._dispatcher.submit(units, purpose, advance).wait()
        found = [answers[key] for unit in units for key in unit.keys]
        if self.watch is not None:
            self.watch(label, requests, found)
        return found

    def start_all(
        self, requests: Sequence[Request], label: str, advance: Callable[[int], None]
    ) -> Call:
        """Begin to answer all requests and return at once; texts are stored, not held.

        :meth:`answer_all` of a part of them waits for that part. Where the engine wants groups,
        these are cut from the requests of one call, so a part would be another group.

        Args:
            requests: What to ask.
            label: As in :meth:`answer_all`.
            advance: Told how many more answers are there, from another thread.

        Returns:
            The call; as long as it is not done, its requests are wanted.
        """
        self._check_constraints(requests)
        units, purpose = self._cut(requests), self._purpose(label)
        advance = tell_answers(advance, len(requests))
        return self._dispatcher.submit(units, purpose, advance, keeps_answers=False)

    def _purpose(self, label: str) -> Purpose:
        capabilities = self.capabilities
        return Purpose(label, self._name, capabilities.name, capabilities.model)

    def cancel(self) -> None:
        """End all work for good, from any thread: what waits fails at once."""
        self._dispatcher.cancel()

    def _check_constraints(self, requests: Sequence[Request]) -> None:
        known = self.capabilities.constraints
        for request in requests:
            if request.constraint is not None and request.constraint.kind not in known:
                raise TeacherError(
                    f"the {self.capabilities.name} teacher cannot enforce a "
                    f"{request.constraint.kind} (it can: {', '.join(sorted(known)) or 'nothing'})",
                    hint="ask without a constraint, or use another teacher",
                )

    def _cut(self, requests: Sequence[Request]) -> list[Unit]:
        """Groups of the engine's size, or single requests where they are independent."""
        keys = [request.key(self._scope) for request in requests]
        size = self.capabilities.group_size
        if size is None:
            return [Unit((r,), (key,)) for r, key in zip(requests, keys, strict=True)]
        units = []
        for start in range(0, len(requests), size):
            members = keys[start : start + size]
            group = content_hash(members, length=32)
            units.append(
                Unit(
                    requests=tuple(requests[start : start + size]),
                    keys=tuple(f"{group}-{position}" for position in range(len(members))),
                )
            )
        return units


def _ignore(_: int) -> None:
    """Progress that nobody watches."""


def open_teacher(
    settings: TeacherSettings,
    *,
    recipe: Recipe,
    out: Path,
    account: Account | None = None,
    name: str = "default",
) -> Teacher:
    """A teacher whose answers are stored under ``out/answers``; use it in a ``with`` block.

    No model is loaded and no server contacted before an answer is missing.

    Args:
        settings: One of the recipe's teachers.
        recipe: Where scripts, prices and the budget are.
        out: The run folder.
        account: The folder's open books, where several teachers share them.
        name: The teacher's in the recipe, under which it is in the ledger. Another teacher may
            have equal settings.

    Raises:
        ConfigError: The recipe's teacher lacks a setting that its engine needs.
        TeacherError: The engine cannot be used as configured.
        StoreError: The stored answers cannot be used.
    """
    engine = make_engine(name, settings, recipe, out)
    return Teacher(
        engine,
        name=name,
        account=account or Account(recipe, out),
        owns_account=account is None,
        num_threads=settings.num_threads,
    )
