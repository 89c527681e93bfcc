"""Tasks on a Ray cluster: the executor that several machines share.

Our code travels with the job, so every node runs exactly what the command runs; the nodes need the
same Python and dependencies. A cluster that is started here listens on loopback only, shows no
dashboard and reports no usage.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from pipeline import console, ray_guard
from pipeline.errors import ConfigError, StoreError
from pipeline.executors import Job, WorkerExecutor, spare_memory
from pipeline.interrupts import keep_sigterm
from pipeline.settings.execution import ExecutionSettings

Task = TypeVar("Task")
Result = TypeVar("Result")

CODE = ("pipeline", "promptcot", "curriculum")
"""Packages whose functions are tasks."""
CONNECT_S = 20.0
"""Until a cluster's head takes a connection."""
STORE_BYTES = 80 << 20
"""Ray's smallest: tasks hold paths, figures and short texts."""


class RayExecutor(WorkerExecutor):
    """Does tasks on a Ray cluster."""

    def __init__(
        self, ray: Any, settings: ExecutionSettings, num_workers: int, *, remedy: str
    ) -> None:
        super().__init__(num_workers, remedy, settings.max_losses)
        self._ray = ray
        self._patience_s = settings.ray_patience_s
        self._empty_since: float | None = None
        self._shared: Path | None = None
        self._references: dict[Future[Any], Any] = {}
        self.is_broken = False
        """Whether this machine's part of the cluster is gone."""
        errors = ray.exceptions
        self._errors = errors
        self.lost = (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            # A result that went with its node before it was fetched.
            errors.ObjectLostError,
        )
        # Losses are counted and told by us, so Ray must not hide them.
        self._remote = ray.remote(max_retries=0, num_cpus=1)(_call)

    def hold_to(self, num_workers: int) -> None:
        """Leave the rest of a larger cluster to others, and say so."""
        processors = int(self._ray.cluster_resources().get("CPU", 0))
        if processors > num_workers:
            # A task that waits would be begun there.
            self.num_slots = num_workers
            console.warn(
                f"{num_workers} of {processors} processors of the Ray cluster are used; "
                "num_workers says how many"
            )

    def require(self, shared: Path) -> None:
        """From now on, refuse nodes that do not see this file."""
        self._shared = shared.resolve()

    def cancel(self) -> None:
        """See :class:`Executor`."""
        super().cancel()
        for future in list(self._references):
            self._drop(future)

    def _submit(self, function: Callable[[Task], Result], job: Job[Task]) -> Future[Any]:
        options = self._remote.options(name=job.name)
        reference = options.remote(function, job.task, self._shared)
        future: Future[Any] = reference.future()
        self._references[future] = reference
        return future

    def _take(self, future: Future[Any], job: Job[Task]) -> Any:
        self._references.pop(future, None)
        errors = self._errors
        try:
            return future.result()
        except errors.RayError as exc:
            if isinstance(exc, errors.RayTaskError) and not isinstance(exc.cause, errors.RayError):
                raise exc.cause from exc
            if self._is_cancelled or isinstance(exc, errors.TaskCancelledError):
                raise CancelledError(f"{job.name} was cancelled") from exc
            if isinstance(exc, self.lost):
                raise
            if isinstance(exc, errors.LocalRayletDiedError):
                self.is_broken = True
                raise StoreError(
                    f"{job.name}: Ray's own process on this machine was killed; finished work is "
                    "kept",
                    hint="run the same command again; where it happens again, memory ran out: "
                    f"{self._remedy}",
                ) from exc
            # Such as a module that the node does not have, a full disk, code that did not arrive.
            cause = getattr(exc, "cause", None) or exc
            raise StoreError(
                f"{job.name}: Ray cannot do it ({type(cause).__name__}): {_first_line(cause)}",
                hint="give every node the same Python and the same packages as here; Ray's own "
                "account is in /tmp/ray/session_latest/logs of the node",
            ) from exc

    def _drop(self, future: Future[Any]) -> None:
        reference = self._references.pop(future, None)
        if reference is not None and not future.done():
            # By force: tasks are pure, and one that computes hears nothing else.
            self._ray.cancel(reference, force=True)

    def _look(self) -> None:
        if self._ray.cluster_resources().get("CPU", 0) >= 1:
            self._empty_since = None
            return
        now = time.monotonic()
        if self._empty_since is None:
            self._empty_since = now
            console.warn("the Ray cluster has no processor now; waiting for nodes to join")
        if now - self._empty_since > self._patience_s:
            raise StoreError(
                f"the Ray cluster has had no processor for {self._patience_s:.0f} s; finished work "
                "is kept",
                hint="start nodes (ray start --address=HEAD:6379) and run the same command again",
            )


def _call(function: Callable[[Any], Any], task: Any, shared: Path | None) -> Any:
    """What a node does."""
    spare_memory()
    if shared is not None and not shared.is_file():
        raise StoreError(
            f"node {socket.gethostname()} of the Ray cluster does not see {shared}",
            hint="mount the run folder and the sources at the same paths on every node, or set "
            'execution.executor = "local"',
        )
    return function(task)


_connection = threading.Lock()
_users: list[str] = []
"""Addresses that the open executors of this process asked for; Ray connects a process once."""
_guards: list[subprocess.Popen[bytes]] = []
"""Of the cluster that this process started."""


@contextmanager
def open_ray(
    settings: ExecutionSettings, num_workers: int, *, remedy: str, shared: Path | None
) -> Iterator[RayExecutor]:
    """Join a cluster, or start one of this machine's processes, until the last user has ended.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be joined.
    """
    ray = _import_ray(settings)
    with _connection:
        is_ours = bool(_users) or not ray.is_initialized()
        if not _users and not ray.is_initialized():
            _connect(ray, settings, num_workers)
        executor = RayExecutor(ray, settings, num_workers, remedy=remedy)
        _users.append(settings.ray_address)
    try:
        if shared is not None:
            executor.require(shared)
        executor.hold_to(num_workers)
        yield executor
    finally:
        with _connection:
            _users.remove(settings.ray_address)
            if is_ours and not _users:
                with keep_sigterm():  # and takes its handler away below Python
                    ray.shutdown()
                _end_guards(is_needed=executor.is_broken)


def _import_ray(settings: ExecutionSettings) -> Any:
    # Both are read when Ray is first imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if _is_here(settings.ray_address):
        # The only way to have all of Ray's servers on loopback, on every system.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as exc:
        raise ConfigError(
            'execution.executor = "ray" needs Ray, which is not installed',
            hint="pip install 'promptcot-mamba[ray]', or set execution.executor = \"local\"",
        ) from exc
    return ray


def _is_here(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    return address == "" or host in {"localhost", "::1"} or host.startswith("127.")


def _require_head(address: str) -> None:
    """Ray itself looks for a head that is not there for minutes.

    Raises:
        OSError: Nobody listens.
    """
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()


def _connect(ray: Any, settings: ExecutionSettings, num_workers: int) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if settings.ray_address:
        options |= {"address": settings.ray_address, "runtime_env": {"py_modules": _list_code()}}
    else:
        options |= {
            "address": "local",  # never a cluster of somebody else on this machine
            "num_cpus": num_workers,
            "num_gpus": 0,
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
    try:
        _require_head(settings.ray_address)
        if not settings.ray_address:
            _start_guard()
        with keep_sigterm():  # Ray takes it over
            ray.init(**options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as exc:
        _end_guards(is_needed=True)
        where = settings.ray_address or "on this machine"
        raise ConfigError(
            f"the Ray cluster {where} cannot be used: {_first_line(exc)}",
            hint="start it (ray start --head; the same Ray and Python everywhere), set "
            "RAY_AUTH_MODE=token where it asks for a token, or correct execution.ray_address; "
            'execution.executor = "local" needs no cluster',
        ) from exc


def _start_guard() -> None:
    """From now on, Ray's processes end with this one, whatever ends it."""
    command = [sys.executable, "-I", "-S", ray_guard.__file__, str(os.getpid())]
    # Its input is open in this process alone, so it ends with this process.
    _guards.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))


def _end_guards(*, is_needed: bool) -> None:
    """End the guard, after its work where Ray's own shutdown leaves something."""
    while _guards:
        # Leaving the block ends its input and waits for it.
        with _guards.pop() as guard:
            if not is_needed:
                guard.kill()


def _list_code() -> list[str]:
    """Folders of our packages, which are copied to the nodes."""
    specs = [find_spec(name) for name in CODE]
    places = [place for spec in specs if spec for place in spec.submodule_search_locations or ()]
    return [str(Path(place).resolve()) for place in places]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0][:300]
