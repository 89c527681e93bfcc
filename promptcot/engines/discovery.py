"""Keeps a fleet's servers equal to a list of :mod:`promptcot.engines.replicas`."""

from __future__ import annotations

import asyncio

from pipeline import console
from pipeline.errors import TeacherError, TeacherUnreachable
from promptcot.engines.http_connections import Connections
from promptcot.engines.http_fleet import Fleet
from promptcot.engines.replicas import ListUnreadable, NotAList, ReplicaList
from promptcot.engines.servers import Servers

_FIRST_TRIES_S = 1.0


class Discovery:
    """Reads the list once before the first request, then at intervals until :meth:`close`.

    Args:
        servers: With the list's place and the interval.
        fleet: Whose servers are set.
        connections: Closed where a server left.
    """

    def __init__(self, servers: Servers, fleet: Fleet, connections: Connections) -> None:
        self._servers, self._fleet, self._connections = servers, fleet, connections
        self._list = ReplicaList(servers.replicas)
        self._lock = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None
        self._has_warned = False

    async def ready(self) -> None:
        """Until the list has been read once.

        Raises:
            TeacherError: What is there is no list of servers.
            TeacherUnreachable: It cannot be read, for ``first_contact_s``.
        """
        async with self._lock:
            if self._watcher is None:
                await self._read_first()
                self._watcher = asyncio.create_task(self._watch())
        if self._watcher.done():
            self._watcher.result()

    async def close(self) -> None:
        """Stop reading."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None

    async def _read_first(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._servers.first_contact_s
        while True:
            try:
                self._fleet.set_servers(await self._list.read())
            except NotAList as exc:
                raise TeacherError(
                    str(exc),
                    hint=f"correct {self._servers.urls_setting}: one http://…/v1 a line, JSON, "
                    "Prometheus' http_sd, or Ray Serve's /api/serve/applications/",
                ) from exc
            except ListUnreadable as exc:
                if loop.time() >= deadline:
                    raise TeacherUnreachable(
                        f"the list of servers cannot be read: {exc}",
                        hint=f"correct {self._servers.urls_setting}, or raise "
                        f"{self._servers.section}.first_contact_s where it comes later",
                    ) from exc
                await asyncio.sleep(_FIRST_TRIES_S)
            else:
                return

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._servers.replicas_refresh_s)
            try:
                urls = await self._list.read()
            except ListUnreadable as exc:
                if not self._has_warned:
                    self._has_warned = True
                    console.warn(f"{exc}; the servers known so far stay")
                continue
            self._has_warned = False
            came, went = self._fleet.set_servers(urls)
            for url in went:
                await self._connections.drop(url)
            if came or went:
                told = [f"{url} joined" for url in came] + [f"{url} left" for url in went]
                shown = ", ".join(told[:8]) + (f" and {len(told) - 8} more" if told[8:] else "")
                console.say(f"{self._list.place}: {shown}; {len(urls)} server(s) now")
