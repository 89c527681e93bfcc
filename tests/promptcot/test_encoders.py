"""Concept vectors: unit length, the same everywhere, from a server in any order, kept on disk."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, TeacherError, TeacherUnreachable
from pipeline.settings.concepts import EncoderSettings
from promptcot.embedding import embed_ngrams
from promptcot.encoders import embed_concepts

CONCEPTS = ["similar triangles", "triangles", "prime numbers", "primes", "ß∑"]


class Embedder(BaseHTTPRequestHandler):
    """Embeds a text as its first two code points; the model's name chooses the behaviour."""

    protocol_version = "HTTP/1.1"
    bodies: list[dict[str, Any]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body | {"key": self.headers.get("Authorization")})
        model, texts = body["model"], body["input"]
        status = 200
        items = [
            {"index": i, "embedding": [ord(text[0]), ord(text[1]), 1.0]}
            for i, text in enumerate(texts)
        ]
        if model == "flaky" and len(self.bodies) == 1:
            status = 503
        elif model == "refuse":
            status = 404
        elif model == "short":
            items = items[:-1]
        elif model == "ragged" and len(self.bodies) > 1:
            items = [item | {"embedding": [1.0]} for item in items]
        content = json.dumps({"data": items[::-1]}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[str]:
    Embedder.bodies = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Embedder) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/v1"
        httpd.shutdown()
        thread.join()


def settings(server: str, model: str = "good") -> EncoderSettings:
    return EncoderSettings(kind="http", model=model, base_url=server, batch_size=2)


def test_ngrams_see_shared_stems_and_do_not_depend_on_their_neighbours_order() -> None:
    vectors = embed_concepts(EncoderSettings(), CONCEPTS).astype(float) / 4000
    cosine = vectors @ vectors.T
    np.testing.assert_allclose(np.diag(cosine), 1, atol=1e-3)
    assert cosine[0, 1] > 0.3 > abs(cosine[0, 2])
    assert cosine[2, 3] > 0.3
    backwards = embed_concepts(EncoderSettings(), CONCEPTS[::-1])[::-1]
    np.testing.assert_array_equal(backwards / 4000, vectors)
    (exact,) = embed_ngrams(CONCEPTS)
    np.testing.assert_allclose(vectors, exact, atol=0.5 / 4000 + 1e-6)


def test_a_server_is_asked_in_batches_once_and_the_vectors_are_kept(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTCOT_API_KEY", "secret")
    vectors = embed_concepts(settings(server), CONCEPTS, cache=tmp_path)
    wanted = np.array([[ord(c[0]), ord(c[1]), 1.0] for c in CONCEPTS])
    wanted *= 4000 / np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, wanted, atol=0.51)
    assert [len(body["input"]) for body in Embedder.bodies] == [2, 2, 1]
    assert {body["key"] for body in Embedder.bodies} == {"Bearer secret"}
    again = embed_concepts(settings(server), CONCEPTS, cache=tmp_path)
    np.testing.assert_array_equal(again, vectors)
    assert len(Embedder.bodies) == 3
    embed_concepts(settings(server), CONCEPTS[:2], cache=tmp_path)
    embed_concepts(settings(server, "other"), CONCEPTS[:2], cache=tmp_path)
    assert len(Embedder.bodies) == 5, "other concepts or another model are asked for"


def test_a_passing_failure_is_retried(server: str) -> None:
    assert embed_concepts(settings(server, "flaky"), CONCEPTS[:2]).shape == (2, 3)
    assert len(Embedder.bodies) == 2


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("refuse", TeacherUnreachable, "404"),
        ("short", TeacherError, "did not reply with 2 embeddings"),
        ("ragged", TeacherError, "1 numbers after ones of 3"),
    ],
)
def test_what_a_server_does_wrong_is_said(
    server: str, tmp_path: Path, model: str, error: type[TeacherError], message: str
) -> None:
    with pytest.raises(error, match=message):
        embed_concepts(settings(server, model), CONCEPTS, cache=tmp_path)
    assert not list(tmp_path.iterdir()), "nothing half-done is kept"


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    wanted = EncoderSettings(kind="sentence_transformers", model="some/model")
    with pytest.raises(ConfigError, match="not installed") as caught:
        embed_concepts(wanted, CONCEPTS)
    assert "[encoders]" in caught.value.hint
