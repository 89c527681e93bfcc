"""A small OpenAI-compatible server: `python openai_server.py [PORT [MODEL=ROOT]]`.

The first line of its standard output is its port. The request's model name, up to a `#`, chooses
how it behaves; `GET /stats` says what it was asked. `GET /models` lists MODEL, if it was named.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
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


@contextmanager
def serving(port: int = 0, model: str = "") -> Iterator[LocalServer]:
    """A server of its own for one test, which lists ``NAME=ROOT``; killed at the end."""
    command = [sys.executable, __file__, str(port), *([model] if model else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield LocalServer(f"http://127.0.0.1:{int(process.stdout.readline())}/v1")
        finally:
            process.kill()


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


def scored(prompt: str) -> dict[str, Any]:
    """Log-probabilities of a prompt whose tokens are its words; each one's is minus its length."""
    words = prompt.replace(" ", "\0 ").split("\0")
    tokens = [{str(i): {"logprob": -len(w), "decoded_token": w}} for i, w in enumerate(words)]
    return {"choices": [{"text": "", "prompt_logprobs": [None, *tokens[1:]]}]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.endswith("/models") and len(sys.argv) > 2:
            name, _, root = sys.argv[2].partition("=")
            self.reply(200, {"object": "list", "data": [{"id": name, "root": root or None}]})
            return
        with lock:
            self.reply(200, {"asked": dict(asked), "in_flight": dict(in_flight)})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model, seed = body["model"], body.get("seed", 0)
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
        model = model.split("#")[0]
        if model == "words":
            if len(body["prompt"]) > 500:
                self.reply(400, {"error": {"message": "longer than the context"}})
            else:
                self.reply(200, scored(body["prompt"]))
            return
        if "prompt" in body:
            self.reply(200, {"choices": [{"text": json.dumps(body), "finish_reason": "stop"}]})
            return
        seed = body["seed"]
        text = f"{body['messages'][-1]['content']} / seed {seed}"
        if model.startswith("slow-"):
            time.sleep(float(model.removeprefix("slow-")))
        if model.startswith("narrow-"):
            with lock:
                is_full = in_flight[body["model"]] > int(model.removeprefix("narrow-"))
            if is_full:
                self.reply(429, {"error": {"message": "too many at once"}})
                return
            time.sleep(0.02)
        if model == "echo":
            echoed = {"body": body, "authorization": self.headers.get("Authorization")}
            self.reply(200, completion(json.dumps(echoed)))
        elif model == "hang-once" and first:
            time.sleep(60)
        elif model == "garbage" or (model == "garbage-once" and first):
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
        elif model == "busy-date" and first:
            # Whole seconds, rounded down: two of them are between one and two.
            later = formatdate(time.time() + 2, usegmt=True)
            self.reply(429, {"error": {"message": "rate limit"}}, {"Retry-After": later})
        elif model == "cut-off" and first:
            self.reply(200, completion("half of", finish_reason="abort"))
        elif model == "picky" and seed % 2:
            self.reply(400, {"error": {"message": f"prompt {seed} is too long"}})
        elif model == "broken":
            self.reply(500, {"error": {"message": "out of memory"}})
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


class Server(ThreadingHTTPServer):
    request_queue_size = 1024


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
