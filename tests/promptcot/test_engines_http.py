"""The HTTP engine against a real local server: what it sends, survives and refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from openai_server import LocalServer

from pipeline.errors import TeacherError, TeacherUnreachable
from pipeline.records import Message
from pipeline.settings import load_recipe
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.protocol import Answer, Constraint, Request
from promptcot.engines.teacher import open_teacher


def ask(
    server: LocalServer | str, out: Path, requests: list[Request], **settings: Any
) -> list[Answer]:
    base_url = server if isinstance(server, str) else server.base_url
    values = {"engine": "http", "base_url": base_url, "max_retries": 1, **settings}
    teacher = open_teacher(TeacherSettings(**values), recipe=load_recipe("demo"), out=out)
    with teacher:
        return teacher.answer_all(requests, "test")


def request(seed: int = 0, **changes: Any) -> Request:
    values: dict[str, Any] = {
        "messages": (Message(role="user", content=f"question {seed}"),),
        "temperature": 0.6,
        "top_p": 0.9,
        "max_tokens": 50,
        "seed": seed,
    }
    return Request(**{**values, **changes})


def test_sends_sampling_seed_stop_key_and_constraint(
    openai_server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    schema = json.dumps({"type": "object"})
    requests = [
        request(5, stop=("END",)),
        request(6, constraint=Constraint("regex", "a+")),
        request(7, constraint=Constraint("json_schema", schema)),
    ]
    answers = ask(openai_server, tmp_path, requests, model="echo", api_key_env="MY_KEY")
    plain, regex, as_json = (json.loads(a.text) for a in answers)
    assert plain["authorization"] == "Bearer secret"
    assert plain["body"] == {
        "model": "echo",
        "messages": [{"role": "user", "content": "question 5"}],
        "temperature": 0.6,
        "top_p": 0.9,
        "max_tokens": 50,
        "seed": 5,
        "stop": ["END"],
    }
    assert regex["body"]["structured_outputs"] == {"regex": "a+"}
    assert as_json["body"]["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert answers[0].num_prompt_tokens == 7


def test_answers_keep_the_order_within_the_concurrency(
    openai_server: LocalServer, tmp_path: Path
) -> None:
    model = "slow-0.01#order"
    answers = ask(
        openai_server, tmp_path, [request(i) for i in range(40)], model=model, max_concurrency=4
    )
    assert [a.text for a in answers] == [f"question {i} / seed {i}" for i in range(40)]
    assert 2 <= openai_server.stats()["in_flight"][f"{model} peak"] <= 4


def test_empty_cut_and_split_off_thinking(openai_server: LocalServer, tmp_path: Path) -> None:
    (empty,) = ask(openai_server, tmp_path, [request()], model="empty")
    assert (empty.text, empty.finish_reason) == ("", "stop")
    (cut,) = ask(openai_server, tmp_path, [request()], model="cut")
    assert cut.finish_reason == "length"
    (thinking,) = ask(openai_server, tmp_path, [request()], model="thinking")
    assert thinking.text == "<think>\nsix times seven\n</think>\n\n42"


@pytest.mark.parametrize(
    ("model", "sent"),
    [("garbage", "hello from a proxy"), ("no-choices", "choices"), ("silent", "an empty body")],
)
def test_garbage_names_the_server_and_what_it_sent(
    openai_server: LocalServer, tmp_path: Path, model: str, sent: str
) -> None:
    with pytest.raises(TeacherError, match=sent) as caught:
        ask(openai_server, tmp_path, [request()], model=model)
    assert openai_server.base_url in str(caught.value)
    assert "base_url" in caught.value.hint
    assert openai_server.asked(model) == {"0": 1}, "garbage is not worth a retry"


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        ("refuse", "HTTP 400: max_tokens is too large", "settings"),
        ("locked", "HTTP 401: wrong key", "PROMPTCOT_API_KEY"),
        ("unknown", "HTTP 404: no such model", "teachers.NAME.model"),
    ],
)
def test_refusal_carries_the_servers_words_and_a_remedy(
    openai_server: LocalServer, tmp_path: Path, model: str, message: str, hint: str
) -> None:
    with pytest.raises(TeacherError, match=message) as caught:
        ask(openai_server, tmp_path, [request()], model=model)
    assert hint in caught.value.hint
    assert openai_server.asked(model) == {"0": 1}


def test_server_errors_are_retried(
    openai_server: LocalServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = ask(openai_server, tmp_path, [request(i) for i in range(3)], model="flaky")
    assert [a.finish_reason for a in answers] == ["stop"] * 3
    assert openai_server.asked("flaky") == {"0": 2, "1": 2, "2": 2}
    captured = capsys.readouterr()
    assert captured.out.count("engine hiccup; trying again") == 1
    assert captured.err == ""


def test_rate_limit_waits_as_long_as_the_server_says(
    openai_server: LocalServer, tmp_path: Path
) -> None:
    start = time.monotonic()
    (answer,) = ask(openai_server, tmp_path, [request()], model="busy")
    assert answer.text
    assert 1.0 <= time.monotonic() - start < 5


def test_a_server_that_stays_down_is_named_with_the_attempts(
    openai_server: LocalServer, tmp_path: Path
) -> None:
    with pytest.raises(TeacherUnreachable, match=r"after 1 attempt.*503: no workers"):
        ask(openai_server, tmp_path, [request()], model="down", max_retries=0)


def test_unreachable_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    with pytest.raises(TeacherUnreachable, match=r"after 2 attempt") as caught:
        ask(url, tmp_path, [request(i) for i in range(4)])
    assert url in str(caught.value)
    assert "start the server" in caught.value.hint


def test_a_slow_answer_ends_at_the_time_limit(openai_server: LocalServer, tmp_path: Path) -> None:
    with pytest.raises(TeacherUnreachable, match=r"nothing within 0\.2 s"):
        ask(openai_server, tmp_path, [request()], model="slow-1", timeout_s=0.2, max_retries=0)


def test_a_constraint_that_the_server_cannot_enforce_is_refused_before_asking(
    openai_server: LocalServer, tmp_path: Path
) -> None:
    constrained = request(constraint=Constraint("regex", "a"))
    with pytest.raises(TeacherError, match="cannot enforce a regex"):
        ask(openai_server, tmp_path, [constrained], model="plain", constraints=())
    assert openai_server.asked("plain") == {}


CLIENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_engines_http import ask, request
ask(sys.argv[2], Path(sys.argv[3]), [request(i) for i in range(40)], model=sys.argv[4],
    max_concurrency=2)
"""


def test_kill_and_resume_asks_nothing_twice(openai_server: LocalServer, tmp_path: Path) -> None:
    model = "slow-0.04#kill"
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", CLIENT, here, openai_server.base_url, str(tmp_path), model]
    with subprocess.Popen(command) as client:
        while sum(openai_server.asked(model).values()) < 12:
            time.sleep(0.02)
            assert client.poll() is None
        os.kill(client.pid, signal.SIGKILL)
    answers = ask(
        openai_server, tmp_path, [request(i) for i in range(40)], model=model, max_concurrency=2
    )
    assert [a.text for a in answers] == [f"question {i} / seed {i}" for i in range(40)]
    counts = openai_server.asked(model)
    assert len(counts) == 40
    # Only what was in flight at the kill may be asked again.
    assert sum(n - 1 for n in counts.values()) <= 2
