"""A Transformer checkpoint as an engine: transformers' ``generate`` with static batches.

Prompts are chat messages in the model's own template. Rows of a batch are padded on the left, which
changes rounding, so batches are groups: stored whole and asked again whole. Tokens are chosen as
the student's are, each row by its own random stream.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.checkpoints import LoadedTransformer, hash_checkpoint, load_transformer
from evaluation.decoding.choice import Sampling, choose_tokens
from evaluation.decoding.plan import DecodingPlan
from evaluation.student_engine import read_sampling
from evaluation.threads import use_threads
from pipeline.errors import TeacherError
from pipeline.hashing import code_version, content_hash
from pipeline.settings.evaluation import EvaluationSettings
from pipeline.student import THINK_OPEN
from promptcot.engines.protocol import Answer, Capabilities, Request

if TYPE_CHECKING:
    from torch import Tensor


class TransformerEngine:
    """Answers chat requests; the model loads with the first group.

    Args:
        checkpoint: Folder of a causal model with its tokenizer.
        settings: Rows of a batch, threads.
        plan: Device and precision.

    Raises:
        SourceError: The folder holds no model.
    """

    def __init__(self, checkpoint: Path, settings: EvaluationSettings, plan: DecodingPlan) -> None:
        self._checkpoint = checkpoint
        self._settings = settings
        self._plan = plan
        how = [plan.device, plan.weights_dtype, plan.num_threads]
        how.append(code_version("evaluation.decoding"))
        name = hash_checkpoint(checkpoint, with_tokenizer=True)
        self._model = f"{name}@{content_hash(how)}"
        self._loaded: LoadedTransformer | None = None
        # One thread: the model is loaded, run and freed in it.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="transformer")

    @property
    def capabilities(self) -> Capabilities:
        """Groups of a batch's size."""
        return Capabilities(
            name="transformer",
            model=self._model,
            constraints=frozenset(),
            group_size=self._settings.batch_size,
            max_concurrency=1,
        )

    async def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """Run all requests as one batch, in a thread of its own.

        Raises:
            SourceError: The checkpoint cannot be loaded, or has no chat template.
            TeacherError: Requests that differ in how tokens are chosen.
        """
        is_cancelled = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, self._run, requests, is_cancelled)
        finally:
            # Without effect after an ordinary end; after a cancellation the thread stops soon.
            is_cancelled.set()

    async def close(self) -> None:
        """Free the model, once a cancelled batch has ended its step."""
        await asyncio.to_thread(self._executor.shutdown)
        self._loaded = None

    def _run(self, requests: Sequence[Request], is_cancelled: threading.Event) -> Sequence[Answer]:
        if self._loaded is None:
            self._loaded = load_transformer(self._checkpoint, self._plan)
        if len({read_sampling(request) for request in requests}) != 1:
            raise TeacherError(
                "the requests of one batch choose tokens in different ways",
                hint="evaluate each set of sampling settings in a run of its own",
            )
        batch = _Batch(self._loaded, requests)
        with use_threads(self._plan.num_threads):
            batch.generate(is_cancelled)
        return [] if is_cancelled.is_set() else batch.answers


class _Batch:
    """The requests of one call: those that fit into the model's context are generated together."""

    def __init__(self, loaded: LoadedTransformer, requests: Sequence[Request]) -> None:
        self._loaded = loaded
        self._requests = requests
        self._texts = [loaded.render(request.messages) for request in requests]
        self._prompts = [loaded.encode(text) for text in self._texts]
        self._answers: dict[int, Answer] = {}
        self._fitting = []
        for place, prompt in enumerate(self._prompts):
            if len(prompt) < loaded.context:
                self._fitting.append(place)
            else:
                detail = f"the prompt fills the model's context of {loaded.context} tokens"
                self._answers[place] = Answer("", "error", len(prompt), 0, detail)

    @property
    def answers(self) -> list[Answer]:
        """All answers, in the order of the requests."""
        return [self._answers[place] for place in range(len(self._requests))]

    def generate(self, is_cancelled: threading.Event) -> None:
        """Generate until all rows have ended."""
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        if not self._fitting:
            return
        loaded = self._loaded
        prompts = [self._prompts[place] for place in self._fitting]
        width = max(len(prompt) for prompt in prompts)
        limit = min(
            max(self._requests[place].max_tokens for place in self._fitting), loaded.context - width
        )
        ids = torch.tensor([[loaded.pad_id] * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        device = loaded.model.device
        output = loaded.model.generate(
            ids.to(device),
            attention_mask=mask.to(device),
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=limit,
                eos_token_id=sorted(loaded.end_ids),
                pad_token_id=loaded.pad_id,
            ),
            logits_processor=LogitsProcessorList([self._chooser(prompts, width)]),
            stopping_criteria=[_Stop(is_cancelled)],
        )
        for place, row in zip(self._fitting, output[:, width:].tolist(), strict=True):
            self._answers[place] = self._read(place, row)

    def _chooser(self, prompts: Sequence[Sequence[int]], width: int) -> _Chooser:
        sampling = read_sampling(self._requests[0])
        seeds = [self._requests[place].seed for place in self._fitting]
        return _Chooser(sampling, seeds, prompts, width)

    def _read(self, place: int, row: Sequence[int]) -> Answer:
        """Cut a row at its end token or its own limit."""
        limit = self._requests[place].max_tokens
        end = next((n for n, token in enumerate(row) if token in self._loaded.end_ids), len(row))
        written = list(row[: min(end, limit)])
        text = self._loaded.decode(written)
        # Templates of reasoning models may open the thought themselves.
        if self._texts[place].rstrip().endswith(THINK_OPEN):
            text = f"{THINK_OPEN}\n{text}"
        has_ended = end < min(len(row), limit)
        num_prompt = len(self._prompts[place])
        return Answer(text, "stop" if has_ended else "length", num_prompt, len(written))


class _Chooser:
    """Leaves ``generate`` one token a row: the one that the row's rules and stream choose."""

    def __init__(
        self,
        sampling: Sampling,
        seeds: Sequence[int],
        prompts: Sequence[Sequence[int]],
        width: int,
    ) -> None:
        self._sampling = sampling
        self._seeds = seeds
        self._prompts = prompts
        self._width = width
        self._penalties: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        import torch

        position = input_ids.shape[1] - self._width
        penalty = self._sampling.repetition_penalty
        if penalty != 1 and self._penalties is None:
            self._penalties = torch.ones(scores.shape, device=scores.device)
            for row, prompt in enumerate(self._prompts):
                self._penalties[row, sorted(set(prompt))] = penalty
        if self._penalties is not None and position:
            self._penalties.scatter_(1, input_ids[:, -1:], penalty)
        seeds = torch.tensor(self._seeds, device=scores.device)
        positions = torch.full_like(seeds, position)
        logits = scores.float().clone()
        chosen = choose_tokens(logits, self._sampling, seeds, positions, self._penalties)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


class _Stop:
    """Ends all rows when the group was cancelled."""

    def __init__(self, is_cancelled: threading.Event) -> None:
        self._is_cancelled = is_cancelled

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        import torch

        stops = self._is_cancelled.is_set()
        return torch.full((len(input_ids),), stops, dtype=torch.bool, device=input_ids.device)
