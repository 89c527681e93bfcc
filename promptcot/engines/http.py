"""OpenAI-compatible servers: one vLLM, a fleet of them, or a hosted model.

What can pass is tried again, with back-off and jitter, if possible at another server: network
errors, timeouts, 429, 5xx, and replies that are no completion. A request that the server refuses
(400, 413, 422), or that fails on every try, becomes an ``error`` answer with the server's words.
What is wrong with all requests stops the run with one message: key, path, model, and a server
whose first replies are all refusals or garbage.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from pipeline.errors import TeacherError
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.http_fleet import Endpoint, Fleet, Lease, back_off
from promptcot.engines.openai_format import (
    NotACompletion,
    read_completion,
    read_error,
    request_body,
    request_path,
)
from promptcot.engines.protocol import Answer, Capabilities, Request

_CONNECT_TIMEOUT_S = 10.0
_KEEP_ALIVE_S = 4.0
"""Below the five seconds after which uvicorn, hence vLLM, closes an idle connection itself."""
_LONGEST_RETRY_AFTER_S = 300.0
_MAX_LOST_CONNECTIONS = 20
"""A request that takes the server down with it each time must not do so for ever."""
_MAX_FIRST_REFUSALS = 8
"""Refusals and garbage without any answer yet that are taken for a fault of the whole set-up."""

_BUSY = {429, 503, 529}
_PASSING = {408, 425}
_REFUSED = {400, 413, 422}


@dataclass(frozen=True, slots=True)
class _Failure:
    """One try that gave no answer."""

    reason: str
    is_counted: bool
    """Whether it uses up one of the request's retries."""
    is_lost: bool = False
    """The connection broke after the request had been sent."""


class HttpEngine:
    """A teacher behind ``POST <base_url>/chat/completions``, at one or more servers."""

    def __init__(self, settings: TeacherSettings) -> None:
        self._settings = settings
        self._fleet = Fleet(settings.base_urls, outage_s=settings.outage_s)
        self._client: httpx.AsyncClient | None = None
        self._has_answered = False
        self._num_refusals = 0

    @property
    def capabilities(self) -> Capabilities:
        """Independent requests; constraints as the recipe declares them for this server."""
        return Capabilities(
            name="http",
            model=self._settings.model,
            constraints=frozenset(self._settings.constraints),
            group_size=None,
            max_concurrency=self._settings.max_concurrency,
        )

    async def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """Answer one request, whatever it takes within the limits."""
        (request,) = requests
        return [await self._answer(request)]

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _answer(self, request: Request) -> Answer:
        path = request_path(request)
        body = request_body(self._settings.model, request)
        content = json.dumps(body, ensure_ascii=False).encode()
        num_failures = num_lost = 0
        avoid: Endpoint | None = None
        while True:
            async with self._fleet.lease(avoid) as lease:
                result = await self._try(lease, path, content)
            if isinstance(result, Answer):
                return result
            avoid = lease.endpoint
            num_failures += result.is_counted
            num_lost += result.is_lost
            if num_failures > self._settings.max_retries or num_lost > _MAX_LOST_CONNECTIONS:
                tries = max(num_failures, num_lost)
                return _error(f"no answer in {tries} tries; the last: {result.reason}")
            if result.is_counted:
                await asyncio.sleep(back_off(num_failures))

    async def _try(self, lease: Lease, path: str, content: bytes) -> Answer | _Failure:
        url = f"{lease.endpoint.url}/{path}"
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                response = await self._opened_client().post(url, content=content)
        except TimeoutError:
            return self._fail(lease, f"nothing within {self._settings.timeout_s:g} s")
        except httpx.TransportError as exc:
            return self._lose(lease, exc)
        except httpx.DecodingError as exc:
            return self._fail(lease, f"a reply that cannot be decoded ({exc})")
        status = response.status_code
        if response.is_success:
            return self._read(lease, url, response)
        reason = f"HTTP {status}: {read_error(response.content)}"
        if status in _BUSY:
            self._fleet.report_busy(lease, reason, _retry_after(response))
            return _Failure(reason, is_counted=False)
        if status >= 500 or status in _PASSING:
            return self._fail(lease, reason)
        self._fleet.report_answer(lease)
        message = f"{url} refused the request with {reason}"
        if status not in _REFUSED:
            raise TeacherError(message, hint=self._hint(status))
        self._count_refusal(message, self._hint(status))
        return _error(reason)

    def _read(self, lease: Lease, url: str, response: httpx.Response) -> Answer | _Failure:
        try:
            answer = read_completion(response.content)
        except NotACompletion as exc:
            self._count_refusal(
                f"{url} did not reply with a completion: {exc}",
                "point teachers.NAME.base_urls at OpenAI-compatible servers (with /v1)",
            )
            return self._fail(lease, str(exc))
        self._has_answered = True
        self._fleet.report_answer(lease)
        return answer

    def _fail(self, lease: Lease, reason: str) -> _Failure:
        self._fleet.report_failure(lease, reason)
        # Counted even where this is the only server: it is there, so it may be the request.
        return _Failure(reason, is_counted=True)

    def _lose(self, lease: Lease, exc: httpx.TransportError) -> _Failure:
        reason = str(exc) or type(exc).__name__
        self._fleet.report_failure(lease, reason, is_unreachable=True)
        return _Failure(
            reason,
            # A server that dies and is started again must cost no row.
            is_counted=self._fleet.is_any_usable(),
            is_lost=not isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout),
        )

    def _count_refusal(self, message: str, hint: str) -> None:
        """Stop when it is not this request but all of them."""
        self._num_refusals += 1
        if not self._has_answered and self._num_refusals >= _MAX_FIRST_REFUSALS:
            raise TeacherError(
                f"{message} (so were the first {self._num_refusals}; none was answered)",
                hint=hint,
            )

    def _opened_client(self) -> httpx.AsyncClient:
        if self._client is None:
            limit = self._settings.max_concurrency
            key = os.environ.get(self._settings.api_key_env)
            headers = {"Content-Type": "application/json"}
            self._client = httpx.AsyncClient(
                headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}),
                limits=httpx.Limits(
                    max_connections=limit,
                    max_keepalive_connections=limit,
                    keepalive_expiry=_KEEP_ALIVE_S,
                ),
                # The whole answer has its own limit; connecting gets a separate, shorter one.
                timeout=httpx.Timeout(
                    None, connect=min(_CONNECT_TIMEOUT_S, self._settings.timeout_s)
                ),
            )
        return self._client

    def _hint(self, status: int) -> str:
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return (
                f"put the server's key into the environment variable {self._settings.api_key_env}"
            )
        if status == httpx.codes.NOT_FOUND:
            return "check teachers.NAME.base_urls (each ends in /v1) and teachers.NAME.model"
        return (
            "correct the teacher's settings; if the server does not know structured outputs, set "
            "teachers.NAME.constraints = []"
        )


def _error(detail: str) -> Answer:
    return Answer("", "error", 0, 0, detail)


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
