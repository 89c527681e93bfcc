"""vLLM inside this process: one node's GPUs, no server to run.

For several nodes, or to share a model between runs, start ``vllm serve`` and use the HTTP engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from pipeline.errors import TeacherError
from pipeline.records import FinishReason
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.protocol import Answer, Capabilities, Constraint, Request

MINIMUM_VERSION = (0, 32)
"""The oldest version this engine was run against; earlier ones raise other errors."""
_INSTALL = "pip install 'promptcot-mamba[vllm]'"
_FINISH_REASONS: dict[str | None, FinishReason] = {"stop": "stop", "length": "length"}


class VllmEngine:
    """A teacher on ``vllm.LLM``; the model loads with the first request.

    Raises:
        TeacherError: vLLM is missing, too old, or refuses the model or a request.
    """

    def __init__(self, settings: TeacherSettings) -> None:
        self._settings = settings
        self._llm: Any = None

    @property
    def capabilities(self) -> Capabilities:
        """Grouped: which requests share a batch changes sampled text in vLLM too."""
        return Capabilities(
            name="vllm",
            model=self._settings.model,
            constraints=frozenset({"regex", "json_schema"}),
            group_size=self._settings.group_size,
            max_concurrency=self._settings.group_size,
        )

    async def answer(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Answer], None]:
        """Answer all requests as one batch."""
        llm = self._load()
        conversations = [
            [{"role": m.role, "content": m.content} for m in request.messages]
            for request in requests
        ]
        parameters = [sampling_params(request) for request in requests]
        try:
            outputs = llm.chat(conversations, parameters, use_tqdm=False)
        except _vllm_errors() as exc:
            raise TeacherError(
                f"vLLM failed on a group of {len(requests)} requests: {exc}",
                hint="check that prompt plus max_tokens fit the model's context and that the "
                "constraint is supported; complete groups are kept",
            ) from exc
        for position, output in enumerate(outputs):
            yield position, _to_answer(output)

    async def close(self) -> None:
        """Free the model and its GPU memory."""
        self._llm = None

    def _load(self) -> Any:
        if self._llm is None:
            vllm = import_vllm()
            try:
                self._llm = vllm.LLM(model=self._settings.model, **self._settings.engine_args)
            except _vllm_errors(OSError, TypeError) as exc:
                raise TeacherError(
                    f"vLLM cannot load {self._settings.model!r}: {exc}",
                    hint="check teachers.NAME.model (a hub id or a folder), "
                    "teachers.NAME.engine_args and the free GPU memory",
                ) from exc
        return self._llm


def import_vllm() -> Any:
    """The vLLM module.

    Raises:
        TeacherError: It is missing, or older than the API used here.
    """
    try:
        import vllm
    except ImportError as exc:
        raise TeacherError(f"this teacher needs vLLM ({exc})", hint=f"run: {_INSTALL}") from exc
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

    return (VLLMError, ValueError, RuntimeError, *more)


def sampling_params(request: Request) -> Any:
    """VLLM's ``SamplingParams`` of a request."""
    from vllm import SamplingParams

    return SamplingParams(
        temperature=request.temperature,
        top_p=request.top_p,
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
    return Answer(
        text=completion.text,
        finish_reason=_FINISH_REASONS.get(completion.finish_reason, "error"),
        num_prompt_tokens=len(output.prompt_token_ids or ()),
        num_completion_tokens=len(completion.token_ids),
    )
