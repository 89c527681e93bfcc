"""POST to one of several OpenAI-compatible servers, and try again what can pass.

Tried again, with back-off and jitter, if possible at another server: network errors, timeouts,
429, 5xx, and replies that cannot be read. What is wrong with all requests stops the run with one
message: key, path, model, and servers whose first replies are all refusals or garbage.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from pipeline import console
from pipeline.errors import TeacherError
from pipeline.keys import read_key
from pipeline.redaction import mask_message
from promptcot.engines.discovery import Discovery
from promptcot.engines.first_replies import FirstReplies
from promptcot.engines.http_connections import Connections
from promptcot.engines.http_fleet import Endpoint, Fleet, Lease, back_off
from promptcot.engines.openai_format import NotACompletion, read_error
from promptcot.engines.served_model import NoModelList, OtherModel, ServedModel
from promptcot.engines.servers import Servers

_LONGEST_RETRY_AFTER_S = 300.0
_MAX_LOST_CONNECTIONS = 20
"""A request that takes the server down with it each time must not do so for ever."""

_BUSY = {429, 503, 529}
_PASSING = {408, 425}
_REFUSED = {400, 413, 422}

T = TypeVar("T")


class RequestFailed(Exception):
    """This one request gets no answer; the message says why."""


class RequestRefused(RequestFailed):
    """The server will not answer it, however often it is asked: too long, or not supported."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """One try that gave no answer."""

    reason: str
    is_counted: bool
    """Whether it uses up one of the request's retries."""
    is_lost: bool = False
    """The connection broke after the request had been sent."""


class HttpClient:
    """Connections that are kept between requests; used and closed in one event loop."""

    def __init__(self, servers: Servers) -> None:
        # Refused before anything is asked, where it cannot be a key.
        read_key(servers.api_key_env)
        self._servers = servers
        self._fleet = Fleet(servers)
        self._connections = Connections(
            api_key_env=servers.api_key_env, timeout_s=servers.timeout_s
        )
        self._first = FirstReplies()
        self._discovery = (
            Discovery(servers, self._fleet, self._connections) if servers.replicas else None
        )
        # One server needs no comparison, and names its model in its first refusal.
        is_pool = bool(servers.replicas) or len(self._fleet.endpoints) > 1
        self._model = ServedModel(servers.model) if is_pool and servers.model else None

    async def post(self, path: str, body: Mapping[str, Any], read: Callable[[bytes], T]) -> T:
        """Send a request below the servers' ``/v1`` until ``read`` accepts a reply.

        Args:
            path: Without a leading slash.
            body: The JSON; its keys are sent in their order.
            read: Turns a successful reply's body into a value; raises :class:`NotACompletion`.

        Raises:
            RequestRefused: The server will not answer this request.
            RequestFailed: It failed on every try.
            TeacherUnreachable: No server has answered for longer than the limits.
            TeacherError: The servers cannot be used as configured.
        """
        content = json.dumps(body, ensure_ascii=False).encode()
        num_failures = num_lost = 0
        avoid: Endpoint | None = None
        while True:
            if self._discovery is not None:
                await self._discovery.ready()
            async with self._fleet.lease(avoid) as lease:
                result = await self._try(lease, path, content, read)
            if not isinstance(result, _Failure):
                return result
            avoid = lease.endpoint
            num_failures += result.is_counted
            num_lost += result.is_lost
            if num_failures > self._servers.max_retries or num_lost > _MAX_LOST_CONNECTIONS:
                tries = max(num_failures, num_lost)
                raise RequestFailed(f"no answer in {tries} tries; the last: {result.reason}")
            if result.is_counted:
                await asyncio.sleep(back_off(num_failures))

    async def close(self) -> None:
        """Close the connections."""
        if self._discovery is not None:
            await self._discovery.close()
        await self._connections.close()

    async def _try(
        self, lease: Lease, path: str, content: bytes, read: Callable[[bytes], T]
    ) -> T | _Failure:
        base_url = lease.endpoint.url
        try:
            with self._connections.borrow(base_url) as client:
                async with asyncio.timeout(self._servers.timeout_s):
                    if (problem := await self._check_model(lease, client)) is not None:
                        return problem
                    response = await client.post(f"{base_url}/{path}", content=content)
        except TimeoutError:
            return self._fail(lease, f"nothing within {self._servers.timeout_s:g} s")
        except httpx.DecodingError as exc:
            return self._fail(lease, f"a reply that cannot be decoded ({mask_message(str(exc))})")
        except httpx.TransportError as exc:
            return self._lose(lease, exc)
        if not response.is_success:
            return self._sort_error(lease, response)
        try:
            value = read(response.content)
        except NotACompletion as exc:
            return self._fail_to_read(lease, response, exc)
        self._first.note_answer()
        self._fleet.report_answer(lease)
        return value

    async def _check_model(self, lease: Lease, client: httpx.AsyncClient) -> _Failure | None:
        """Ask a pool's server for its model before its first request; why it gets none, or None.

        Raises:
            TeacherError: A server that the recipe names serves another model, or all listed ones.
        """
        endpoint = lease.endpoint
        if self._model is None:
            return None
        async with endpoint.check:
            if endpoint.is_checked:
                return None
            if lease.started < endpoint.aside_since:
                return _Failure("put aside meanwhile", is_counted=False)
            try:
                await self._model.require(endpoint.url, client)
            except (OtherModel, NoModelList) as exc:
                if isinstance(exc, OtherModel) or self._servers.replicas:
                    return self._refuse(lease, str(exc))
                console.warn(f"{exc}, so its model is not checked")
            endpoint.is_checked = True
        return None

    def _refuse(self, lease: Lease, reason: str) -> _Failure:
        is_all = self._fleet.report_other_model(lease, reason)
        if is_all or not self._servers.replicas:
            raise TeacherError(
                reason,
                hint=f"start {self._servers.section}.model on every server of "
                f"{self._servers.urls_setting}, or take the others out of it",
            )
        return _Failure(reason, is_counted=False)

    def _lose(self, lease: Lease, exc: httpx.TransportError) -> _Failure:
        reason = mask_message(str(exc)) or type(exc).__name__
        is_lost = not isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout)
        is_counted = self._fleet.report_loss(lease, reason, was_connected=is_lost)
        return _Failure(reason, is_counted=is_counted, is_lost=is_lost)

    def _sort_error(self, lease: Lease, response: httpx.Response) -> _Failure:
        """Whether an error reply can pass, concerns this request, or all of them."""
        status = response.status_code
        reason = f"HTTP {status}: {read_error(response.content)}"
        if status in _BUSY:
            self._fleet.report_busy(lease, reason, _retry_after(response))
            return _Failure(reason, is_counted=False)
        if status >= 500 or status in _PASSING:
            return self._fail(lease, reason)
        self._fleet.report_answer(lease)
        message = f"{response.url} refused the request with {reason}"
        if status not in _REFUSED:
            raise TeacherError(message, hint=self._hint(status))
        self._first.note_refusal(message, self._hint(status))
        raise RequestRefused(reason)

    def _fail_to_read(
        self, lease: Lease, response: httpx.Response, exc: NotACompletion
    ) -> _Failure:
        self._first.note_refusal(
            f"{response.url} did not reply with a completion: {exc}",
            f"point {self._servers.urls_setting} at OpenAI-compatible servers (with /v1)",
        )
        return self._fail(lease, str(exc))

    def _fail(self, lease: Lease, reason: str) -> _Failure:
        self._fleet.report_failure(lease, reason)
        # Counted even where this is the only server: it is there, so it may be the request.
        return _Failure(reason, is_counted=True)

    def _hint(self, status: int) -> str:
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return f"put the server's key into the environment variable {self._servers.api_key_env}"
        if status == httpx.codes.NOT_FOUND:
            names = f"{self._servers.urls_setting} (with /v1) and {self._servers.section}.model"
            return f"check {names}"
        return self._servers.refusal_hint


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of a ``Retry-After`` header in either of its forms, bounded."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        seconds = float(value)
    else:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        # A date without a zone is GMT, as the header's definition says.
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S)
