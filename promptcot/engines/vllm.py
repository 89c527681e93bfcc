"""vLLM inside this process: one node's GPUs, no server to run.

All requests in flight share one continuous batch, across batches of a stage and across stages; it
drains at the end of a run only. Shared beginnings of prompts are computed once (prefix caching).

The same request can get another text in another run, because the composition of a batch changes
the order of sums. The stored answer per request is what makes a run repeatable; to have vLLM
repeat itself as well, set ``VLLM_BATCH_INVARIANT=1`` in the environment (slower; vLLM's page on
batch invariance lists the GPUs it works on).

Each request carries its seed. vLLM 0.32's CPU build dies when the prompt of a seeded request is cut
into chunks: there, set ``engine_args.max_num_batched_tokens`` above the tokens of all prompts that
can start together.

For several nodes, or to share a model between runs, start ``vllm serve`` and use the HTTP engine.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
from collections.abc import Sequence
from itertools import count
from typing import Any

from pipeline.errors import TeacherError
from pipeline.records import FinishReason
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.first_replies import FirstReplies
from promptcot.engines.protocol import Answer, Capabilities, Constraint, Request

MINIMUM_VERSION = (0, 32)
"""The oldest version this engine was run against; earlier ones have another interface."""
_INSTALL = "pip install 'promptcot-mamba[vllm]'"
_FINISH_REASONS: dict[str | None, FinishReason] = {"stop": "stop", "length": "length"}


class VllmEngine:
    """A teacher on vLLM's asynchronous engine; the model loads with the first request.

    Raises:
        TeacherError: vLLM is missing, too old, refuses the model, or its engine died.
    """

    def __init__(self, settings: TeacherSettings) -> None:
        self._settings = settings
        self._model = LoadedModel(settings.model, settings.engine_args)
        self._first = FirstReplies()

    @property
    def capabilities(self) -> Capabilities:
        """Independent requests; regular expressions and JSON schemas are enforced."""
        return Capabilities(
            name="vllm",
            model=self._settings.model,
            constraints=frozenset({"regex", "json_schema"}),
            group_size=None,
            max_concurrency=self._settings.max_concurrency,
        )

    async def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """Answer one request inside the batch that is running."""
        (request,) = requests
        await self._model.load()
        try:
            prompt = await self._model.render(request)
            output = await self._model.generate(prompt, sampling_params(request))
        except refusals() as exc:
            reason = str(exc) or type(exc).__name__
            self._first.note_refusal(
                f"vLLM refused the request: {reason}",
                "check that prompt plus max_tokens fit the model's context, that the model has a "
                "chat template, and that the constraint is supported",
            )
            return [Answer("", "error", 0, 0, reason)]
        self._first.note_answer()
        return [_to_answer(output)]

    async def close(self) -> None:
        """Free the model and its GPU memory."""
        self._model.close()


class LoadedModel:
    """vLLM's asynchronous engine with the model in it, loaded on demand."""

    def __init__(self, model: str, engine_args: dict[str, Any]) -> None:
        self._name = model
        self._engine_args = engine_args
        self._engine: Any = None
        self._loading: asyncio.Lock | None = None
        self._ids = count()

    async def load(self) -> None:
        """Load the model unless it is; other tasks of the loop go on meanwhile.

        Raises:
            TeacherError: vLLM cannot be used, or cannot load the model.
        """
        if self._engine is not None:
            return
        self._loading = self._loading or asyncio.Lock()
        async with self._loading:
            if self._engine is None:
                # vLLM keeps a traceback that leads to the thread's frames, and these its result,
                # until the interpreter's exit: what they hold is a list that is empty by then.
                made: list[Any] = []
                await asyncio.to_thread(self._create, made)
                self._engine = made.pop()

    def _create(self, made: list[Any]) -> None:
        import_vllm()
        # This process has threads, and a fork of one that has may hang.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        from vllm import AsyncEngineArgs, AsyncLLMEngine

        arguments = {"enable_prefix_caching": True, "disable_log_stats": True, **self._engine_args}
        try:
            arguments["model"] = self._name
            made.append(AsyncLLMEngine.from_engine_args(AsyncEngineArgs(**arguments)))
        except _vllm_errors(OSError, TypeError, ValueError, RuntimeError) as exc:
            raise TeacherError(
                f"vLLM cannot load {self._name!r}: {exc}",
                hint="check the model (a hub id or a folder), engine_args and the free GPU memory; "
                "vLLM's own messages are above",
            ) from exc

    async def render(self, request: Request) -> Any:
        """The request's tokens, as ``LLM.chat`` and vLLM's server make them."""
        if request.template == "none":
            return await self.tokenize("".join(m.content for m in request.messages))
        from vllm.renderers import ChatParams
        from vllm.utils.mistral import is_mistral_tokenizer

        renderer = self._engine.renderer
        messages = [{"role": m.role, "content": m.content} for m in request.messages]
        _, prompts = await renderer.render_chat_async(
            [messages],
            ChatParams(
                chat_template_kwargs={
                    "add_generation_prompt": True,
                    "tools": None,
                    "tokenize": is_mistral_tokenizer(renderer.tokenizer),
                }
            ),
            # The template itself writes the start token.
            renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False),
        )
        return prompts[0]

    async def tokenize(self, text: str) -> Any:
        """The tokens of a text as it is, with a start token where the model has one."""
        (prompt,) = await self._engine.renderer.render_cmpl_async([{"prompt": text}])
        return prompt

    async def generate(self, prompt: Any, params: Any) -> Any:
        """The final output of one request.

        Raises:
            TeacherError: The engine is dead. Refusals of this request pass as they are.
        """
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError

        params.output_kind = RequestOutputKind.FINAL_ONLY
        final = None
        try:
            async for output in self._engine.generate(prompt, params, str(next(self._ids))):
                final = output
        except EngineDeadError as exc:
            raise TeacherError(
                "vLLM's engine died (its own messages are above); answers so far are kept",
                hint="run the same command again; if it dies again, lower "
                "engine_args.gpu_memory_utilization or max_model_len, and ask without "
                'constraints (form = "free"): one schema can kill the engine',
            ) from exc
        return final

    def close(self) -> None:
        """Stop the engine's processes."""
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None
            # Cycles hold it; its finaliser, left to the interpreter's exit, would fail there.
            gc.collect()


def import_vllm() -> Any:
    """The vLLM module.

    Raises:
        TeacherError: It is missing, or older than the interface used here.
    """
    try:
        import vllm
    except ImportError as exc:
        raise TeacherError(f"this engine needs vLLM ({exc})", hint=f"run: {_INSTALL}") from exc
    number = re.match(r"(\d+)\.(\d+)", vllm.__version__)
    if number is None or (int(number[1]), int(number[2])) < MINIMUM_VERSION:
        wanted = ".".join(map(str, MINIMUM_VERSION))
        raise TeacherError(
            f"vLLM {vllm.__version__} is older than {wanted}", hint=f"run: {_INSTALL} --upgrade"
        )
    return vllm


def _vllm_errors(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What vLLM raises: its own errors, and those of the libraries that it lets through."""
    from vllm.exceptions import VLLMError

    return (VLLMError, *more)


def refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises for one request while the engine goes on."""
    return _vllm_errors(ValueError)


def sampling_params(request: Request) -> Any:
    """VLLM's ``SamplingParams`` of a request."""
    from vllm import SamplingParams

    return SamplingParams(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        repetition_penalty=request.repetition_penalty,
        max_tokens=request.max_tokens,
        seed=request.seed,
        stop=list(request.stop) or None,
        structured_outputs=_structured_outputs(request.constraint),
    )


def _structured_outputs(constraint: Constraint | None) -> Any:
    from vllm.sampling_params import StructuredOutputsParams

    if constraint is None:
        return None
    if constraint.kind == "regex":
        return StructuredOutputsParams(regex=constraint.value)
    return StructuredOutputsParams(json=json.loads(constraint.value))


def _to_answer(output: Any) -> Answer:
    completion = output.outputs[0]
    reason: FinishReason = _FINISH_REASONS.get(completion.finish_reason, "error")
    return Answer(
        text=completion.text,
        finish_reason=reason,
        num_prompt_tokens=len(output.prompt_token_ids or ()),
        num_completion_tokens=len(completion.token_ids),
        detail=f"vLLM ended it with {completion.finish_reason!r}" if reason == "error" else "",
    )
