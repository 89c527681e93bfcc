"""A server that sends the key back, wherever it can, puts it into no message and no answer."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import redaction
from pipeline.errors import ConfigError, TeacherError, TeacherUnreachable
from pipeline.records import Message
from pipeline.redaction import MASK, MaskedErrors
from pipeline.settings import load_recipe
from pipeline.settings.concepts import EncoderSettings
from pipeline.settings.teacher import TeacherSettings
from promptcot.encoders import embed_concepts
from promptcot.engines.batch_file import read_result
from promptcot.engines.openai_format import excerpt
from promptcot.engines.protocol import Request
from promptcot.engines.replicas import NotAList, parse_replicas
from promptcot.engines.teacher import open_teacher

KEY = "sk-echoed/0123456789abcdef"
REPLY = {
    "choices": [
        {"message": {"content": f"You sent Bearer {KEY}."}, "finish_reason": f"stop {KEY}"}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}
GOOD = json.loads(json.dumps(REPLY).replace(f"stop {KEY}", "stop"))
"""What the model's name asks for: status line and body."""
REPLIES: dict[str, tuple[str, str]] = {
    "answer": ("200 OK", json.dumps(GOOD).replace("/", "\\/")),
    "odd-end": ("200 OK", json.dumps(REPLY)),
    "refusal": ("400 Bad Request", json.dumps({"error": {"message": f"bad header {KEY}"}})),
    "page": ("400 Bad Request", "x" * 190 + KEY),
    "locked": ("401 Unauthorized", json.dumps({"detail": {"headers": {"authorization": KEY}}})),
    "broken": (f"500 no key like {KEY}", f"<h1>{KEY}</h1>"),
    "no-completion": ("200 OK", json.dumps({"headers": [KEY]})),
    "moved": (f"302 Found\r\nLocation: http://127.0.0.1:9/?key={KEY}", ""),
    "no-http": (f"\x00{KEY}", ""),
}


class Echo(socketserver.StreamRequestHandler):
    """Reads one request and writes what the model's name asks for, byte for byte."""

    def handle(self) -> None:
        headers = {}
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        assert headers["authorization"] == f"Bearer {KEY}"
        body = json.loads(self.rfile.read(int(headers["content-length"])))
        status, content = REPLIES[body["model"]]
        start = status if status.startswith("\x00") else f"HTTP/1.1 {status}"
        extra = f"X-Echo: Bearer {KEY}\r\nContent-Length: {len(content)}\r\nConnection: close"
        self.wfile.write(f"{start}\r\n{extra}\r\n\r\n{content}".encode())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("PROMPTCOT_API_KEY", KEY)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as tcp:
        thread = threading.Thread(target=tcp.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{tcp.server_address[1]}/v1"
        tcp.shutdown()
        thread.join()
    redaction._values.discard(KEY)


def ask(server: str, out: Path, model: str, num: int = 1) -> list[Any]:
    values: dict[str, Any] = {"engine": "http", "base_urls": (server,), "model": model}
    settings = TeacherSettings(**values, max_retries=0, first_contact_s=0, max_concurrency=1)
    requests = [
        Request(
            messages=(Message(role="user", content=f"question {seed}"),),
            temperature=0.6,
            top_p=0.9,
            max_tokens=5,
            seed=seed,
        )
        for seed in range(num)
    ]
    with open_teacher(settings, recipe=load_recipe("demo"), out=out) as teacher:
        return teacher.answer_all(requests, "test")


def words_of(error: BaseException) -> str:
    """An error with all that led to it, as a log would have it."""
    parts: list[str] = []
    found: BaseException | None = error
    while found is not None:
        parts += [*map(str, found.args), getattr(found, "hint", "")]
        found = found.__cause__ or found.__context__
    return " ".join(parts)


def test_an_answer_is_kept_without_the_key_and_with_all_else(server: str, tmp_path: Path) -> None:
    (answer,) = ask(server, tmp_path, "answer")
    assert answer.text == f"You sent Bearer {MASK}."
    (again,) = ask(server, tmp_path, "answer")
    assert again.text == answer.text
    stored = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert MASK.encode() in stored and b"echoed" not in stored


@pytest.mark.parametrize("model", ["refusal", "page", "broken", "no-completion", "odd-end"])
def test_a_failed_request_is_told_without_the_key(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    (answer,) = ask(server, tmp_path, model)
    assert answer.finish_reason == "error"
    captured = capsys.readouterr()
    told = answer.detail + captured.out + captured.err
    assert "[secr" in told, "what it was asked for has arrived"
    # Four characters of it are in "page", behind which the excerpt ends.
    assert "echoed" not in told


@pytest.mark.parametrize("model", ["locked", "no-http", "moved"])
def test_a_run_that_stops_says_why_without_the_key(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    with pytest.raises(TeacherError) as caught, MaskedErrors():
        ask(server, tmp_path, model)
    captured = capsys.readouterr()
    told = words_of(caught.value) + captured.out + captured.err
    assert "echoed" not in told
    if model != "moved":
        assert MASK in told


@pytest.mark.parametrize("model", ["locked", "moved", "no-completion"])
def test_the_encoders_errors_hold_no_key(server: str, model: str) -> None:
    settings = EncoderSettings(kind="http", model=model, base_url=server)
    with pytest.raises((TeacherError, TeacherUnreachable)) as caught:
        embed_concepts(settings, ["a", "b"])
    assert "echoed" not in str(caught.value)


def test_results_of_an_offline_fleet_hold_no_key(server: str) -> None:
    redaction.declare(["PROMPTCOT_API_KEY"])
    line = {"response": {"status_code": 429, "body": {"error": {"message": f"no {KEY}"}}}}
    assert read_result(line) == f"HTTP 429: no {MASK}"
    line = {"response": {"status_code": 200, "body": {"headers": KEY}}}
    assert "echoed" not in str(read_result(line))


def test_an_excerpt_is_masked_before_it_is_cut(server: str) -> None:
    redaction.declare(["PROMPTCOT_API_KEY"])
    for before in range(150, 210):
        assert "sk-echo" not in excerpt(b"x" * before + KEY.encode() * 40)
    # Masks are shorter than keys: what moves up into the excerpt is masked as well.
    assert "echoed" not in excerpt(KEY.encode() * 100)


def test_a_list_of_servers_with_a_key_in_it_is_refused_by_number() -> None:
    for url in (f"https://me:{KEY}@h/v1", f"https://h/v1?api_key={KEY}"):
        with pytest.raises(NotAList, match="entry 2") as caught:
            parse_replicas(f"http://127.0.0.1:8000/v1\n{url}\n", "servers.txt")
        assert "echoed" not in str(caught.value)


def test_an_encoder_of_the_hub_wants_its_commit_and_runs_none_of_its_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[Any, dict[str, Any]]] = []

    class Module:
        """Stands in for the package, which is not installed everywhere."""

        @staticmethod
        def SentenceTransformer(name: str, **options: Any) -> Any:
            asked.append((name, options))
            raise OSError("offline")

    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", Module)
    for model, loads in (("some/model", False), ("some/model@abc", True), (str(tmp_path), True)):
        asked.clear()
        with pytest.raises(ConfigError, match="cannot load" if loads else "hub id with a commit"):
            embed_concepts(EncoderSettings(kind="sentence_transformers", model=model), ["a"])
        assert len(asked) == loads
        for name, options in asked:
            assert options["trust_remote_code"] is False
            assert (name, options["revision"]) in {("some/model", "abc"), (str(tmp_path), None)}
