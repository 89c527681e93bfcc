"""Hub datasets: pinned files come one by one, resume, are verified, and leave the disk again."""

from __future__ import annotations

import hashlib
import json
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from curriculum_rows import OT2, questions, write

from curriculum.sources.catalog import OpenedSource, open_source
from pipeline.errors import SourceError
from pipeline.settings import load_recipe

REVISION = "0123456789abcdef0123456789abcdef01234567"
ROWS = 25


class Hub(ThreadingHTTPServer):
    """The few addresses of the hub that downloading a dataset asks for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.stated: dict[str, str] = {}
        self.cut_after: int | None = None
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(f"/api/datasets/some/set/tree/{REVISION}"):
            self._send(200, json.dumps(self._listing()).encode(), {}, with_body=with_body)
            return
        name = path.removeprefix(f"/datasets/some/set/resolve/{REVISION}/")
        data = self.server.files.get(name)
        if data is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body=with_body)
            return
        if with_body:
            self.server.asked.append(f"{name} {self.headers.get('Range', '')}".strip())
        begin = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        tag = self.server.stated[name]
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        body = data[begin:]
        if with_body and self.server.cut_after is not None:
            headers["Content-Length"] = str(len(body))
            body, self.server.cut_after = body[: self.server.cut_after], None
            self.close_connection = True
        self._send(206 if begin else 200, body, headers, with_body=with_body)

    def _listing(self) -> list[dict[str, object]]:
        return [
            {
                "type": "file",
                "path": name,
                "size": len(data),
                "oid": "0" * 40,
                "lfs": {"oid": self.server.stated[name], "size": len(data), "pointerSize": 130},
            }
            for name, data in self.server.files.items()
        ]

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    server = Hub()
    for number in range(2):
        rows = questions(ROWS * 2)[number * ROWS : (number + 1) * ROWS]
        path = write(tmp_path / "made" / f"{number}.parquet", rows, OT2)
        name = f"data/train-0000{number}-of-00002.parquet"
        server.files[name] = path.read_bytes()
        server.stated[name] = hashlib.sha256(server.files[name]).hexdigest()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def open_hub(folder: Path, hub: Hub, *lines: str) -> OpenedSource:
    text = [
        'name = "h"',
        "[[curriculum.sources]]",
        'name = "h"',
        'kind = "open_thoughts2"',
        'hub_id = "some/set"',
        f'revision = "{REVISION}"',
        f'hub_endpoint = "{hub.address}"',
        *lines,
    ]
    (folder / "h.toml").write_text("\n".join(text) + "\n", encoding="utf-8")
    recipe = load_recipe(str(folder / "h.toml"))
    return open_source(recipe, recipe.settings.curriculum.sources[0], folder, plan=False)


def test_files_are_read_like_local_ones_and_deleted_when_stored(tmp_path: Path, hub: Hub) -> None:
    source = open_hub(tmp_path, hub)
    spool = tmp_path / "spool"
    parts = list(source.parts(10, spool))
    assert [part.num_rows for part in parts] == [10, 10, 5] * 2
    assert [part.index for part in parts] == list(range(6))
    worker = pickle.loads(pickle.dumps(source))
    rows = [raw for part in parts for raw in worker.read(part)]
    assert [raw.values["question"] for raw in rows] == [r["question"] for r in questions(50)]
    assert rows[30].file == "data/train-00001-of-00002.parquet"
    assert (rows[30].position, rows[30].revision) == (5, REVISION)
    for part in parts[:4]:
        source.release(part)
    assert [p.name for p in (spool / "files").rglob("*.parquet")] == [
        "train-00001-of-00002.parquet"
    ]


def test_a_restart_downloads_only_what_unfinished_parts_need(tmp_path: Path, hub: Hub) -> None:
    spool = tmp_path / "spool"
    first = open_hub(tmp_path, hub)
    for part in first.parts(10, spool):
        first.release(part)
    hub.asked.clear()
    again = open_hub(tmp_path, hub)
    parts = list(again.parts(10, spool))
    assert hub.asked == []
    assert len(list(again.read(parts[4]))) == 10
    assert [line.split()[0] for line in hub.asked] == ["data/train-00001-of-00002.parquet"]


def test_a_file_that_was_prepared_before_is_not_downloaded(tmp_path: Path, hub: Hub) -> None:
    source = open_hub(tmp_path, hub)
    first = "data/train-00000-of-00002.parquet"
    whole = list(source.parts(10, tmp_path / "all"))
    hub.asked.clear()
    parts = list(source.parts(10, tmp_path / "spool", {(first, REVISION): [10, 10, 5]}))
    assert [line.split()[0] for line in hub.asked] == ["data/train-00001-of-00002.parquet"]
    assert [part.is_stored for part in parts] == [True] * 3 + [False] * 3
    for one, other in zip(parts, whole, strict=True):
        assert (one.index, one.start, one.num_rows) == (other.index, other.start, other.num_rows)
        source.release(one)
    other_revision = {(first, "0" * 40): [10, 10, 5]}
    assert not any(p.is_stored for p in source.parts(10, tmp_path / "next", other_revision))


def test_a_broken_connection_is_no_end(tmp_path: Path, hub: Hub) -> None:
    hub.cut_after = 1000
    parts = list(open_hub(tmp_path, hub).parts(10, tmp_path / "spool"))
    assert len(parts) == 6
    assert len(hub.asked) == 3


def test_a_file_with_another_hash_is_refused(tmp_path: Path, hub: Hub) -> None:
    name = next(iter(hub.files))
    hub.stated[name] = "f" * 64
    with pytest.raises(SourceError, match="another hash than the hub states"):
        list(open_hub(tmp_path, hub).parts(10, tmp_path / "spool"))


def test_patterns_that_match_nothing_name_what_is_there(tmp_path: Path, hub: Hub) -> None:
    source = open_hub(tmp_path, hub, 'config = "math"')
    with pytest.raises(SourceError, match=r"no file is named math/train-\*.parquet; it has data"):
        list(source.parts(10, tmp_path / "spool"))


def test_an_unreachable_hub_is_explained(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match=f"some/set@{REVISION}") as error:
        list(open_hub(tmp_path, hub).parts(10, tmp_path / "spool"))
    assert "paths" in error.value.hint
