"""The in-process vLLM engine, as far as it can be tested without a GPU: guard and mapping."""

from __future__ import annotations

import asyncio
import re
import sys
import types
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from seed_recipe import SHOP_SCRIPT, SHOP_SEEDS, write_seed_recipe

from pipeline.errors import TeacherError
from pipeline.records import Message
from pipeline.settings import load_recipe
from pipeline.settings.refinement import ScorerSettings
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.protocol import Answer, Constraint, Request
from promptcot.engines.teacher import open_teacher
from promptcot.refine import run_refinement
from promptcot.run_context import SynthesisRun
from promptcot.scoring import Score, ScoreBook, open_scorer
from promptcot.triple_text import TripleText, join_triple


@dataclass(kw_only=True)
class SamplingParams:
    """The parameters of vLLM's class that we use, by their real names and defaults."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = 16
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    structured_outputs: Any = None
    output_kind: Any = None
    prompt_logprobs: int | None = None


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
class Logprob:
    logprob: float
    decoded_token: str | None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int] | None
    outputs: list[CompletionOutput]
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None


class EngineDeadError(VLLMError):
    """What remains of an engine whose process died."""


class ValidationError(VLLMError, ValueError):
    """A request that cannot be served."""


@dataclass(kw_only=True)
class AsyncEngineArgs:
    model: str
    enable_prefix_caching: bool
    disable_log_stats: bool
    max_model_len: int = 4096


@dataclass
class ChatParams:
    chat_template_kwargs: dict[str, Any]


class Renderer:
    """Turns messages into "tokens": the text, marked by how it was made."""

    tokenizer = None

    @property
    def default_chat_tok_params(self) -> Renderer:
        return self

    def with_kwargs(self, **kwargs: Any) -> dict[str, Any]:
        return kwargs

    async def render_chat_async(
        self, conversations: list[list[dict[str, str]]], chat: ChatParams, tokens: dict[str, Any]
    ) -> tuple[None, list[str]]:
        assert chat.chat_template_kwargs["add_generation_prompt"]
        assert not tokens["add_special_tokens"]
        return None, [f"chat:{turns[-1]['content']}" for turns in conversations]

    async def render_cmpl_async(self, prompts: list[dict[str, str]]) -> list[str]:
        return [f"plain:{p['prompt']}" for p in prompts]


class AsyncLLMEngine:
    """Answers with the question; remembers what it was given."""

    def __init__(self, args: AsyncEngineArgs) -> None:
        self.args = args
        self.renderer = Renderer()
        self.calls: dict[str, SamplingParams] = {}
        self.num_running = self.peak = 0
        self.is_shut_down = False
        opened.append(self)

    @classmethod
    def from_engine_args(cls, args: AsyncEngineArgs) -> AsyncLLMEngine:
        if args.model == "missing":
            raise OSError("no such model")
        return cls(args)

    async def generate(
        self, prompt: str, params: SamplingParams, request_id: str
    ) -> AsyncIterator[RequestOutput]:
        assert request_id not in self.calls
        assert params.output_kind == "final"
        self.calls[request_id] = params
        if params.max_tokens == 9999:
            raise ValidationError("max_tokens is larger than the context")
        if params.max_tokens == 6666:
            raise EngineDeadError("EngineCore encountered an issue.")
        self.num_running += 1
        self.peak = max(self.peak, self.num_running)
        await asyncio.sleep(0.01)
        self.num_running -= 1
        reason = ["stop", "length", "abort"][(params.seed or 0) % 3]
        output = RequestOutput([1, 2], [CompletionOutput(prompt, [3], reason)])
        if params.prompt_logprobs is not None:
            if "endless" in prompt:
                raise ValidationError("The decoder prompt is longer than the maximum model length")
            pieces = re.findall(r"\s*\S+|\s+", prompt.removeprefix("plain:"))
            output.prompt_logprobs = [
                {n: Logprob(-float(len(piece)), piece)} if n else None
                for n, piece in enumerate(pieces)
            ]
        yield output

    def shutdown(self) -> None:
        self.is_shut_down = True


opened: list[AsyncLLMEngine] = []


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Modules with the names of vLLM's interface; the model behind them is a fake."""
    opened.clear()
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    members: dict[str, dict[str, Any]] = {
        "vllm": {
            "__version__": "0.32.0+cu130",
            "AsyncEngineArgs": AsyncEngineArgs,
            "AsyncLLMEngine": AsyncLLMEngine,
            "SamplingParams": SamplingParams,
        },
        "vllm.exceptions": {"VLLMError": VLLMError},
        "vllm.renderers": {"ChatParams": ChatParams},
        "vllm.sampling_params": {
            "StructuredOutputsParams": StructuredOutputsParams,
            "RequestOutputKind": types.SimpleNamespace(FINAL_ONLY="final"),
        },
        "vllm.utils": {},
        "vllm.utils.mistral": {"is_mistral_tokenizer": lambda tokenizer: tokenizer is not None},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.exceptions": {"EngineDeadError": EngineDeadError},
    }
    for name, values in members.items():
        module = types.ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    return sys.modules["vllm"]


def ask(out: Path, requests: list[Request], **settings: Any) -> list[Answer]:
    teacher_settings = TeacherSettings(**{"engine": "vllm", "model": "org/model", **settings})
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
        request(0, stop=("END",), top_k=20, min_p=0.1, repetition_penalty=1.1),
        request(1, constraint=Constraint("regex", "a+")),
        request(2, constraint=Constraint("json_schema", '{"type": "object"}')),
        request(3, template="none"),
    ]
    answers = ask(tmp_path, requests, engine_args={"max_model_len": 100})
    assert [(a.text, a.finish_reason) for a in answers] == [
        ("chat:q0", "stop"),
        ("chat:q1", "length"),
        ("chat:q2", "error"),
        ("plain:q3", "stop"),
    ]
    assert answers[2].detail == "vLLM ended it with 'abort'"
    assert (answers[0].num_prompt_tokens, answers[0].num_completion_tokens) == (2, 1)
    (engine,) = opened
    assert engine.args == AsyncEngineArgs(
        model="org/model", enable_prefix_caching=True, disable_log_stats=True, max_model_len=100
    )
    first, second, third, _ = engine.calls.values()
    assert first == SamplingParams(
        temperature=0.6,
        top_p=0.9,
        top_k=20,
        min_p=0.1,
        repetition_penalty=1.1,
        max_tokens=50,
        seed=0,
        stop=["END"],
        output_kind="final",
    )
    assert second.structured_outputs == StructuredOutputsParams(regex="a+")
    assert third.structured_outputs == StructuredOutputsParams(json={"type": "object"})
    assert engine.is_shut_down


@pytest.mark.usefixtures("fake_vllm")
def test_all_requests_in_flight_are_one_batch(tmp_path: Path) -> None:
    ask(tmp_path, [request(i) for i in range(40)], max_concurrency=16)
    assert len(opened) == 1
    assert opened[0].peak == 16


@pytest.mark.usefixtures("fake_vllm")
def test_prefix_caching_can_be_switched_off(tmp_path: Path) -> None:
    ask(tmp_path, [request(0)], engine_args={"enable_prefix_caching": False})
    assert not opened[0].args.enable_prefix_caching


@pytest.mark.usefixtures("fake_vllm")
def test_a_refused_request_is_its_own_error(tmp_path: Path) -> None:
    requests = [request(0), request(1, max_tokens=9999), request(3)]
    answers = ask(tmp_path, requests, max_concurrency=1)
    assert [a.finish_reason for a in answers] == ["stop", "error", "stop"]
    assert "larger than the context" in answers[1].detail
    with pytest.raises(TeacherError, match="larger than the context"):
        ask(tmp_path, [request(i, max_tokens=9999) for i in range(20)])


@pytest.mark.usefixtures("fake_vllm")
def test_a_dead_engine_and_a_missing_model_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="engine died") as caught:
        ask(tmp_path, [request(0, max_tokens=6666)])
    assert "same command again" in caught.value.hint
    with pytest.raises(TeacherError, match="cannot load 'missing': no such model"):
        ask(tmp_path, [request(0)], model="missing")
    with pytest.raises(TeacherError, match="cannot load 'org/model'"):
        ask(tmp_path, [request(0)], engine_args={"no_such_argument": 1})


def score(out: Path, texts: list[TripleText], **settings: Any) -> list[Score | None]:
    values = ScorerSettings(**{"engine": "vllm", "model": "org/model", **settings})
    with ScoreBook(open_scorer(values, load_recipe("demo")), out) as book:
        return book.score_all(texts)


def triple(rationale: str) -> TripleText:
    return join_triple(["a", "b"], "AIME", "math", rationale=rationale, problem="What is 2 + 2?")


@pytest.mark.usefixtures("fake_vllm")
def test_texts_are_scored_in_one_batch_and_an_endless_one_has_no_score(tmp_path: Path) -> None:
    texts = [triple("Two and two."), triple("endless"), triple("Two and two are four.")]
    first, second, third = score(tmp_path, texts)
    assert second is None
    assert first is not None
    assert third is not None
    # The fake's tokens cost a nat per character.
    assert third.rationale == first.rationale - len(" are four")
    assert third.num_rationale_tokens == first.num_rationale_tokens + 2
    assert third.problem == first.problem
    (engine,) = opened
    assert engine.peak == 3
    assert engine.is_shut_down
    assert score(tmp_path, [texts[0]]) == [first]
    assert len(opened) == 1


@pytest.mark.usefixtures("fake_vllm")
def test_scoring_stops_where_nothing_can_be_scored(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"refused to score a text.*maximum model length"):
        score(tmp_path, [triple(f"endless {n}") for n in range(9)])
    with pytest.raises(TeacherError, match="cannot load 'missing'"):
        score(tmp_path, [triple("x")], model="missing")


def test_scoring_without_vllm_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(TeacherError, match="needs vLLM"):
        score(tmp_path, [triple("x")])


@pytest.mark.usefixtures("fake_vllm")
def test_a_fixed_scoring_model_is_loaded_once_for_all_rounds(tmp_path: Path) -> None:
    path = write_seed_recipe(tmp_path, seeds=SHOP_SEEDS, script=SHOP_SCRIPT, scorer=Path("org/m"))
    recipe = load_recipe(str(path), ["synthesis.refinement.scorer.engine=vllm"])
    with SynthesisRun(recipe, tmp_path / "out") as run:
        assert len(run_refinement(run)) == 3
    assert len(opened) == 1
    assert opened[0].is_shut_down
