"""Keep an engine full with the requests of many threads.

One event loop lives as long as its teacher. Every caller's requests enter one queue, in the order
of the calls, and the engine always has as many as it wants: a caller that waits for its last reply
leaves no gap, because the next caller's requests are already going out.

A result is handed out only when it is stored, so whatever was built on an answer finds it again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from pipeline.errors import BudgetExceeded, TeacherError, WorkPending
from promptcot.engines.account import Account
from promptcot.engines.answers import Purpose
from promptcot.engines.asks import Ask, Call, TeacherCancelled, Unit
from promptcot.engines.protocol import Answer, Engine
from promptcot.engines.writer import Arrived, GroupWriter, WorkingTime

_BEAT_S = 1.0
"""How often working time is stored while no answer arrives: what a kill can lose of it."""
_BUDGET_WAIT_S = 0.05
_LONGEST_CANCEL_S = 5.0
"""An engine that does not end by then is left behind."""


class Dispatcher:
    """The queue, what is in flight and what is being stored, for one engine.

    ``submit``, ``cancel`` and ``close`` may be called from any thread; everything else runs in the
    loop, or in the writer's thread (``_deliver``).
    """

    def __init__(self, engine: Engine, account: Account, teacher: str) -> None:
        capabilities = engine.capabilities
        self._engine = engine
        self._account = account
        self._teacher = teacher
        self._num_slots = 1 if capabilities.group_size else capabilities.max_concurrency
        # Guards what is open, the calls that wait for it, and the end of it all.
        self._lock = threading.Lock()
        self._open: dict[tuple[str, ...], Ask] = {}
        self._stopped: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._writer = GroupWriter(account, self._deliver, self._fail_all)
        # Only touched in the loop.
        self._queue: deque[Ask] = deque()
        self._tasks: set[asyncio.Task[Sequence[Answer]]] = set()
        self._arrived: list[Arrived] = []
        self._working = WorkingTime()
        self._is_beating = False
        self._refusal: BudgetExceeded | None = None

    def submit(
        self,
        units: Sequence[Unit],
        purpose: Purpose,
        advance: Callable[[int], None],
        *,
        keeps_answers: bool = True,
    ) -> Call:
        """Look up what is stored and queue the rest; returns at once.

        Without ``keeps_answers`` the call's answers are empty ones: no text is held for it.
        """
        unique = {unit.keys: unit for unit in units}
        with self._lock:
            # Looked up under the lock: an answer is either open or stored, never in between.
            unopened = [key for keys in unique if keys not in self._open for key in keys]
            call = Call(
                self._look_up(unopened, keeps_answers), advance, keeps_answers=keeps_answers
            )
            new: list[Ask] = []
            for keys, unit in unique.items():
                ask = self._open.get(keys)
                if ask is None:
                    if call.answers.keys() >= set(keys):
                        continue
                    ask = Ask(unit, purpose)
                    new.append(ask)
                ask.calls.append(call)
                call.num_left += 1
            if call.num_left and self._stopped is not None:
                raise self._stopped
            self._open.update((ask.unit.keys, ask) for ask in new)
            if new:
                self._started_loop().call_soon_threadsafe(self._enqueue, new)
        num_waiting = sum(len(unit.keys) for unit in units if not unit.is_within(call.answers))
        advance(sum(len(unit.keys) for unit in units) - num_waiting)
        if not call.num_left:
            call.is_done.set()
        return call

    def _look_up(self, keys: Sequence[str], keeps_answers: bool) -> dict[str, Answer]:
        store = self._account.store
        if keeps_answers:
            return store.get(keys)
        return dict.fromkeys(store.stored(keys), Answer("", "stop", 0, 0))

    def cancel(self) -> None:
        """Fail everything that waits, at once, and end the engine's tasks."""
        self._fail_all(
            TeacherCancelled(
                f"the work of teacher {self._teacher!r} was cancelled",
                hint="run the same command again: it goes on where it stopped",
            )
        )

    def close(self) -> None:
        """End the tasks, the engine and the loop; what has arrived is stored first."""
        self.cancel()
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        try:
            if self._thread.is_alive():
                asyncio.run_coroutine_threadsafe(self._shut_down(), loop).result()
            else:
                loop.run_until_complete(self._shut_down())
        finally:
            if self._thread.is_alive():
                loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()
            self._writer.close()

    def _started_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            name = f"teacher {self._teacher}"
            self._thread = threading.Thread(
                target=self._run, args=[self._loop], name=name, daemon=True
            )
            self._thread.start()
        return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            self.cancel()

    async def _shut_down(self) -> None:
        self._cancel_tasks()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LONGEST_CANCEL_S)
        self._hand_over()
        await self._engine.close()

    def _enqueue(self, asks: Sequence[Ask]) -> None:
        self._queue.extend(asks)
        self._fill()

    def _fill(self) -> None:
        """Send requests while there is room."""
        while self._queue and len(self._tasks) < self._num_slots and self._refusal is None:
            ask = self._queue[0]
            with self._lock:
                if not ask.is_wanted:
                    self._open.pop(ask.unit.keys, None)
                    self._queue.popleft()
                    continue
            if not self._send(ask):
                break
            self._queue.popleft()
        if self._refusal is not None and not self._tasks:
            # Only now: what was in flight when the budget ran out is paid for and kept.
            self._fail_all(self._refusal)

    def _send(self, ask: Ask) -> bool:
        """Start an engine task, unless the budget forbids it or wants to wait."""
        loop = asyncio.get_running_loop()
        try:
            reserved = self._account.budget.reserve(self._teacher, ask.unit.requests)
        except BudgetExceeded as exc:
            self._refusal = exc
            return False
        if reserved is None:
            if not self._tasks:
                # Another teacher's requests hold the rest; nothing of ours would wake us.
                loop.call_later(_BUDGET_WAIT_S, self._fill)
            return False
        if not self._is_beating:
            self._is_beating = True
            loop.call_later(_BEAT_S, self._beat)
        self._working.start(ask.purpose)
        task = loop.create_task(self._answer(ask))
        self._tasks.add(task)
        ask.reserved, ask.start = reserved, time.monotonic()
        task.add_done_callback(partial(self._on_done, ask))
        return True

    async def _answer(self, ask: Ask) -> Sequence[Answer]:
        return await self._engine.answer(ask.unit.requests)

    def _on_done(self, ask: Ask, task: asyncio.Task[Sequence[Answer]]) -> None:
        self._tasks.discard(task)
        self._working.end(ask.purpose)
        answers = self._outcome(ask, task)
        self._account.budget.settle(self._teacher, ask.reserved, answers)
        if answers:
            if not self._arrived:
                # Whatever else is ready in this turn of the loop is stored in one transaction.
                asyncio.get_running_loop().call_soon(self._hand_over)
            self._arrived.append(Arrived(ask, answers, time.monotonic() - ask.start))
        self._fill()

    def _outcome(self, ask: Ask, task: asyncio.Task[Sequence[Answer]]) -> Sequence[Answer]:
        """The answers of an engine task; empty where its callers were told why there are none."""
        if task.cancelled():
            self._fail(ask, TeacherCancelled("the request was cancelled", hint="run it again"))
            return ()
        error = task.exception()
        if isinstance(error, WorkPending):
            self._postpone(ask, error)
            return ()
        if error is not None:
            self._fail(ask, error)
            return ()
        answers = task.result()
        if len(answers) != len(ask.unit.keys):
            error = TeacherError(
                f"the {self._engine.capabilities.name} teacher gave {len(answers)} answers to "
                f"{len(ask.unit.keys)} requests",
                hint="report this with the recipe; complete groups are kept",
            )
            self._fail(ask, error)
            return ()
        return answers

    def _hand_over(self) -> None:
        """Give what has arrived, and the time it took, to the writer."""
        seconds = self._working.take()
        self._account.budget.add_seconds(seconds)
        if self._arrived or seconds:
            self._writer.put(self._arrived, seconds)
        self._arrived = []

    def _beat(self) -> None:
        self._hand_over()
        self._is_beating = bool(self._tasks)
        if self._is_beating:
            asyncio.get_running_loop().call_later(_BEAT_S, self._beat)

    def _deliver(self, arrived: Sequence[Arrived], replaced: dict[str, Answer]) -> None:
        """Hand stored answers to those who wait for them; called by the writer."""
        for ask, answers, _ in arrived:
            for call in ask.calls:
                call.advance(len(answers))
        with self._lock:
            for ask, answers, _ in arrived:
                self._open.pop(ask.unit.keys, None)
                final = {
                    key: replaced.get(key, answer)
                    for key, answer in zip(ask.unit.keys, answers, strict=True)
                }
                for call in ask.calls:
                    if call.keeps_answers:
                        call.answers.update(final)
                    call.settle_one()

    def _postpone(self, ask: Ask, reason: WorkPending) -> None:
        with self._lock:
            self._open.pop(ask.unit.keys, None)
            for call in ask.calls:
                call.pending.append(reason)
                call.settle_one()

    def _fail(self, ask: Ask, error: BaseException) -> None:
        with self._lock:
            self._open.pop(ask.unit.keys, None)
            for call in ask.calls:
                call.fail(error)

    def _fail_all(self, error: BaseException) -> None:
        with self._lock:
            self._stopped = self._stopped or error
            for ask in self._open.values():
                for call in ask.calls:
                    call.fail(error)
            self._open.clear()
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._cancel_tasks)

    def _cancel_tasks(self) -> None:
        self._queue.clear()
        for task in self._tasks:
            task.cancel()
