"""Connections that are kept between requests, without a pool that slows down as it grows.

httpx's own pool looks at every connection for every request: at 512 in flight that took 8 ms of
CPU each, more than all else together. Here each connection is a client of its own, and the free
ones of a server are a stack, so that the warmest is used first.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from pipeline.keys import authorization

_CONNECT_TIMEOUT_S = 10.0
_KEEP_ALIVE_S = 4.0
"""Below the five seconds after which uvicorn, hence vLLM, closes an idle connection itself."""


class Connections:
    """As many connections as there are requests in flight at once."""

    def __init__(self, *, api_key_env: str, timeout_s: float) -> None:
        self._api_key_env = api_key_env
        self._timeout_s = timeout_s
        self._free: dict[str, list[httpx.AsyncClient]] = {}
        self._ssl: ssl.SSLContext | None = None

    @contextmanager
    def borrow(self, base_url: str) -> Iterator[httpx.AsyncClient]:
        """A client that nobody else uses meanwhile."""
        free = self._free.setdefault(base_url, [])
        client = free.pop() if free else self._create(base_url)
        try:
            yield client
        finally:
            free.append(client)

    async def drop(self, base_url: str) -> None:
        """Close the free ones of a server that is not asked any more."""
        free = self._free.get(base_url, [])
        while free:
            await free.pop().aclose()

    async def close(self) -> None:
        """Close all that are free; call it when no request is in flight."""
        clients = [client for free in self._free.values() for client in free]
        self._free.clear()
        for client in clients:
            await client.aclose()

    def _create(self, base_url: str) -> httpx.AsyncClient:
        if base_url.startswith("https:"):
            # Loading the certificates takes longer than many requests: once for all.
            self._ssl = self._ssl or httpx.create_ssl_context()
        headers = {"Content-Type": "application/json"}
        return httpx.AsyncClient(
            headers=headers | authorization(self._api_key_env, base_url),
            limits=httpx.Limits(max_connections=1, keepalive_expiry=_KEEP_ALIVE_S),
            # False where there is nothing to verify: no https, and redirects are not followed.
            verify=self._ssl if self._ssl is not None else False,
            # The whole answer has its own limit; connecting gets a separate, shorter one.
            timeout=httpx.Timeout(None, connect=min(_CONNECT_TIMEOUT_S, self._timeout_s)),
        )
