"""A teacher that goes away for good in the middle of a run: told once, and nothing is lost."""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from scripted_synthesis import SCRIPT, make_recipe, tree

from pipeline.cli import exit_code_of
from promptcot.__main__ import app

KEY = "sk-f4ult-test-7d81c03e55"
COMMAND = "python -m promptcot"


class Teacher(ThreadingHTTPServer):
    """Answers by the script until it has answered so many requests, and then no connection."""

    daemon_threads = True
    num_left = 1 << 30


class Handler(BaseHTTPRequestHandler):
    server: Teacher

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == f"Bearer {KEY}"
        self.server.num_left -= 1
        if self.server.num_left <= 0:
            # Refuses connections from here on; this one ends without a word.
            self.server.socket.close()
            return
        question = body["messages"][-1]["content"]
        found = next(rule["text"] for rule in SCRIPT if rule["match"] in question)
        texts = [found] if isinstance(found, str) else found
        message = {"role": "assistant", "content": texts[body["seed"] % len(texts)]}
        usage = {"prompt_tokens": 9, "completion_tokens": 5}
        reply = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@contextmanager
def teaching(port: int = 0, num_answers: int = 1 << 30) -> Iterator[int]:
    """A teacher at a port, for the block or for so many answers."""
    with Teacher(("127.0.0.1", port), Handler) as server:
        server.num_left = num_answers
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def port() -> int:
    with teaching() as port:
        return port


def arguments(folder: Path, out: Path, port: int) -> list[str]:
    settings = {
        "engine": '"http"',
        "model": '"stand"',
        "base_urls": f'["http://127.0.0.1:{port}/v1"]',
        "api_key_env": '"FAULT_TEST_KEY"',
        "outage_s": "0.3",
        "max_concurrency": "2",
    }
    args = ["run", "--recipe", str(folder / "tiny.toml"), "--out", str(out)]
    for name, value in settings.items():
        args += ["--set", f"teachers.default.{name}={value}"]
    return args


def test_the_same_command_ends_in_the_same_bytes_once_the_teacher_is_back(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAULT_TEST_KEY", KEY)
    make_recipe(tmp_path)
    calm, gone = tmp_path / "calm", tmp_path / "gone"
    with teaching(port):
        assert exit_code_of(app, COMMAND, arguments(tmp_path, calm, port)) == 0
    capsys.readouterr()

    args = arguments(tmp_path, gone, port)
    with teaching(port, num_answers=14):
        assert exit_code_of(app, COMMAND, args) == 2
    error, remedy, command = capsys.readouterr().err.splitlines()
    found = re.match(r"error: problems-(\d{5}), ([12]) of 3 shards finished: no answer", error)
    assert found is not None
    assert f"from http://127.0.0.1:{port}/v1 for " in error
    assert remedy.startswith("remedy: start the server or correct teachers.default.base_urls")
    assert shlex.split(command.removeprefix("continue with: ")) == [*COMMAND.split(), *args]
    assert KEY not in error + remedy + command
    finished = list((gone / "synthesis" / "problems").glob(".staging-*/data/*.parquet"))
    assert len(finished) == int(found[2])
    assert not any(path.name.startswith(f"part-{found[1]}") for path in finished)
    kept = {path.name: path.stat().st_ino for path in finished}

    with teaching(port):
        assert exit_code_of(app, COMMAND, args) == 0
    after = (gone / "synthesis" / "problems").glob("*/data/*.parquet")
    assert kept.items() <= {path.name: path.stat().st_ino for path in after}.items()
    assert tree(gone) == tree(calm)
