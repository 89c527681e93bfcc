"""Where benchmark files are looked for, and what is fetched: pinned, verified, once."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.benchmark_sources import Located, file_content_sha256, locate
from pipeline.benchmarks import load_benchmark, load_questions
from pipeline.errors import ConfigError, GateRefused, SourceError
from pipeline.settings.benchmarks import BenchmarkSettings
from pipeline.settings.recipe import Recipe, RecipeSettings

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = b'{"id": "a", "question": "1+1?", "answer": "2"}\n'
SHA256 = hashlib.sha256(ROWS).hexdigest()


class Server(ThreadingHTTPServer):
    """Files by address, on loopback; with the headers of the hub."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        data = self.server.files.get(self.path)
        self.send_response(200 if data is not None else 404)
        body = data or b""
        headers = {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT}
        headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()}"'
        if data is None:
            headers["X-Error-Code"] = "EntryNotFound"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.server.asked.append(self.path)
            self.wfile.write(body)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    running = Server()
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMPTCOT_BENCHMARKS", raising=False)


def describe(**values: Any) -> BenchmarkSettings:
    return BenchmarkSettings.model_validate({"name": "b", "domain": "math", **values})


def make_recipe(folder: Path, **values: Any) -> Recipe:
    return Recipe(path=folder / "r.toml", settings=RecipeSettings(name="r", **values))


def find(folder: Path, *, questions_only: bool = False, **values: Any) -> Located:
    return locate(make_recipe(folder), describe(**values), questions_only=questions_only)


def test_a_url_is_fetched_once_and_verified(tmp_path: Path, server: Server) -> None:
    server.files["/set/b.jsonl"] = ROWS
    place = {"url": f"{server.address}/set/b.jsonl", "sha256": SHA256}
    for _ in range(2):
        (item,) = load_benchmark(make_recipe(tmp_path), describe(**place))
        assert item.question == "1+1?"
    assert server.asked == ["/set/b.jsonl"]
    other = {**place, "sha256": "0" * 64}
    with pytest.raises(GateRefused, match=f"has sha256 {SHA256}, the recipe expects 0000"):
        find(tmp_path, **other)
    assert not list((tmp_path / "cache").rglob("*000*/*")), "a refused file must not stay"


def test_a_packed_file_is_known_by_what_is_in_it(tmp_path: Path, server: Server) -> None:
    for level in (1, 9):
        server.files["/b.jsonl.gz"] = gzip.compress(ROWS * 1, level, mtime=0)
        found = find(tmp_path, url=f"{server.address}/b.jsonl.gz", sha256=SHA256)
        assert file_content_sha256(found.files[0]) == SHA256
    path = tmp_path / "mine.jsonl.gz"
    path.write_bytes(gzip.compress(ROWS, mtime=0))
    assert load_benchmark(make_recipe(tmp_path), describe(path=str(path), sha256=SHA256))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SourceError, match="cannot be read"):
        load_benchmark(make_recipe(tmp_path), describe(path=str(path), sha256=SHA256))


def test_the_hub_gives_the_files_of_a_commit(tmp_path: Path, server: Server) -> None:
    base = f"/datasets/some/set/resolve/{COMMIT}"
    for number, name in enumerate(["test.jsonl", "test2.jsonl"]):
        row = {"id": str(number), "question": "q", "answer": "2"}
        server.files[f"{base}/{name}"] = json.dumps(row).encode() + b"\n"
    settings = describe(
        hub_id="some/set",
        revision=COMMIT,
        hub_endpoint=server.address,
        hub_files=["test.jsonl", "test2.jsonl"],
    )
    for _ in range(2):
        found = locate(make_recipe(tmp_path), settings)
        assert (found.origin, found.place) == ("hub", f"some/set@{COMMIT}")
        assert [item.id for item in load_benchmark(make_recipe(tmp_path), settings)] == ["0", "1"]
    assert sorted(server.asked) == sorted(server.files)
    with pytest.raises(SourceError, match=r"cannot fetch no\.jsonl of hub dataset some/set@"):
        locate(make_recipe(tmp_path), settings.model_copy(update={"hub_files": ("no.jsonl",)}))


@pytest.mark.parametrize("revision", ["unpinned", "main", "0123abc"])
def test_a_revision_that_is_no_commit_names_what_to_pin(tmp_path: Path, revision: str) -> None:
    place = {"hub_id": "some/set", "revision": revision, "hub_files": ["test.jsonl"]}
    with pytest.raises(ConfigError, match="hub dataset some/set") as caught:
        find(tmp_path, **place)
    assert "`revision`" in caught.value.hint
    with pytest.raises(ConfigError, match="no files of hub dataset some/set are named"):
        find(tmp_path, hub_id="some/set", revision=COMMIT)


def test_without_network_the_remedy_is_a_local_copy(tmp_path: Path, server: Server) -> None:
    address = server.address
    server.shutdown()
    server.server_close()
    with pytest.raises(SourceError, match=r"cannot fetch .*/b\.jsonl") as caught:
        find(tmp_path, url=f"{address}/b.jsonl", sha256=SHA256, local_files=["mine.jsonl"])
    assert "mine.jsonl, in a folder named by benchmark_folder" in caught.value.hint
    with pytest.raises(SourceError, match="the recipe names no file"):
        find(tmp_path)


def test_a_folder_of_local_copies_comes_before_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {"url": "https://127.0.0.1:1/b.jsonl", "sha256": SHA256, "local_files": ["named.jsonl"]}
    copies = tmp_path / "copies"
    copies.mkdir()
    (copies / "named.jsonl").write_bytes(ROWS)
    by_setting = make_recipe(tmp_path, benchmark_folder="copies")
    found = locate(by_setting, describe(**place))
    assert (found.origin, found.files) == ("folder", (copies / "named.jsonl",))
    monkeypatch.setenv("PROMPTCOT_BENCHMARKS", str(copies))
    assert find(tmp_path, **place) == found
    (copies / "named.jsonl").rename(copies / "b.jsonl.gz")
    assert find(tmp_path, **place).files == (copies / "b.jsonl.gz",)
    (tmp_path / "own.jsonl").write_bytes(ROWS)
    assert find(tmp_path, path="own.jsonl", **place).origin == "path"
    (copies / "b.jsonl.gz").unlink()
    with pytest.raises(SourceError, match="cannot fetch"):
        find(tmp_path, **place)
    monkeypatch.setenv("PROMPTCOT_BENCHMARKS", str(tmp_path / "none"))
    with pytest.raises(SourceError, match="PROMPTCOT_BENCHMARKS: folder not found"):
        find(tmp_path, **place)
    with pytest.raises(SourceError, match="benchmark_folder: folder not found"):
        locate(make_recipe(tmp_path, benchmark_folder="none"), describe(**place))


def test_a_folder_may_hold_the_hubs_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    files = ["test.jsonl", "test2.jsonl"]
    recipe = make_recipe(tmp_path, benchmark_folder=".")
    settings = describe(hub_id="some/set", hub_files=files)
    (tmp_path / "b" / "test.jsonl").write_bytes(ROWS)
    with pytest.raises(ConfigError, match="hub dataset some/set"):
        locate(recipe, settings)  # one of two is not the benchmark
    (tmp_path / "b" / "test2.jsonl").write_bytes(ROWS.replace(b'"a"', b'"b"'))
    assert locate(recipe, settings).files == tuple(tmp_path / "b" / name for name in files)


def test_statements_alone_do_for_decontamination_and_score_nothing(
    tmp_path: Path, server: Server
) -> None:
    statements = b'{"id": "a", "text": "1+1?"}\n'
    server.files["/s.jsonl"] = statements
    (tmp_path / "local.jsonl").write_bytes(statements)
    reading = {"question_field": "text", "grader": "none", "local_files": ["local.jsonl"]}
    place = {
        "hub_id": "some/set",
        "revision": COMMIT,
        "hub_endpoint": server.address,
        "hub_files": ["b.jsonl"],
        "content_sha256": "0" * 64,
        "statements": {
            **reading,
            "url": f"{server.address}/s.jsonl",
            "sha256": hashlib.sha256(statements).hexdigest(),
        },
    }
    (item,) = load_questions(make_recipe(tmp_path), describe(**place))
    assert (item.question, item.gold) == ("1+1?", None)
    assert server.asked == ["/s.jsonl"]
    assert find(tmp_path, questions_only=True, **place).is_statements
    local = make_recipe(tmp_path, benchmark_folder=".")
    assert locate(local, describe(**place), questions_only=True).origin == "folder"
    with pytest.raises(SourceError, match=r"cannot fetch b\.jsonl"):
        load_benchmark(local, describe(**place))
    with pytest.raises(SourceError, match="holds the questions alone"):
        load_benchmark(local, describe(**place, path="local.jsonl"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"url": "ftp://host/b.jsonl", "sha256": SHA256}, "url should begin with https://"),
        ({"url": "https://host/b.jsonl"}, "a url wants the sha256"),
        ({"release": "v5"}, "release should be like release_v5"),
    ],
)
def test_a_place_that_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe(**values)


def test_another_place_than_the_bundled_one_brings_its_own_files() -> None:
    own_hub = describe(use="livecodebench_v5", name="mine", hub_id="me/lcb", revision=COMMIT)
    assert (own_hub.files, own_hub.files_sha256) == ((), {})
    own_url = describe(use="livecodebench_v5", url="https://host/l.jsonl", sha256=SHA256)
    assert own_url.hub_id == ""
    by_path = describe(use="math500", path="mine.parquet")
    assert (by_path.url, by_path.sha256) == ("", None)
    assert by_path.content_sha256
    pinned = BenchmarkSettings.model_validate({"use": "livecodebench_v5", "revision": COMMIT})
    assert (pinned.hub_id, pinned.revision) == ("livecodebench/code_generation_lite", COMMIT)
