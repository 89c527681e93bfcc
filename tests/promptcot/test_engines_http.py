"""The HTTP engine against a real local server: what it sends, survives and refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai_server import LocalServer, serving

from pipeline.errors import TeacherError, TeacherUnreachable
from pipeline.records import Message
from pipeline.settings import load_recipe
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.protocol import Answer, Constraint, Request
from promptcot.engines.teacher import open_teacher
from promptcot.run_context import SynthesisRun


def ask(
    server: LocalServer | str, out: Path, requests: list[Request], **settings: Any
) -> list[Answer]:
    base_url = server if isinstance(server, str) else server.base_url
    values = {"engine": "http", "base_urls": (base_url,), "max_retries": 1, **settings}
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
        request(
            7,
            constraint=Constraint("json_schema", schema),
            top_k=20,
            min_p=0.1,
            repetition_penalty=1.1,
        ),
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
    assert (as_json["body"]["top_k"], as_json["body"]["min_p"]) == (20, 0.1)
    assert as_json["body"]["repetition_penalty"] == 1.1
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


def test_without_a_template_the_text_goes_to_completions(
    openai_server: LocalServer, tmp_path: Path
) -> None:
    (answer,) = ask(openai_server, tmp_path, [request(3, template="none")], model="plain")
    assert json.loads(answer.text)["prompt"] == "question 3"


@pytest.mark.parametrize(
    ("model", "sent"),
    [("garbage", "hello from a proxy"), ("no-choices", "choices"), ("silent", "an empty body")],
)
def test_garbage_on_every_try_is_an_error_that_quotes_it(
    openai_server: LocalServer, tmp_path: Path, model: str, sent: str
) -> None:
    (answer,) = ask(openai_server, tmp_path, [request()], model=f"{model}#one")
    assert (answer.text, answer.finish_reason) == ("", "error")
    assert "no answer in 2 tries" in answer.detail
    assert sent in answer.detail
    assert openai_server.asked(f"{model}#one") == {"0": 2}


@pytest.mark.parametrize("model", ["garbage-once", "cut-off", "flaky"])
def test_one_bad_reply_costs_nothing(
    openai_server: LocalServer, tmp_path: Path, model: str
) -> None:
    answers = ask(openai_server, tmp_path, [request(i) for i in range(3)], model=model)
    assert [a.text for a in answers] == [f"question {i} / seed {i}" for i in range(3)]
    assert openai_server.asked(model) == {"0": 2, "1": 2, "2": 2}


def test_nothing_but_garbage_stops_the_run(openai_server: LocalServer, tmp_path: Path) -> None:
    requests = [request(i) for i in range(20)]
    with pytest.raises(TeacherError, match="hello from a proxy") as caught:
        ask(openai_server, tmp_path, requests, model="garbage", max_concurrency=4)
    assert openai_server.base_url in str(caught.value)
    assert "base_urls" in caught.value.hint
    assert sum(openai_server.asked("garbage").values()) <= 12


def test_a_refused_request_is_its_own_error(openai_server: LocalServer, tmp_path: Path) -> None:
    answers = ask(openai_server, tmp_path, [request(i) for i in range(40)], model="picky")
    assert [a.finish_reason for a in answers] == ["stop", "error"] * 20
    assert answers[7].detail == "HTTP 400: prompt 7 is too long"
    assert set(openai_server.asked("picky").values()) == {1}


def test_nothing_but_refusals_stops_the_run(openai_server: LocalServer, tmp_path: Path) -> None:
    requests = [request(i) for i in range(20)]
    with pytest.raises(TeacherError, match="HTTP 400: max_tokens is too large") as caught:
        ask(openai_server, tmp_path, requests, model="refuse", max_concurrency=4)
    assert "structured outputs" in caught.value.hint
    assert sum(openai_server.asked("refuse").values()) <= 12


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        ("locked", "HTTP 401: wrong key", "PROMPTCOT_API_KEY"),
        ("unknown", "HTTP 404: no such model", "teachers.default.model"),
    ],
)
def test_wrong_key_and_model_stop_the_run_at_once(
    openai_server: LocalServer, tmp_path: Path, model: str, message: str, hint: str
) -> None:
    with pytest.raises(TeacherError, match=message) as caught:
        ask(openai_server, tmp_path, [request()], model=model)
    assert hint in caught.value.hint
    assert openai_server.asked(model) == {"0": 1}


def test_a_request_that_always_fails_ends_as_an_error(
    openai_server: LocalServer, tmp_path: Path
) -> None:
    (answer,) = ask(openai_server, tmp_path, [request()], model="broken#one")
    assert answer.detail == "no answer in 2 tries; the last: HTTP 500: out of memory"
    (answer,) = ask(openai_server, tmp_path, [request()], model="slow-2", timeout_s=0.1)
    assert "nothing within 0.1 s" in answer.detail


def test_trouble_is_shown_once(
    openai_server: LocalServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(openai_server, tmp_path, [request(i) for i in range(3)], model="flaky#shown")
    captured = capsys.readouterr()
    assert captured.out.count("engine hiccup; trying again") == 1
    assert captured.err == ""


@pytest.mark.parametrize("model", ["busy", "busy-date"])
def test_a_busy_server_is_left_alone_as_long_as_it_says(
    openai_server: LocalServer, tmp_path: Path, model: str
) -> None:
    start = time.monotonic()
    (answer,) = ask(openai_server, tmp_path, [request()], model=model, max_retries=0)
    assert answer.text, "being busy uses up no retry"
    assert 0.9 <= time.monotonic() - start < 3


def test_one_rate_limit_holds_back_all_requests(openai_server: LocalServer, tmp_path: Path) -> None:
    requests = [request(i) for i in range(2)]
    start = time.monotonic()
    answers = ask(openai_server, tmp_path, requests, model="busy#fleet", max_concurrency=1)
    assert all(a.text for a in answers)
    # One at a time, each is told once to wait for a second: nobody asks in between.
    assert 1.9 <= time.monotonic() - start < 4
    assert set(openai_server.asked("busy#fleet").values()) == {2}


def test_a_server_that_takes_few_at_once_gets_no_more_for_long(
    openai_server: LocalServer, tmp_path: Path
) -> None:
    model = "narrow-4#limit"
    answers = ask(openai_server, tmp_path, [request(i) for i in range(60)], model=model)
    assert [a.finish_reason for a in answers] == ["stop"] * 60
    # Each answer asked once, and the refusals are those of the first rush and a few soundings.
    assert sum(openai_server.asked(model).values()) < 60 + 110


def test_two_servers_share_the_load(tmp_path: Path) -> None:
    with serving() as one, serving() as two:
        urls = (one.base_url, two.base_url)
        requests = [request(i) for i in range(40)]
        ask(one, tmp_path, requests, model="slow-0.02", base_urls=urls, max_concurrency=8)
        counts = [sum(s.asked("slow-0.02").values()) for s in (one, two)]
        peaks = [s.stats()["in_flight"]["slow-0.02 peak"] for s in (one, two)]
    assert sum(counts) == 40
    assert min(counts) >= 15
    assert max(peaks) <= 5


def test_a_dead_server_of_two_is_left_out(tmp_path: Path) -> None:
    with serving() as alive:
        urls = (f"http://127.0.0.1:{free_port()}/v1", alive.base_url)
        requests = [request(i) for i in range(30)]
        answers = ask(alive, tmp_path, requests, model="plain", base_urls=urls, max_concurrency=4)
    assert [a.finish_reason for a in answers] == ["stop"] * 30


def test_a_server_that_dies_and_comes_back_costs_no_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    requests = [request(i) for i in range(60)]
    with ThreadPoolExecutor() as pool:
        with serving(port) as server:
            run = pool.submit(
                ask, url, tmp_path, requests, model="slow-0.05", max_retries=0, max_concurrency=4
            )
            while sum(server.asked("slow-0.05").values()) < 20:
                time.sleep(0.02)
        with serving(port):
            answers = run.result(timeout=20)
    assert [a.text for a in answers] == [f"question {i} / seed {i}" for i in range(60)]
    assert "answers again" in capsys.readouterr().out


def test_an_outage_ends_the_run_and_keeps_the_answers(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    requests = [request(i) for i in range(30)]
    with serving(port):
        ask(url, tmp_path, requests[:10], model="plain")
    with ThreadPoolExecutor() as pool, pytest.raises(TeacherUnreachable) as caught:
        with serving(port) as server:
            settings = {"model": "slow-0.05", "max_concurrency": 1, "outage_s": 1}
            run = pool.submit(ask, url, tmp_path, requests, **settings, first_contact_s=0)
            while sum(server.asked("slow-0.05").values()) < 4:
                time.sleep(0.02)
        start = time.monotonic()
        run.result(timeout=20)
    # It had answered once: the shorter limit of a wrong address does not hold any more.
    assert 0.8 <= time.monotonic() - start < 4
    assert "answers so far are kept" in str(caught.value)
    assert url in str(caught.value)
    assert "start the server" in caught.value.hint
    with serving(port) as server:
        assert len(ask(url, tmp_path, requests, model="plain")) == 30
        assert len(server.asked("plain")) == 20, "the first ten are kept"


def test_a_server_without_workers_is_an_outage(openai_server: LocalServer, tmp_path: Path) -> None:
    with pytest.raises(TeacherUnreachable, match="503: no workers"):
        ask(openai_server, tmp_path, [request()], model="down", max_retries=0, outage_s=0.5)


def test_an_address_where_nothing_ever_answered_ends_the_run_soon(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    recipe = load_recipe(
        "demo",
        [
            'teachers.judge.engine="http"',
            f'teachers.judge.base_urls=["{url}"]',
            "teachers.judge.first_contact_s=1",
        ],
    )
    start = time.monotonic()
    with SynthesisRun(recipe, tmp_path) as run, pytest.raises(TeacherUnreachable) as caught:
        run.teacher("judge").answer_all([request(i) for i in range(20)], "judged")
    assert 1 <= time.monotonic() - start < 4
    assert url in str(caught.value)
    assert "teachers.judge.base_urls" in str(caught.value)
    assert "teachers.judge.first_contact_s" in caught.value.hint


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_constraint_that_the_server_cannot_enforce_is_refused_before_asking(
    openai_server: LocalServer, tmp_path: Path
) -> None:
    constrained = request(constraint=Constraint("regex", "a"))
    with pytest.raises(TeacherError, match="cannot enforce a regex"):
        ask(openai_server, tmp_path, [constrained], model="plain#no", constraints=())
    assert openai_server.asked("plain#no") == {}


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
