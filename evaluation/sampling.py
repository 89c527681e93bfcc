"""Draw samples: from a checkpoint in this process or from one of the recipe's teachers.

Whatever answers is an engine, and every finished sample is stored under a hash of what determines
it in ``<out>/evaluation/answers``: a killed run asks for what is missing only, and grading again
samples nothing. Every sample has a seed of its own, so neither order nor batch, neither a kill nor
another benchmark changes a text.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from evaluation.decoding.plan import plan_decoding
from evaluation.grading import split_answer, split_completion
from evaluation.student_engine import StudentEngine
from evaluation.transformer_engine import TransformerEngine
from pipeline import console
from pipeline.benchmark_items import BenchmarkItem
from pipeline.errors import TeacherError
from pipeline.hashing import derive_seed
from pipeline.records import FinishReason, Message
from pipeline.settings.evaluation import EvaluationSettings
from pipeline.settings.recipe import Recipe
from pipeline.stage_events import Spending
from pipeline.student import THINK_CLOSE, THINK_OPEN, render_prompt, user_turn
from promptcot.engines.account import Account
from promptcot.engines.asks import Call
from promptcot.engines.ledger import sum_ledger
from promptcot.engines.protocol import Answer, Engine, Request
from promptcot.engines.registry import make_engine
from promptcot.engines.teacher import Teacher

_MINUTE_S, _HOUR_S = 60, 3600


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One sample to be drawn for one item."""

    item: BenchmarkItem
    sample: int
    """Number of the sample, from 0."""

    @property
    def id(self) -> str:
        """The row's id."""
        return f"{self.item.benchmark}/{self.item.id}/{self.sample}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the model wrote after a prompt."""

    text: str
    thinking: str
    answer: str | None
    """What follows the thinking; none when the thought never ends."""
    finish_reason: FinishReason
    num_tokens: int
    """Without the end token."""
    num_prompt_tokens: int
    seed: int
    prompt_hash: str

    @property
    def truncated(self) -> bool:
        """Whether the token limit ended it."""
        return self.finish_reason == "length"


def make_request(request: SampleRequest, settings: EvaluationSettings) -> Request:
    """What is asked for one sample."""
    item = request.item
    turn = Message(role="user", content=user_turn(item.question, item.domain))
    is_student = uses_student_format(settings)
    text = Message(role="user", content=render_prompt([turn]))
    return Request(
        messages=(text if is_student else turn,),
        template="none" if is_student else "chat",
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        repetition_penalty=settings.repetition_penalty,
        max_tokens=settings.max_new_tokens,
        seed=derive_seed(settings.seed, "evaluation", item.benchmark, item.id, str(request.sample)),
    )


def uses_student_format(settings: EvaluationSettings) -> bool:
    """Whether prompts are the student's text, which ends inside an open thought."""
    if settings.is_local:
        return settings.engine == "student"
    return settings.prompt_format == "student"


class Sampler:
    """Samples of one checkpoint or teacher; use as a context manager.

    Args:
        teacher: What answers, with its stored answers.
        settings: How samples are drawn.
        label: The stage, as the progress line and the ledger call it.
        student: The engine whose slots the progress line tells of.
        spending: Reads the ledger; none where nobody is paid.
    """

    def __init__(
        self,
        teacher: Teacher,
        settings: EvaluationSettings,
        label: str,
        student: StudentEngine | None = None,
        *,
        spending: Spending | None = None,
    ) -> None:
        self.spending = spending
        self._teacher = teacher
        self._settings = settings
        self._label = label
        self._student = student
        self._open = ExitStack()
        self._started: Call | None = None

    def __enter__(self) -> Sampler:
        self._open.enter_context(self._teacher)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def start(self, requests: Sequence[SampleRequest]) -> None:
        """Begin with all samples at once, so that no slot waits while answers are graded.

        Without effect where the engine wants groups: these are the batches of :meth:`sample`.
        """
        if self._teacher.capabilities.group_size is not None:
            return
        progress = _Progress(len(requests), self._student)
        advance = self._open.enter_context(
            console.progress("samples", len(requests), "samples", progress.describe)
        )
        if self._student is not None:
            self._student.watch = lambda: advance(0)
        asked = [make_request(request, self._settings) for request in requests]

        def note(amount: int) -> None:
            progress.add(amount)
            advance(amount)

        self._started = self._teacher.start_all(asked, self._label, note)

    def sample(self, requests: Sequence[SampleRequest]) -> list[Completion]:
        """Samples in the order of the requests, once all of them are stored.

        Raises:
            TeacherError: The engine failed, or has no answer to some of the requests.
            SourceError: The checkpoint cannot be loaded.
            StoreError: The stored answers cannot be read or written.
        """
        asked = [make_request(request, self._settings) for request in requests]
        is_shown = self._started is None
        answers = self._teacher.answer_all(asked, self._label, is_shown=is_shown)
        failed = [
            (request.id, answer.detail)
            for request, answer in zip(requests, answers, strict=True)
            if answer.finish_reason == "error"
        ]
        if failed:
            raise TeacherError(
                f"{len(failed)} of {len(requests)} samples have no answer; the first, "
                f"{failed[0][0]}: {failed[0][1]}",
                hint="nothing is scored with samples missing: correct the cause (often prompt plus "
                "evaluation.max_new_tokens over the server's context) and run again; the other "
                "samples are kept",
            )
        return [self._read(*pair) for pair in zip(asked, answers, strict=True)]

    def cancel(self) -> None:
        """End all work, from any thread."""
        self._teacher.cancel()

    def _read(self, request: Request, answer: Answer) -> Completion:
        if request.template == "none":
            thinking, final = split_completion(answer.text)
        else:
            # A template that is applied in this process is known: the engine writes its tag.
            is_cut = answer.finish_reason == "length" and not self._settings.is_local
            final = split_answer(answer.text, is_cut=is_cut)
            before = answer.text.partition(THINK_CLOSE)[0]
            has_thought = final is None or THINK_CLOSE in answer.text or THINK_OPEN in answer.text
            thinking = before.partition(THINK_OPEN)[2] or before if has_thought else ""
        return Completion(
            text=answer.text,
            thinking=thinking.strip(),
            answer=final,
            finish_reason=answer.finish_reason,
            num_tokens=answer.num_completion_tokens,
            num_prompt_tokens=answer.num_prompt_tokens,
            seed=request.seed,
            prompt_hash=request.prompt_hash,
        )


class _Progress:
    """Rate, busy slots and time left, as the progress line tells them."""

    def __init__(self, total: int, student: StudentEngine | None) -> None:
        self._total = total
        self._student = student
        self._done = 0
        self._start: float | None = None
        self._before = 0
        """Samples that were stored when this began."""

    def add(self, amount: int) -> None:
        """Count samples that are there."""
        if self._start is None:
            self._start, self._before = time.monotonic(), amount
        self._done += amount

    def describe(self) -> str:
        """What follows the counts of the progress line."""
        if self._start is None:
            return ""
        seconds = time.monotonic() - self._start
        parts = []
        student = self._student
        if student is not None and student.num_tokens:
            rate = student.num_tokens / max(student.seconds, 1e-3)
            parts.append(f"{rate:,.0f} tokens/s, {student.num_busy} slots busy")
        new = self._done - self._before
        if new and self._done < self._total:
            parts.append(f"about {_clock(seconds / new * (self._total - self._done))} left")
        return ", ".join(parts)


def _clock(seconds: float) -> str:
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h"


def open_sampler(recipe: Recipe, checkpoint: Path | None, out: Path, label: str) -> Sampler:
    """What draws the samples of a run; no model is loaded before a sample is missing.

    Args:
        recipe: Its ``[evaluation]`` says what answers.
        checkpoint: Model folder; a teacher needs none.
        out: The run folder.
        label: The stage.

    Raises:
        ConfigError: A device that is not there, or a teacher that lacks a setting.
        SourceError: The folder holds no model.
        TeacherError: The engine cannot be used as configured.
    """
    settings = recipe.settings.evaluation
    engine: Engine
    student = None
    if not settings.is_local:
        chosen = recipe.settings.teachers[settings.engine]
        engine = make_engine(settings.engine, chosen, recipe, out / "evaluation")
    else:
        assert checkpoint is not None  # a local engine decodes a checkpoint
        plan = plan_decoding(settings)
        if settings.engine == "student":
            engine = student = StudentEngine(checkpoint, settings, plan)
        else:
            engine = TransformerEngine(checkpoint, settings, plan)
    # A teacher's samples are held to the recipe's budget, counted apart from those of synthesis.
    account = Account(recipe, out / "evaluation", is_limited=not settings.is_local)
    teacher = Teacher(engine, name=settings.engine, account=account)
    books = out / "evaluation"
    spending = None if settings.is_local else partial(sum_ledger, books, recipe.settings.teachers)
    return Sampler(teacher, settings, label, student, spending=spending)
