"""A teacher behind HTTP that sends the key it was sent back wherever it can."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@contextmanager
def echoing_teacher(script: Path) -> Iterator[str]:
    """Answers by the rules of a scripted teacher's file, with what it was sent in each reply.

    The first request of each stage gets a 500 with all headers in its body; every ninth question
    that has a rule is refused with them (400). Model ``locked`` gets 401.
    """
    rules = [json.loads(line) for line in script.read_text(encoding="utf-8").splitlines()]
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = body["messages"][-1]["content"]
            rule = next((rule for rule in rules if rule["match"] in question), None)
            sent = self.headers.get("Authorization", "no key")
            if body["model"] == "locked":
                self.reply(401, {"error": {"message": f"unknown key: {sent}"}})
                return
            with lock:
                kind = rule["match"][:20] if rule else "none"
                seen[kind] += 1
                is_first = seen[kind] == 1
                number = seen.total()
            if is_first:
                self.reply(500, {"error": {"message": f"headers: {dict(self.headers)}"}})
            elif rule and number % 9 == 0:
                self.reply(400, {"detail": [{"msg": "no", "headers": {"Authorization": sent}}]})
            else:
                self.reply(200, self.complete(rule, body["seed"], sent))

        def complete(self, rule: Any, seed: int, sent: str) -> dict[str, Any]:
            found = rule["text"] if rule else "<think>\nNo idea.\n</think>\nUnknown."
            texts = [found] if isinstance(found, str) else found
            text = texts[seed % len(texts)]
            # Where the stages keep what a model writes: within reasoning, and after the statement.
            text = text.replace("<think>\n", f"<think>\nI was sent {sent}.\n")
            text = text.replace("keeps everything", f"keeps, says {sent}, everything")
            message = {"role": "assistant", "content": text}
            return {
                "id": sent,
                "choices": [{"message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 9, "completion_tokens": len(text.split())},
            }

        def reply(self, status: int, content: dict[str, Any]) -> None:
            # As PHP writes JSON.
            data = json.dumps(content).replace("/", "\\/").encode()
            self.send_response(status, f"said {self.headers.get('Authorization')}")
            self.send_header("X-Echo", self.headers.get("Authorization", ""))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()
