"""A small OpenAI-compatible server, run as a process of its own: `python openai_server.py`.

The first line of its standard output is its port. The request's model name chooses how it
behaves; `GET /stats` says what it was asked.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx


@dataclass(frozen=True)
class LocalServer:
    """A running server, seen from a test."""

    base_url: str

    def stats(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.base_url}/stats").json())

    def asked(self, model: str) -> dict[str, int]:
        """How often each seed was asked of a model."""
        counts = self.stats()["asked"]
        return {k.split("/")[1]: n for k, n in counts.items() if k.split("/")[0] == model}


lock = threading.Lock()
asked: Counter[str] = Counter()
in_flight: Counter[str] = Counter()


def completion(content: str | None, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    return {
        "choices": [
            {
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": len((content or "").split())},
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with lock:
            self.reply(200, {"asked": dict(asked), "in_flight": dict(in_flight)})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model, seed = body["model"], body["seed"]
        with lock:
            asked[f"{model}/{seed}"] += 1
            first = asked[f"{model}/{seed}"] == 1
            in_flight[model] += 1
            peak = f"{model} peak"
            in_flight[peak] = max(in_flight[peak], in_flight[model])
        try:
            self.behave(model, body, first)
        finally:
            with lock:
                in_flight[model] -= 1

    def behave(self, model: str, body: dict[str, Any], first: bool) -> None:
        text = f"{body['messages'][-1]['content']} / seed {body['seed']}"
        if model.startswith("slow-"):
            time.sleep(float(model.removeprefix("slow-").split("#")[0]))
        if model == "echo":
            echoed = {"body": body, "authorization": self.headers.get("Authorization")}
            self.reply(200, completion(json.dumps(echoed)))
        elif model == "garbage":
            self.reply(200, "<html>hello from a proxy</html>")
        elif model == "no-choices":
            self.reply(200, {"choices": []})
        elif model == "silent":
            self.reply(200, "")
        elif model == "empty":
            self.reply(200, completion(None))
        elif model == "cut":
            self.reply(200, completion("half of", finish_reason="length"))
        elif model == "thinking":
            self.reply(200, completion("42", reasoning="six times seven"))
        elif model == "flaky" and first:
            self.reply(500, {"error": {"message": "engine hiccup"}})
        elif model == "busy" and first:
            self.reply(429, {"error": {"message": "rate limit"}}, {"Retry-After": "1"})
        elif model == "down":
            self.reply(503, {"detail": "no workers"})
        elif model == "refuse":
            self.reply(400, {"error": {"message": "max_tokens is too large"}})
        elif model == "locked":
            self.reply(401, {"error": "wrong key"})
        elif model == "unknown":
            self.reply(404, {"object": "error", "message": "no such model"})
        else:
            self.reply(200, completion(text))

    def reply(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
