"""Whether the servers of one teacher serve one model: asked of each before its first request.

``GET <base_url>/models`` must list the teacher's model, and where servers say which weights stand
behind the name (vLLM's ``root``), the last part of that path must be the same everywhere: two
servers may keep the weights in other folders, but ``QwQ-32B`` is not ``QwQ-32B-AWQ``.
"""

from __future__ import annotations

import json
from typing import Any

import httpx

from pipeline.redaction import mask_bytes

_EXCERPT_CHARS = 200


class OtherModel(Exception):
    """A server serves something else than the teacher's model; the message says what."""


class NoModelList(Exception):
    """A server does not list its models."""


class ServedModel:
    """The model that all servers must serve; the first one whose weights are known decides them.

    Args:
        model: Its name in requests.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._weights: tuple[str, str] | None = None
        """Name of the weights, and the server that told it."""

    async def require(self, base_url: str, client: httpx.AsyncClient) -> None:
        """Ask a server what it serves.

        Raises:
            OtherModel: Not this model, or other weights than a server before.
            NoModelList: It replies with no list of models.
            httpx.TransportError: It is not there.
        """
        reply = await client.get(f"{base_url}/models")
        models = _read_models(reply)
        mine = next((model for model in models if model.get("id") == self._model), None)
        if mine is None:
            names = ", ".join(str(model.get("id")) for model in models) or "nothing"
            raise OtherModel(
                f"{base_url} serves {names[:_EXCERPT_CHARS]}, not {self._model}, which all servers "
                "of this teacher must serve"
            )
        root = str(mine.get("root") or "").rstrip("/")
        weights = root.rpartition("/")[2].lower()
        if not weights:
            return
        if self._weights is None:
            self._weights = (weights, f"{base_url} ({root})")
        elif self._weights[0] != weights:
            raise OtherModel(
                f"{base_url} serves other weights under the name {self._model} ({root}) than "
                f"{self._weights[1]}"
            )


def _read_models(reply: httpx.Response) -> list[dict[str, Any]]:
    try:
        return [dict(entry) for entry in json.loads(mask_bytes(reply.content))["data"]]
    except (ValueError, KeyError, TypeError) as exc:
        raise NoModelList(f"{reply.url} lists no models (HTTP {reply.status_code})") from exc
