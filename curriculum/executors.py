"""Where batches are worked on: in this process, in a pool of processes, or on Ray.

A task is a small picklable value and the function that does it is at the top of a module, writes
its files itself and returns figures. So nothing large passes between processes, and it does not
matter where, in which order or how often a task is done: the same bytes come out.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from typing import Any, Protocol, TypeVar

from pipeline import console
from pipeline.errors import ConfigError, StoreError
from pipeline.interrupts import keep_sigterm
from pipeline.settings.curriculum import CurriculumSettings

Task = TypeVar("Task")
Result = TypeVar("Result")

TASKS_PER_WORKER = 2
"""In flight: one that is worked on, one that waits, so that no worker is idle."""
MAX_LOSSES = 3
"""A pool that loses workers more often than this is given up."""


class Executor(Protocol):
    """Does tasks, several at once."""

    @property
    def num_slots(self) -> int:
        """How many tasks are worth having in flight."""

    def map(
        self, function: Callable[[Task], Result], tasks: Iterable[Task]
    ) -> Iterator[tuple[Task, Result]]:
        """Do all tasks, few in flight at a time; each is yielded when it is done."""

    def run(self, function: Callable[[Task], Result], task: Task) -> Result:
        """Do one task and wait for it; may be called from several threads."""


@contextmanager
def open_executor(settings: CurriculumSettings) -> Iterator[Executor]:
    """The executor that the recipe asks for; its workers end with the block.

    Raises:
        ConfigError: Ray is asked for and not installed.
    """
    if settings.executor == "ray":
        with _open_ray(settings) as executor:
            yield executor
    elif settings.num_workers == 1:
        yield SerialExecutor()
    else:
        pool = PoolExecutor(settings.num_workers)
        try:
            yield pool
        finally:
            pool.close()


class SerialExecutor:
    """Does every task at once, here."""

    num_slots = 1

    def map(
        self, function: Callable[[Task], Result], tasks: Iterable[Task]
    ) -> Iterator[tuple[Task, Result]]:
        """See :class:`Executor`."""
        for task in tasks:
            yield task, function(task)

    def run(self, function: Callable[[Task], Result], task: Task) -> Result:
        """See :class:`Executor`."""
        return function(task)


class PoolExecutor:
    """Does tasks in processes of this machine; a process that dies is replaced."""

    def __init__(
        self,
        num_workers: int,
        remedy: str = "lower curriculum.num_workers or curriculum.batch_rows",
    ) -> None:
        self._num_workers = num_workers
        self._remedy = remedy
        self.num_slots = TASKS_PER_WORKER * num_workers
        self._lock = threading.Lock()
        self._losses = 0
        self._pool = self._start()

    def map(
        self, function: Callable[[Task], Result], tasks: Iterable[Task]
    ) -> Iterator[tuple[Task, Result]]:
        """See :class:`Executor`."""
        running: dict[Future[Result], tuple[Task, ProcessPoolExecutor]] = {}
        waiting, again = iter(tasks), list[Task]()
        try:
            while True:
                free = self.num_slots - len(running)
                for task in [*again, *islice(waiting, free - len(again))]:
                    future, pool = self._submit(function, task)
                    running[future] = (task, pool)
                again.clear()
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task, pool = running.pop(future)
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        self._replace(pool)
                        again.append(task)
                        continue
                    yield task, result
        finally:
            for future in running:
                future.cancel()

    def run(self, function: Callable[[Task], Result], task: Task) -> Result:
        """See :class:`Executor`."""
        while True:
            future, pool = self._submit(function, task)
            try:
                return future.result()
            except BrokenProcessPool:
                self._replace(pool)

    def close(self) -> None:
        """End the processes; tasks that wait are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        # Spawned, because forking a process with threads (Arrow's) can deadlock.
        return ProcessPoolExecutor(
            self._num_workers, mp_context=get_context("spawn"), initializer=_begin_worker
        )

    def _submit(
        self, function: Callable[[Task], Result], task: Task
    ) -> tuple[Future[Result], ProcessPoolExecutor]:
        while True:
            pool = self._pool
            try:
                return pool.submit(function, task), pool
            except BrokenProcessPool:
                self._replace(pool)

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        """Start new processes, once for all tasks that a broken pool held.

        Raises:
            StoreError: Processes die again and again.
        """
        with self._lock:
            if broken is not self._pool:
                return
            self._losses += 1
            broken.shutdown(wait=True, cancel_futures=True)
            if self._losses > MAX_LOSSES:
                raise StoreError(
                    f"worker processes ended {self._losses} times without a word; finished work "
                    "is kept",
                    hint=f"most likely memory ran out: {self._remedy} and run the same command "
                    "again",
                )
            console.warn("a worker process ended without a word; its batches are done again")
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


class RayExecutor:
    """Does tasks on a Ray cluster, whose machines share the output folder."""

    def __init__(self, ray: Any, num_workers: int) -> None:
        self._ray = ray
        self.num_slots = TASKS_PER_WORKER * num_workers
        self._remote = ray.remote(max_retries=MAX_LOSSES, num_cpus=1)(_call)

    def map(
        self, function: Callable[[Task], Result], tasks: Iterable[Task]
    ) -> Iterator[tuple[Task, Result]]:
        """See :class:`Executor`."""
        running: dict[Any, Task] = {}
        for task in tasks:
            running[self._remote.remote(function, task)] = task
            if len(running) >= self.num_slots:
                yield self._settle(running)
        while running:
            yield self._settle(running)

    def run(self, function: Callable[[Task], Result], task: Task) -> Result:
        """See :class:`Executor`."""
        result: Result = self._get(self._remote.remote(function, task))
        return result

    def _settle(self, running: dict[Any, Task]) -> tuple[Task, Any]:
        (done, *_), _ = self._ray.wait(list(running), num_returns=1)
        return running.pop(done), self._get(done)

    def _get(self, reference: Any) -> Any:
        """A task's result, or the error it ended with, as if it had been done here.

        Raises:
            StoreError: The machine or process that did it was lost again and again.
        """
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as exc:
            raise exc.cause from exc
        except (
            self._ray.exceptions.WorkerCrashedError,
            self._ray.exceptions.NodeDiedError,
            self._ray.exceptions.OutOfMemoryError,
        ) as exc:
            raise StoreError(
                f"Ray lost a task {MAX_LOSSES + 1} times ({type(exc).__name__}); finished work is "
                "kept",
                hint="look at Ray's logs; lower curriculum.batch_rows if memory ran out",
            ) from exc


def _call(function: Callable[[Any], Any], task: Any) -> Any:
    spare_memory()
    return function(task)


@contextmanager
def _open_ray(settings: CurriculumSettings) -> Iterator[RayExecutor]:
    """Join a cluster, or start one of this machine's processes."""
    try:
        import ray
    except ImportError as exc:
        raise ConfigError(
            'curriculum.executor = "ray" needs Ray, which is not installed',
            hint="pip install 'promptcot-mamba[ray]', or set curriculum.executor = \"local\"",
        ) from exc
    was_running = ray.is_initialized()
    with keep_sigterm():  # Ray takes it over
        if not was_running and settings.ray_address:
            ray.init(
                address=settings.ray_address, log_to_driver=False, logging_level=logging.WARNING
            )
        elif not was_running:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(
                address="local",  # never a cluster of somebody else on this machine
                num_cpus=settings.num_workers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                # Tasks hold paths and figures only: Ray's smallest store is plenty.
                object_store_memory=80 * 1024 * 1024,
            )
    try:
        yield RayExecutor(ray, settings.num_workers)
    finally:
        if not was_running:
            with keep_sigterm():  # and takes its handler away below Python
                ray.shutdown()
