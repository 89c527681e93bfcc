"""The student as an engine: its checkpoint in this process, with continuous batching.

One thread owns the model. Requests reach it through a queue and take a slot as soon as one is free;
each has its own random stream, so its text does not depend on what else is asked.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from evaluation.checkpoints import hash_checkpoint, load_student
from evaluation.decoding.batching import Batcher, Generated, Job
from evaluation.decoding.choice import Sampling
from evaluation.decoding.plan import DecodingPlan
from evaluation.threads import use_threads
from pipeline import console
from pipeline.errors import PipelineError, TeacherError
from pipeline.hashing import code_version, content_hash
from pipeline.settings.evaluation import EvaluationSettings
from pipeline.student import BOS_ID, EOS_ID, decode, processor
from promptcot.engines.protocol import Answer, Capabilities, Request

_CODE = ("evaluation.decoding", "trainer.model")
"""Packages that can change a text; stored answers of other code are not used."""


_BEAT_S = 1.0


@dataclass(eq=False, slots=True)
class _Ask:
    request: Request
    prompt: tuple[int, ...]
    future: Future[Answer] = field(default_factory=Future)


class StudentEngine:
    """Answers text completions; the model loads with the first one.

    Args:
        checkpoint: A Mamba-2 folder.
        settings: Slots, threads, lengths.
        plan: Device and precision.

    Raises:
        SourceError: The folder holds no model.
    """

    def __init__(self, checkpoint: Path, settings: EvaluationSettings, plan: DecodingPlan) -> None:
        self._checkpoint = checkpoint
        self._settings = settings
        self._plan = plan
        how = [plan.as_json(), settings.batch_size, code_version(*_CODE)]
        self._model = f"{hash_checkpoint(checkpoint)}@{content_hash(how)}"
        self._inbox: SimpleQueue[_Ask | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._sampling: Sampling | None = None
        self.num_busy = 0
        """Slots at work."""
        self.num_tokens = 0
        """Tokens generated so far."""
        self.seconds = 0.0
        """Time at work since the model was loaded."""
        self.watch: Callable[[], None] = _ignore
        """Called about once a second while it works, from its thread."""

    @property
    def capabilities(self) -> Capabilities:
        """Independent requests; as many wait as are at work, so that no slot stays empty."""
        return Capabilities(
            name="student",
            model=self._model,
            constraints=frozenset(),
            group_size=None,
            max_concurrency=2 * self._settings.batch_size,
        )

    async def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """Answer one request when it has had a slot.

        Raises:
            TeacherError: A request of another kind than this engine answers.
            SourceError: The checkpoint cannot be loaded.
            ConfigError: The kernels cannot run here.
        """
        (request,) = requests
        ask = _Ask(request, _encode(request))
        wanted = read_sampling(request)
        self._sampling = self._sampling or wanted
        if wanted != self._sampling:
            raise TeacherError(
                f"the student's slots sample by {self._sampling}, a request wants {wanted}",
                hint="evaluate each set of sampling settings in a run of its own",
            )
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="student", daemon=True)
            self._thread.start()
        self._inbox.put(ask)
        return [await asyncio.wrap_future(ask.future)]

    async def close(self) -> None:
        """Free the model, after the step that is running."""
        if self._thread is not None:
            self._inbox.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def _serve(self) -> None:
        """The thread: from the inbox into slots, from slots to those who wait."""
        import torch

        waiting: set[_Ask] = set()
        # What stands where something unforeseen ends the thread, which then shows it itself.
        error: Exception | None = TeacherError(
            "the student's thread broke off", hint="report this with the traceback that follows"
        )
        try:
            with use_threads(self._plan.num_threads):
                self._run(waiting)
            error = None
        except torch.OutOfMemoryError as exc:
            error = TeacherError(
                f"GPU memory ran out with {self._settings.batch_size} slots: {exc}",
                hint='lower evaluation.batch_size, or set evaluation.state_dtype = "bfloat16"',
            )
        except (PipelineError, OSError, RuntimeError, ValueError) as exc:
            error = exc
        finally:
            if error is not None:
                self._refuse(waiting, error)

    def _refuse(self, waiting: set[_Ask], error: Exception) -> None:
        """Tell those who wait, and whoever still comes, until the engine is closed."""
        while True:
            for ask in waiting:
                if ask.future.set_running_or_notify_cancel():
                    ask.future.set_exception(error)
            waiting.clear()
            late = self._inbox.get()
            if late is None:
                return
            waiting.add(late)

    def _run(self, waiting: set[_Ask]) -> None:
        batcher, last = self._open(), time.monotonic()
        while True:
            while batcher.is_idle or not self._inbox.empty():
                new = self._inbox.get()
                if new is None:
                    return
                waiting.add(new)
                batcher.add(Job(new, new.prompt, new.request.seed, new.request.max_tokens))
            for ask in [ask for ask in waiting if ask.future.cancelled()]:
                batcher.drop(ask)
                waiting.discard(ask)
            start = time.monotonic()
            for ended in batcher.step():
                waiting.discard(ended.tag)
                if ended.tag.future.set_running_or_notify_cancel():
                    ended.tag.future.set_result(_to_answer(ended))
            end = time.monotonic()
            self.num_busy, self.num_tokens = batcher.num_busy, batcher.num_tokens
            self.seconds += end - start
            if end - last > _BEAT_S:
                last = end
                self.watch()

    def _open(self) -> Batcher[_Ask]:
        from evaluation.decoding.loop import DecodeOptions, Decoder

        plan, settings = self._plan, self._settings
        decoder = Decoder(
            load_student(self._checkpoint, plan),
            settings.batch_size,
            sampling=self._sampling,
            options=DecodeOptions(
                state_dtype=plan.state_dtype, kernels=plan.kernels, use_graph=settings.cuda_graph
            ),
        )
        if not decoder.rows_agree():
            console.warn(
                f"on this machine a step of {settings.batch_size} slots rounds differently from "
                "row to row: a text may depend on its slot. Another evaluation.batch_size or "
                "num_threads may not."
            )
        return Batcher(decoder, end_token=EOS_ID, steps_per_check=settings.steps_per_check)


def _ignore() -> None:
    """Nobody watches."""


def _encode(request: Request) -> tuple[int, ...]:
    unknown = request.constraint is not None or request.stop or request.min_p
    if request.template != "none" or unknown:
        raise TeacherError(
            "the student in this process continues texts, without chat format, constraint, stop "
            "texts or min_p",
            hint="serve the checkpoint with vLLM for these, and ask it by engine = NAME",
        )
    text = "".join(message.content for message in request.messages)
    return (BOS_ID, *processor().encode(text))


def read_sampling(request: Request) -> Sampling:
    """How a request wants tokens chosen."""
    return Sampling(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        repetition_penalty=request.repetition_penalty,
    )


def _to_answer(ended: Generated[_Ask]) -> Answer:
    return Answer(
        text=decode(ended.tokens),
        finish_reason=ended.reason,
        num_prompt_tokens=len(ended.tag.prompt),
        num_completion_tokens=len(ended.tokens),
    )
