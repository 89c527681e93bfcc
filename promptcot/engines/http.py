"""Any OpenAI-compatible server: one vLLM, a fleet behind a balancer, or a hosted model.

Bounded concurrency, retries on what can pass (network errors, 429, 5xx), none on what cannot.
A reply that is not a chat completion stops the run with one message; an empty text is an answer
like any other, which the stage judges and counts.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import httpx
import stamina
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import console
from pipeline.errors import TeacherError, TeacherUnreachable
from pipeline.records import FinishReason
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.protocol import Answer, Capabilities, Constraint, Request

_CONNECT_TIMEOUT_S = 10.0
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_LONGEST_RETRY_AFTER_S = 300.0
"""A server that asks for more patience than this is treated like one that is down."""

_FINISH_REASONS: dict[str | None, FinishReason] = {"stop": "stop", "length": "length"}


class _Reply(BaseModel):
    """Parts of a server's reply that we read; everything else is ignored."""

    model_config = ConfigDict(extra="ignore")


class _Message(_Reply):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    """Older servers' name of ``reasoning``."""


class _Choice(_Reply):
    message: _Message
    finish_reason: str | None = None


class _TokenCounts(_Reply):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(_Reply):
    choices: list[_Choice] = Field(min_length=1)
    usage: _TokenCounts | None = None


class _Retryable(Exception):
    """A failure that may pass: 429 or 5xx, with the wait that the server asked for."""

    def __init__(self, reason: str, wait_s: float | None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class HttpEngine:
    """A teacher behind ``POST <base_url>/chat/completions``."""

    def __init__(self, settings: TeacherSettings) -> None:
        self._settings = settings
        self._url = f"{settings.base_url.rstrip('/')}/chat/completions"
        self._has_warned = False
        # By default stamina logs every retry; 64 requests in flight would flood the screen.
        stamina.instrumentation.set_on_retry_hooks([])

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

    async def answer(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Answer], None]:
        """Keep ``max_concurrency`` requests in flight; yield answers as they arrive."""
        async with self._client() as client:
            waiting = iter(enumerate(requests))
            running: set[asyncio.Task[tuple[int, Answer]]] = set()
            try:
                self._fill(running, waiting, client)
                while running:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    self._fill(running, waiting, client)
                    # Answers first, so that a failure beside them does not lose them.
                    for task in sorted(done, key=lambda t: t.exception() is not None):
                        yield task.result()
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    async def close(self) -> None:
        """Connections live as long as one call; nothing is held open."""

    def _client(self) -> httpx.AsyncClient:
        limit = self._settings.max_concurrency
        key = os.environ.get(self._settings.api_key_env)
        return httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=limit, max_keepalive_connections=limit),
            # The whole answer has its own limit; only connecting gets a separate, shorter one.
            timeout=httpx.Timeout(None, connect=min(_CONNECT_TIMEOUT_S, self._settings.timeout_s)),
        )

    def _fill(
        self,
        running: set[asyncio.Task[tuple[int, Answer]]],
        waiting: Iterator[tuple[int, Request]],
        client: httpx.AsyncClient,
    ) -> None:
        while len(running) < self._settings.max_concurrency:
            following = next(waiting, None)
            if following is None:
                return
            running.add(asyncio.create_task(self._answer_one(client, *following)))

    async def _answer_one(
        self, client: httpx.AsyncClient, position: int, request: Request
    ) -> tuple[int, Answer]:
        body = request_body(self._settings.model, request)
        tries = 0
        try:
            async for attempt in stamina.retry_context(
                on=self._wait_before_retry,
                attempts=self._settings.max_retries + 1,
                timeout=None,
                wait_initial=_FIRST_WAIT_S,
                wait_max=_LONGEST_WAIT_S,
            ):
                with attempt:
                    tries = attempt.num
                    response = await self._post(client, body)
        except (httpx.HTTPError, TimeoutError, _Retryable) as exc:
            raise TeacherUnreachable(
                f"no answer from {self._url} after {tries} attempt(s): {self._reason(exc)}; "
                "answers so far are kept",
                hint="start the server or correct teachers.NAME.base_url, then run the same "
                "command again; for a slow server raise teachers.NAME.timeout_s",
            ) from exc
        return position, self._parse(response)

    def _wait_before_retry(self, exc: Exception) -> bool | float:
        """Whether to try again; a number is the wait in seconds that the server asked for."""
        if not isinstance(exc, httpx.TransportError | TimeoutError | _Retryable):
            return False
        wait_s = exc.wait_s if isinstance(exc, _Retryable) else None
        if wait_s is not None and wait_s > _LONGEST_RETRY_AFTER_S:
            return False
        if not self._has_warned and self._settings.max_retries:
            self._has_warned = True
            console.warn(f"{self._url}: {self._reason(exc)}; trying again")
        return True if wait_s is None else wait_s

    async def _post(self, client: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response:
        async with asyncio.timeout(self._settings.timeout_s):
            response = await client.post(self._url, json=body)
        status = response.status_code
        if status == httpx.codes.TOO_MANY_REQUESTS or status >= 500:
            reason = f"HTTP {status}: {_server_message(response)}"
            raise _Retryable(reason, _retry_after(response))
        if response.is_success:
            return response
        raise TeacherError(
            f"{self._url} refused the request with HTTP {status}: {_server_message(response)}",
            hint=self._hint(status),
        )

    def _hint(self, status: int) -> str:
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return (
                f"put the server's key into the environment variable {self._settings.api_key_env}"
            )
        if status == httpx.codes.NOT_FOUND:
            return "check teachers.NAME.base_url (it ends in /v1) and teachers.NAME.model"
        return (
            "correct the teacher's settings; if the server does not know structured outputs, set "
            "teachers.NAME.constraints = []"
        )

    def _reason(self, exc: Exception) -> str:
        if isinstance(exc, TimeoutError):
            return f"nothing within {self._settings.timeout_s:g} s"
        return str(exc) or type(exc).__name__

    def _parse(self, response: httpx.Response) -> Answer:
        try:
            completion = _Completion.model_validate_json(response.content)
        except ValidationError as exc:
            problem = exc.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise TeacherError(
                f"{self._url} did not reply with a chat completion "
                f"({f'{where}: ' if where else ''}{problem['msg']}); it sent {_excerpt(response)}",
                hint="point teachers.NAME.base_url at an OpenAI-compatible server (with /v1)",
            ) from exc
        choice = completion.choices[0]
        counts = completion.usage or _TokenCounts()
        return Answer(
            text=_full_text(choice.message),
            finish_reason=_FINISH_REASONS.get(choice.finish_reason, "error"),
            num_prompt_tokens=counts.prompt_tokens,
            num_completion_tokens=counts.completion_tokens,
        )


def request_body(model: str, request: Request) -> dict[str, Any]:
    """The JSON of one chat completion request."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_tokens,
        "seed": request.seed,
    }
    if request.stop:
        body["stop"] = list(request.stop)
    if request.constraint is not None:
        body.update(_constraint_fields(request.constraint))
    return body


def _constraint_fields(constraint: Constraint) -> dict[str, Any]:
    """How a constraint is asked for: the one place that knows the dialects.

    JSON schemas go the OpenAI way, which vLLM understands too. Regular expressions are an
    extension of vLLM's: ``structured_outputs`` (its older name ``guided_regex`` is gone).
    """
    if constraint.kind == "regex":
        return {"structured_outputs": {"regex": constraint.value}}
    schema = {"name": "answer", "schema": json.loads(constraint.value), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _full_text(message: _Message) -> str:
    """The text as the model wrote it; servers with a reasoning parser split the thinking off."""
    thinking = message.reasoning or message.reasoning_content
    if not thinking:
        return message.content or ""
    if message.content is None:
        return f"<think>\n{thinking}"
    return f"<think>\n{thinking.strip()}\n</think>\n\n{message.content.strip()}"


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of a ``Retry-After`` header; its date form is rare and left to our own backoff."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() else None


def _server_message(response: httpx.Response) -> str:
    """The message inside an error reply, in any of the shapes that servers use."""
    try:
        content = response.json()
    except ValueError:
        return _excerpt(response)
    error = content.get("error", content) if isinstance(content, dict) else content
    message = error.get("message", error.get("detail")) if isinstance(error, dict) else error
    return str(message) if message else _excerpt(response)


def _excerpt(response: httpx.Response) -> str:
    text = " ".join(response.text.split())
    return f"{text[:200]!r}" if text else "an empty body"
