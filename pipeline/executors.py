"""Where batches are worked on: in this process, in a pool of processes, or on Ray.

A task is a picklable value, and the function that does it is at the top of a module and pure: it
writes its own files whole or returns its result. So it does not matter where, in which order or how
often a task is done: the same bytes come out. Results come back in the order of the tasks.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from pipeline import console
from pipeline.errors import StoreError
from pipeline.settings.execution import ExecutionSettings

Task = TypeVar("Task")
Result = TypeVar("Result")

TASKS_PER_WORKER = 2
"""In flight: one that is worked on, one that waits, so that no worker is idle."""
MAX_LOSSES = 3
"""A task that loses more workers than this is given up, where no setting says otherwise."""
LOOK_S = 20.0
"""Seconds of waiting after which an executor looks whether anybody is there to work."""


class Executor(Protocol):
    """Does tasks, several at once."""

    @property
    def num_slots(self) -> int:
        """How many tasks are worth having in flight."""

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        name: Callable[[Task], str] = str,
    ) -> Iterator[tuple[Task, Result]]:
        """Do all tasks, few taken ahead; each is yielded in its turn.

        Args:
            function: Pure, at the top of a module.
            tasks: Read as they are needed.
            name: What to call a task in errors and notes.

        Raises:
            StoreError: A task's worker died again and again, or there is none any more.
        """

    def run(self, function: Callable[[Task], Result], task: Task, name: str) -> Result:
        """Do one task and wait for it; may be called from several threads.

        Raises:
            StoreError: Its worker died again and again, or there is none any more.
            CancelledError: See :meth:`cancel`.
        """

    def cancel(self) -> None:
        """Begin nothing more and let go of what runs; whoever waits gets ``CancelledError``."""


@contextmanager
def open_executor(
    settings: ExecutionSettings,
    num_workers: int,
    *,
    remedy: str,
    shared: Path | None = None,
) -> Iterator[Executor]:
    """The executor that the recipe asks for; its workers end with the block.

    Args:
        settings: ``[execution]`` of the recipe.
        num_workers: Tasks worked on at once.
        remedy: What makes a task smaller, for the error that tells of lost workers.
        shared: A file that all machines must see, where tasks exchange files; none where they
            only return results.

    Raises:
        ConfigError: Ray is asked for and not installed, or its cluster cannot be joined.
    """
    if settings.executor == "ray":
        from pipeline.ray_executor import open_ray

        with open_ray(settings, num_workers, remedy=remedy, shared=shared) as executor:
            yield executor
    elif num_workers == 1:
        yield SerialExecutor()
    else:
        pool = PoolExecutor(num_workers, remedy, max_losses=settings.max_losses)
        try:
            yield pool
        finally:
            pool.close()


class SerialExecutor:
    """Does every task at once, here."""

    num_slots = 1

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        name: Callable[[Task], str] = str,
    ) -> Iterator[tuple[Task, Result]]:
        """See :class:`Executor`."""
        for task in tasks:
            yield task, function(task)

    def run(self, function: Callable[[Task], Result], task: Task, name: str) -> Result:
        """See :class:`Executor`."""
        return function(task)

    def cancel(self) -> None:
        """See :class:`Executor`; there is nothing that has not begun."""


@dataclass(slots=True)
class Job(Generic[Task]):
    """One task on its way."""

    task: Task
    place: int
    """In the order of the tasks."""
    name: str
    losses: int = 0
    holder: Any = None
    """What it was last given to."""


class WorkerExecutor(ABC):
    """What executors share whose workers can be lost: order, bounds, doing it again."""

    shares_fate = False
    """Whether the death of one worker takes the tasks of all others with it."""
    lost: tuple[type[BaseException], ...] = ()
    """What a task ends with whose worker is lost."""

    def __init__(self, num_workers: int, remedy: str, max_losses: int) -> None:
        self.num_slots = TASKS_PER_WORKER * num_workers
        self._remedy = remedy
        self._max_losses = max_losses
        self._doing_again = threading.Lock()
        self._is_cancelled = False

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        name: Callable[[Task], str] = str,
    ) -> Iterator[tuple[Task, Result]]:
        """See :class:`Executor`."""
        waiting = (Job(task, place, name(task)) for place, task in enumerate(tasks))
        running: dict[Future[Any], Job[Task]] = {}
        again: deque[Job[Task]] = deque()
        done: dict[int, tuple[Task, Result]] = {}
        turn = 0
        try:
            while True:
                room = self._count_free(len(running), len(done), num_again=len(again))
                chosen = [again.popleft() for _ in range(min(room, len(again)))]
                for job in [*chosen, *islice(waiting, room - len(chosen))]:
                    running[self._give(function, job)] = job
                if not running:
                    return
                for future in self._wait(running):
                    job = running.pop(future)
                    try:
                        done[job.place] = (job.task, self._take(future, job))
                    except self.lost as exc:
                        self._note_loss(job, exc)
                        again.append(job)
                while turn in done:
                    yield done.pop(turn)
                    turn += 1
        finally:
            for future in running:
                self._drop(future)

    def run(self, function: Callable[[Task], Result], task: Task, name: str) -> Result:
        """See :class:`Executor`."""
        job = Job(task, 0, name)
        try:
            return self._do(function, job)
        except self.lost as exc:
            self._note_loss(job, exc)
        with self._doing_again if self.shares_fate else nullcontext():
            while True:
                try:
                    return self._do(function, job)
                except self.lost as exc:
                    self._note_loss(job, exc)

    def cancel(self) -> None:
        """See :class:`Executor`."""
        self._is_cancelled = True

    def _count_free(self, num_running: int, num_done: int, *, num_again: int) -> int:
        """How many tasks to give out now."""
        if num_again and self.shares_fate:
            # Alone, so that it is known which one kills its worker.
            return 0 if num_running else 1
        free = self.num_slots - num_running
        if num_again:
            return min(free, num_again)
        # What waits for its turn takes memory too.
        return min(free, TASKS_PER_WORKER * self.num_slots - num_running - num_done)

    def _do(self, function: Callable[[Task], Result], job: Job[Task]) -> Result:
        future = self._give(function, job)
        try:
            self._wait([future])
            result: Result = self._take(future, job)
            return result
        finally:
            self._drop(future)

    def _give(self, function: Callable[[Task], Result], job: Job[Task]) -> Future[Any]:
        if self._is_cancelled:
            raise CancelledError(f"{job.name} is not begun: the work was cancelled")
        return self._submit(function, job)

    def _wait(self, futures: Collection[Future[Any]]) -> set[Future[Any]]:
        """Those that are done, at least one."""
        while not (done := wait(futures, LOOK_S, FIRST_COMPLETED).done):
            self._look()
        return done

    def _note_loss(self, job: Job[Task], cause: BaseException) -> None:
        """Count it, and tell.

        Raises:
            StoreError: It was one too many.
        """
        self._recover(job)
        job.losses += 1
        if job.losses > self._max_losses:
            times = "once" if job.losses == 1 else f"{job.losses} times"
            raise StoreError(
                f"{job.name}: whoever worked on it ended {times} without a word "
                f"({type(cause).__name__}); finished work is kept",
                hint=f"most likely memory ran out: {self._remedy} and run the same command again",
            ) from cause
        console.warn(f"the worker on {job.name} ended without a word; this is done again")

    @abstractmethod
    def _submit(self, function: Callable[[Task], Result], job: Job[Task]) -> Future[Any]: ...

    def _take(self, future: Future[Any], job: Job[Task]) -> Any:
        """The result, or the error it ended with, as if it had been done here."""
        return future.result()

    def _drop(self, future: Future[Any]) -> None:
        """Let go of a task; of one that is done, nothing."""
        future.cancel()

    def _recover(self, job: Job[Task]) -> None:  # noqa: B027
        """Make ready to do a task again."""

    def _look(self) -> None:  # noqa: B027
        """Whether anybody is there to work."""


class PoolExecutor(WorkerExecutor):
    """Does tasks in processes of this machine; a process that dies is replaced."""

    shares_fate = True
    lost = (BrokenProcessPool,)

    def __init__(self, num_workers: int, remedy: str, *, max_losses: int = MAX_LOSSES) -> None:
        super().__init__(num_workers, remedy, max_losses)
        self._num_workers = num_workers
        self._lock = threading.Lock()
        self._pool = self._start()

    def close(self) -> None:
        """End the processes; tasks that wait are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def cancel(self) -> None:
        """See :class:`Executor`."""
        super().cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        # Spawned, because forking a process with threads (Arrow's) can deadlock.
        return ProcessPoolExecutor(
            self._num_workers, mp_context=get_context("spawn"), initializer=_begin_worker
        )

    def _submit(self, function: Callable[[Task], Result], job: Job[Task]) -> Future[Any]:
        while True:
            job.holder = pool = self._pool
            try:
                return pool.submit(function, job.task)
            except BrokenProcessPool:
                # Broken by a task of another thread, which counts the loss.
                self._recover(job)

    def _recover(self, job: Job[Task]) -> None:
        """Start new processes, once for all tasks that a broken pool held."""
        with self._lock:
            if job.holder is self._pool:
                self._pool.shutdown(wait=True, cancel_futures=True)
                self._pool = self._start()


def _begin_worker() -> None:
    # Ctrl-C reaches the whole process group; the parent alone reports it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    spare_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def spare_memory() -> None:
    """Keep a process that only does tasks small: 110 MB less for each (measured)."""
    import pyarrow as pa

    # Arrow's own pool keeps what a row group of long rows once took.
    pa.set_memory_pool(pa.system_memory_pool())
    # Arrow looks for pandas when it converts a list; importing it takes 30 MB and 0.3 s.
    if not any(isinstance(finder, _NoPandas) for finder in sys.meta_path):
        sys.meta_path.insert(0, _NoPandas())


class _NoPandas:
    """Lets nothing in this process find pandas."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not used in worker processes", name=name)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, which would wait for tasks for ever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
