"""Scores from vLLM: a server's prompt log-probabilities, or the engine in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pipeline.errors import TeacherError
from pipeline.settings.refinement import ScorerSettings
from promptcot.engines.prompt_logprobs import TokenLogprob, place_tokens, score_http

_GROUP = 256
"""Texts sent and stored together."""


class HttpScorer:
    """A vLLM server."""

    def __init__(self, settings: ScorerSettings) -> None:
        self._settings = settings
        self._has_answered = False

    @property
    def identity(self) -> str:
        """The model's name as the server knows it."""
        return f"http:{self._settings.model}"

    def group(self, texts: Sequence[str]) -> list[list[int]]:
        """Consecutive texts; the server composes its batches itself."""
        return _cut(len(texts))

    def score(self, texts: Sequence[str]) -> list[list[TokenLogprob] | None]:
        """All at once, as many in flight as the settings allow."""
        scored = asyncio.run(score_http(self._settings, texts, has_answered=self._has_answered))
        self._has_answered = True
        return scored

    def close(self) -> None:
        """Connections end with each call."""


class VllmScorer:
    """vLLM in this process."""

    def __init__(self, settings: ScorerSettings) -> None:
        self._settings = settings
        self._llm: Any = None

    @property
    def identity(self) -> str:
        """The model's name and the arguments it is loaded with."""
        arguments = ",".join(f"{k}={v}" for k, v in sorted(self._settings.engine_args.items()))
        return f"vllm:{self._settings.model}:{arguments}"

    def group(self, texts: Sequence[str]) -> list[list[int]]:
        """Consecutive texts; vLLM composes its batches itself."""
        return _cut(len(texts))

    def score(self, texts: Sequence[str]) -> list[list[TokenLogprob] | None]:
        """One call; each text generates the one token that vLLM insists on."""
        from vllm import SamplingParams

        sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        outputs = self._load().generate(list(texts), sampling, use_tqdm=False)
        scored: list[list[TokenLogprob] | None] = []
        for text, output in zip(texts, outputs, strict=True):
            pairs: list[tuple[str, float] | None] = []
            for entries in output.prompt_logprobs:
                entry = next(iter(entries.values())) if entries else None
                pairs.append((entry.decoded_token or "", entry.logprob) if entry else None)
            scored.append(place_tokens(text, pairs))
        return scored

    def close(self) -> None:
        """Free the model."""
        self._llm = None

    def _load(self) -> Any:
        if self._llm is None:
            try:
                from vllm import LLM
            except ImportError as exc:
                raise TeacherError(
                    f"scoring with vLLM needs it installed ({exc})",
                    hint='run: pip install "promptcot-mamba[vllm]"',
                ) from exc
            self._llm = LLM(model=self._settings.model, **self._settings.engine_args)
        return self._llm


def _cut(count: int) -> list[list[int]]:
    return [list(range(start, min(count, start + _GROUP))) for start in range(0, count, _GROUP)]
