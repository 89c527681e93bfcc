"""A pool of servers that is listed outside the recipe: servers join, leave, and serve one model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from openai_server import LocalServer, serving

from pipeline.errors import TeacherError, TeacherUnreachable
from pipeline.records import Message
from pipeline.settings import load_recipe
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.protocol import Answer, Request
from promptcot.engines.replicas import NotAList, parse_replicas
from promptcot.engines.teacher import open_teacher

NUM_REQUESTS = 120


def settings(replicas: Path | str, **changes: Any) -> TeacherSettings:
    values: dict[str, Any] = {
        "engine": "http",
        "model": "slow-0.1",
        "replicas": str(replicas),
        "replicas_refresh_s": 1.0,
        "max_concurrency": 4,
        "max_retries": 0,
        **changes,
    }
    return TeacherSettings(**values)


def ask(chosen: TeacherSettings, out: Path, count: int = 4) -> list[Answer]:
    requests = [
        Request(
            messages=(Message(role="user", content=f"question {seed}"),),
            temperature=0.6,
            top_p=0.9,
            max_tokens=50,
            seed=seed,
        )
        for seed in range(count)
    ]
    with open_teacher(chosen, recipe=load_recipe("demo"), out=out) as teacher:
        return teacher.answer_all(requests, "test")


def num_asked(server: LocalServer, model: str = "slow-0.1") -> int:
    return sum(server.asked(model).values())


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_server_that_joins_gets_traffic_and_one_that_leaves_gets_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = "slow-0.1=org/Teacher-7B"
    listed = tmp_path / "servers.txt"
    with serving(model=model) as first, serving(model=model.replace("org", "/data")) as second:
        listed.write_text(f"# the pool\n{first.base_url}\n", encoding="utf-8")
        answers: list[Answer] = []
        run = threading.Thread(
            target=lambda: answers.extend(ask(settings(listed), tmp_path, NUM_REQUESTS))
        )
        run.start()
        wait_until(lambda: num_asked(first) > 3)
        listed.write_text(f"{first.base_url}\n{second.base_url}/\n", encoding="utf-8")
        wait_until(lambda: num_asked(second) > 3)
        listed.write_text(second.base_url, encoding="utf-8")
        run.join()
        of_first, of_second = first.asked("slow-0.1"), second.asked("slow-0.1")
    assert [answer.finish_reason for answer in answers] == ["stop"] * NUM_REQUESTS
    # Each question once and nowhere twice: what the leaving server was working on, it finished.
    assert set(of_first.values()) == set(of_second.values()) == {1}
    assert not of_first.keys() & of_second.keys()
    assert len(of_first) + len(of_second) == NUM_REQUESTS
    last = [str(seed) for seed in range(NUM_REQUESTS - 8, NUM_REQUESTS)]
    assert all(seed in of_second for seed in last), "the last ones went to the one that stayed"
    shown = capsys.readouterr().out
    assert f"{second.base_url} joined; 2 server(s) now" in shown
    assert f"{first.base_url} left; 1 server(s) now" in shown


def test_a_server_that_leaves_by_dying_costs_no_request(tmp_path: Path) -> None:
    model = "slow-0.1=Teacher"
    listed = tmp_path / "servers.json"
    with serving(model=model) as stays:
        with serving(model=model) as dies:
            urls = [stays.base_url, dies.base_url]
            listed.write_text(json.dumps({"base_urls": urls}), encoding="utf-8")
            answers: list[Answer] = []
            chosen = settings(listed, max_retries=1)
            run = threading.Thread(target=lambda: answers.extend(ask(chosen, tmp_path)))
            run.start()
            wait_until(lambda: num_asked(dies) > 0)
        listed.write_text(json.dumps([stays.base_url]), encoding="utf-8")
        run.join()
    assert [answer.finish_reason for answer in answers] == ["stop"] * 4


def test_a_listed_server_of_other_weights_is_kept_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "servers.txt"
    with serving(model="slow-0.1=org/Teacher") as right, serving(model="slow-0.1=Other") as wrong:
        listed.write_text(f"{right.base_url}\n{wrong.base_url}\n", encoding="utf-8")
        answers = ask(settings(listed), tmp_path, 12)
        # The first one asked decides what is right.
        assert sorted([num_asked(wrong), num_asked(right)]) == [0, 12]
    assert {answer.finish_reason for answer in answers} == {"stop"}
    assert "serves other weights under the name slow-0.1" in capsys.readouterr().out


def test_servers_of_another_model_are_refused_before_any_question(tmp_path: Path) -> None:
    with serving(model="other=x") as one, serving(model="another=y") as two:
        listed = tmp_path / "servers.txt"
        listed.write_text(f"{one.base_url}\n{two.base_url}\n", encoding="utf-8")
        with pytest.raises(TeacherError, match=r"serves (an)?other, not slow-0.1") as caught:
            ask(settings(listed), tmp_path)
        assert "teachers.default.replicas" in caught.value.hint
        fixed = (one.base_url, two.base_url)
        with pytest.raises(TeacherError, match=r"serves (an)?other, not slow-0.1"):
            ask(settings("", base_urls=fixed), tmp_path)
        assert num_asked(one) == num_asked(two) == 0


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("# pool\nhttp://a:1/v1/ # one\n\nhttp://b:2/v1\nhttp://a:1/v1\n",
         ("http://a:1/v1", "http://b:2/v1")),
        ('["http://a:1/v1"]', ("http://a:1/v1",)),
        ('{"base_urls": ["https://a/v1"]}', ("https://a/v1",)),
        ('[{"targets": ["a:1", "b:2"], "labels": {"__scheme__": "https"}}, {"targets": ["c:3"]}]',
         ("https://a:1/v1", "https://b:2/v1", "http://c:3/v1")),
        ("", ()),
        ("[]", ()),
    ],
)  # fmt: skip
def test_forms_of_a_list(text: str, urls: tuple[str, ...]) -> None:
    assert parse_replicas(text, "list") == urls


def test_what_ray_serve_says_of_itself() -> None:
    said: dict[str, Any] = {
        "http_options": {"host": "0.0.0.0", "port": 8100},
        "proxies": {
            "1": {"node_ip": "10.0.0.1", "status": "HEALTHY"},
            "2": {"node_ip": "10.0.0.2", "status": "DRAINING"},
        },
        "applications": {"llm": {"route_prefix": "/teacher", "status": "RUNNING"}},
    }
    assert parse_replicas(json.dumps(said), "ray") == ("http://10.0.0.1:8100/teacher/v1",)
    group = {
        "protocol": "HTTP",
        "route_prefix": "/teacher",
        "targets": [{"ip": "10.0.0.3", "port": 8200, "instance_id": "", "name": "x"}],
    }
    said["target_groups"] = [{**group, "protocol": "gRPC"}, group]
    assert parse_replicas(json.dumps(said), "ray") == ("http://10.0.0.3:8200/teacher/v1",)
    none = {"controller_info": {}, "proxies": {}, "applications": {}, "target_capacity": None}
    assert parse_replicas(json.dumps(none), "ray") == ()


@pytest.mark.parametrize(
    "text",
    ["<html>login</html>", '{"detail": "no"}', "[1]", '["ftp://a/v1"]', "[{}]", "{", "http:///v1"],
)
def test_what_is_no_list_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(NotAList, match="the-list"):
        parse_replicas(text, "the-list")
    listed = tmp_path / "servers"
    listed.write_text(text, encoding="utf-8")
    with pytest.raises(TeacherError, match="servers") as caught:
        ask(settings(listed), tmp_path)
    assert "correct teachers.default.replicas" in caught.value.hint


def test_too_many_servers_are_refused() -> None:
    many = "\n".join(f"http://10.0.{n // 250}.{n % 250}/v1" for n in range(4097))
    with pytest.raises(NotAList, match=r"lists 4,097 servers; at most 4,096"):
        parse_replicas(many, "list")


def test_a_list_that_is_not_there_or_empty_ends_the_run_in_time(tmp_path: Path) -> None:
    with pytest.raises(TeacherUnreachable, match=r"cannot be read: .*nowhere"):
        ask(settings(tmp_path / "nowhere", first_contact_s=0.0), tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(TeacherUnreachable, match="no server at all"):
        ask(settings(tmp_path / "empty", first_contact_s=0.0), tmp_path)


def test_an_address_lists_the_servers_and_a_bad_reply_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replies: list[tuple[int, str]] = []

    class Lister(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = replies[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the test's output clean."""

    lister = ThreadingHTTPServer(("127.0.0.1", 0), Lister)
    serve = threading.Thread(target=lister.serve_forever)
    serve.start()
    try:
        with serving(model="slow-0.1=Teacher") as server:
            target = server.base_url.removeprefix("http://").removesuffix("/v1")
            replies.append((200, json.dumps([{"targets": [target]}])))
            place = f"http://127.0.0.1:{lister.server_port}/targets"
            answers: list[Answer] = []
            run = threading.Thread(
                target=lambda: answers.extend(ask(settings(place), tmp_path, NUM_REQUESTS // 2))
            )
            run.start()
            wait_until(lambda: num_asked(server) > 0)
            replies[0] = (502, "<html>gateway</html>")
            run.join()
    finally:
        lister.shutdown()
        serve.join()
        lister.server_close()
    assert [answer.finish_reason for answer in answers] == ["stop"] * (NUM_REQUESTS // 2)
    assert "replied with HTTP 502; the servers known so far stay" in capsys.readouterr().out
