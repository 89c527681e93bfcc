"""Scores from vLLM: a server's prompt log-probabilities, or the engine in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pipeline.settings.recipe import Recipe
from pipeline.settings.refinement import ScorerSettings
from promptcot.engines.failures import first_failure
from promptcot.engines.first_replies import FirstReplies
from promptcot.engines.prompt_logprobs import TokenLogprob, place_tokens, score_http
from promptcot.engines.vllm import LoadedModel, refusals
from promptcot.scoring_transformers import identify_folder

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
    """vLLM in this process.

    Raises:
        SourceError: The model is a folder without one.
    """

    def __init__(self, settings: ScorerSettings, recipe: Recipe) -> None:
        self._name, path = settings.model, settings.model
        if (folder := recipe.file(settings.model)).is_dir():
            self._name, path = identify_folder(folder), str(folder)
        self._engine_args = settings.engine_args
        self._model = LoadedModel(path, settings.engine_args)
        self._first = FirstReplies()
        # The engine belongs to one event loop, which therefore outlives each call.
        self._runner = asyncio.Runner()

    @property
    def identity(self) -> str:
        """The model's name, a folder's weights, and the arguments it is loaded with."""
        arguments = ",".join(f"{k}={v}" for k, v in sorted(self._engine_args.items()))
        return f"vllm:{self._name}:{arguments}"

    def group(self, texts: Sequence[str]) -> list[list[int]]:
        """Consecutive texts; vLLM composes its batches itself."""
        return _cut(len(texts))

    def score(self, texts: Sequence[str]) -> list[list[TokenLogprob] | None]:
        """All at once; each text generates the one token that vLLM insists on."""
        return self._runner.run(self._score_all(texts))

    async def _score_all(self, texts: Sequence[str]) -> list[list[TokenLogprob] | None]:
        await self._model.load()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._score_one(text)) for text in texts]
        except ExceptionGroup as failures:
            raise first_failure(failures) from None
        return [task.result() for task in tasks]

    async def _score_one(self, text: str) -> list[TokenLogprob] | None:
        from vllm import SamplingParams

        sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        try:
            output = await self._model.generate(await self._model.tokenize(text), sampling)
        except refusals() as exc:
            self._first.note_refusal(
                f"vLLM refused to score a text: {exc}",
                "raise synthesis.refinement.scorer.engine_args.max_model_len if texts are longer",
            )
            return None
        self._first.note_answer()
        pairs: list[tuple[str, float] | None] = []
        for entries in output.prompt_logprobs:
            entry = next(iter(entries.values())) if entries else None
            pairs.append((entry.decoded_token or "", entry.logprob) if entry else None)
        return place_tokens(text, pairs)

    def close(self) -> None:
        """Stop the engine's processes and free the model."""
        self._model.close()
        self._runner.close()


def _cut(count: int) -> list[list[int]]:
    return [list(range(start, min(count, start + _GROUP))) for start in range(0, count, _GROUP)]
