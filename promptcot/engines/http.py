"""OpenAI-compatible servers: one vLLM, a fleet of them, or a hosted model.

A request that is refused (400, 413, 422), or that fails on every try, becomes an ``error`` answer
with the server's words; :mod:`promptcot.engines.http_client` says what is tried again.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.http_client import HttpClient, RequestFailed
from promptcot.engines.openai_format import read_completion, request_body, request_path
from promptcot.engines.protocol import Answer, Capabilities, Request
from promptcot.engines.servers import teacher_servers


class HttpEngine:
    """A teacher behind ``POST <base_url>/chat/completions``, at one or more servers."""

    def __init__(self, name: str, settings: TeacherSettings, replicas: str = "") -> None:
        self._settings = settings
        self._client = HttpClient(teacher_servers(name, settings, replicas))

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
        body = request_body(self._settings.model, request)
        try:
            return [await self._client.post(request_path(request), body, read_completion)]
        except RequestFailed as exc:
            return [Answer("", "error", 0, 0, str(exc))]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
