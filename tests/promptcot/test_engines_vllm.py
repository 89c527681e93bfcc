"""The in-process vLLM engine, as far as it can be tested without a GPU: guard and mapping."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import TeacherError
from pipeline.records import Message
from pipeline.settings import load_recipe
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.protocol import Answer, Constraint, Request
from promptcot.engines.teacher import open_teacher


@dataclass(kw_only=True)
class SamplingParams:
    """The parameters of vLLM's class that we use, by their real names and defaults."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = 16
    structured_outputs: Any = None


@dataclass
class StructuredOutputsParams:
    json: str | dict[str, Any] | None = None
    regex: str | None = None


class VLLMError(Exception):
    """Root of vLLM's own errors."""


@dataclass
class CompletionOutput:
    text: str
    token_ids: list[int]
    finish_reason: str | None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int] | None
    outputs: list[CompletionOutput]


@dataclass
class LLM:
    """Answers with the question; remembers what it was given."""

    model: str
    max_model_len: int = 4096
    calls: list[list[SamplingParams]] = field(default_factory=list)

    def chat(
        self,
        messages: list[list[dict[str, str]]],
        sampling_params: list[SamplingParams],
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        assert not use_tqdm
        self.calls.append(sampling_params)
        opened.append(self)
        if sampling_params[0].max_tokens == 9999:
            raise VLLMError("max_tokens is larger than the context")
        reasons = ["stop", "length", "abort"]
        return [
            RequestOutput([1, 2], [CompletionOutput(turns[-1]["content"], [3], reasons[i % 3])])
            for i, turns in enumerate(messages)
        ]


opened: list[LLM] = []


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module with the names of vLLM's public API; the model behind it is a fake."""
    opened.clear()
    module = types.ModuleType("vllm")
    parameters = types.ModuleType("vllm.sampling_params")
    vars(module).update(__version__="0.32.0+cu130", LLM=LLM, SamplingParams=SamplingParams)
    vars(parameters).update(StructuredOutputsParams=StructuredOutputsParams)
    exceptions = types.ModuleType("vllm.exceptions")
    vars(exceptions).update(VLLMError=VLLMError)
    monkeypatch.setitem(sys.modules, "vllm.exceptions", exceptions)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", parameters)
    return module


def ask(out: Path, requests: list[Request], **settings: Any) -> list[Answer]:
    teacher_settings = TeacherSettings(engine="vllm", model="org/model", **settings)
    with open_teacher(teacher_settings, recipe=load_recipe("demo"), out=out) as teacher:
        return teacher.answer_all(requests, "test")


def request(seed: int, **changes: Any) -> Request:
    values: dict[str, Any] = {"temperature": 0.6, "top_p": 0.9, "max_tokens": 50, **changes}
    return Request(messages=(Message(role="user", content=f"q{seed}"),), seed=seed, **values)


def test_without_vllm_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(TeacherError, match="needs vLLM") as caught:
        ask(tmp_path, [request(0)])
    assert "pip install 'promptcot-mamba[vllm]'" in caught.value.hint


@pytest.mark.parametrize("version", ["0.7.3", "0.31.1", "dev"])
def test_an_old_vllm_is_refused(tmp_path: Path, fake_vllm: types.ModuleType, version: str) -> None:
    vars(fake_vllm)["__version__"] = version
    with pytest.raises(TeacherError, match=r"older than 0\.32"):
        ask(tmp_path, [request(0)])


@pytest.mark.usefixtures("fake_vllm")
def test_requests_become_sampling_params_and_outputs_answers(tmp_path: Path) -> None:
    requests = [
        request(0, stop=("END",)),
        request(1, constraint=Constraint("regex", "a+")),
        request(2, constraint=Constraint("json_schema", '{"type": "object"}')),
        request(3),
    ]
    answers = ask(tmp_path, requests, group_size=3, engine_args={"max_model_len": 100})
    assert [(a.text, a.finish_reason) for a in answers] == [
        ("q0", "stop"),
        ("q1", "length"),
        ("q2", "error"),
        ("q3", "stop"),
    ]
    assert (answers[0].num_prompt_tokens, answers[0].num_completion_tokens) == (2, 1)
    (llm,) = {id(one): one for one in opened}.values()
    assert (llm.model, llm.max_model_len) == ("org/model", 100)
    assert [len(call) for call in llm.calls] == [3, 1]
    first, second, third = llm.calls[0]
    assert first == SamplingParams(temperature=0.6, top_p=0.9, max_tokens=50, seed=0, stop=["END"])
    assert second.structured_outputs == StructuredOutputsParams(regex="a+")
    assert third.structured_outputs == StructuredOutputsParams(json={"type": "object"})


@pytest.mark.usefixtures("fake_vllm")
def test_what_vllm_refuses_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="larger than the context"):
        ask(tmp_path, [request(0, max_tokens=9999)])
    with pytest.raises(TeacherError, match="cannot load 'org/model'"):
        ask(tmp_path, [request(0)], engine_args={"no_such_argument": 1})
