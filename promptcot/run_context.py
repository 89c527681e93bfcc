"""What the stages of one synthesis run share: recipe, folders, and teachers opened on first use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pydantic import BaseModel

from pipeline import console
from pipeline.errors import SourceError
from pipeline.hashing import file_sha256
from pipeline.manifest import LATEST, InputRef, Version, resolve_version
from pipeline.records import Rejected
from pipeline.settings.base import determining
from pipeline.settings.recipe import Recipe
from pipeline.settings.synthesis import Form
from pipeline.settings.teacher import TeacherSettings
from pipeline.stages import BatchStream, Stage
from promptcot.engines.account import Account
from promptcot.engines.ledger import sum_ledger
from promptcot.engines.protocol import Answer
from promptcot.engines.teacher import Teacher, open_teacher
from promptcot.parsing import Defect
from promptcot.stage_names import COMMANDS, STAGES

RecordT = TypeVar("RecordT", bound=BaseModel)


class SynthesisRun:
    """A context that opens each teacher at its first request and closes all at the end.

    A stage whose version exists asks for no teacher, so nothing is loaded for it.
    """

    def __init__(self, recipe: Recipe, out: Path, *, books: Path | None = None) -> None:
        self.recipe = recipe
        self.out = out
        self.books = out if books is None else books
        """The run folder whose stored answers, ledger and budget are used."""
        self.settings = recipe.settings.synthesis
        self._prices = recipe.settings.teachers
        self._teachers: dict[str, Teacher] = {}
        self._account: Account | None = None
        # Batches of a stage ask for their teachers from threads of their own.
        self._lock = threading.Lock()
        self._noted: set[str] = set()
        self._stack = ExitStack()

    def __enter__(self) -> SynthesisRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def root_seed(self) -> int:
        """The recipe's seed."""
        return self.recipe.settings.seed

    def folder(self, stage: str) -> Path:
        """Where a stage's versions live."""
        return self.out / "synthesis" / stage

    def teacher(self, name: str) -> Teacher:
        """The teacher of that name in the recipe, opened on first use."""
        with self._lock:
            if name not in self._teachers:
                settings = self.recipe.settings.teachers[name]
                if self._account is None:
                    self._account = self._stack.enter_context(Account(self.recipe, self.books))
                opened = open_teacher(
                    settings,
                    recipe=self.recipe,
                    out=self.out,
                    account=self._account,
                    name=name,
                )
                self._teachers[name] = self._stack.enter_context(opened)
            return self._teachers[name]

    def cancel(self) -> None:
        """End all that teachers are working on, for good; what waits for it fails at once."""
        with self._lock:
            teachers = list(self._teachers.values())
        for teacher in teachers:
            teacher.cancel()

    def stream(
        self, version: Version, record: type[RecordT], *, key: Callable[[RecordT], str]
    ) -> BatchStream:
        """Batches of a version's rows as records, read while they are worked on."""
        return BatchStream(
            rows=lambda: (record.model_validate(row) for row in version.rows()),
            num_rows=version.manifest.rows_out,
            size=self.settings.batch_size,
            key=key,
        )

    def resolve_form(self, wanted: Form, teacher: str) -> Form:
        """The form to ask for: ``constrained`` only where the engine can enforce it."""
        capabilities = self.teacher(teacher).capabilities
        if wanted == "free" or "regex" in capabilities.constraints:
            return wanted
        with self._lock:
            is_new = teacher not in self._noted
            self._noted.add(teacher)
        if is_new:
            console.warn(
                f"the engine {capabilities.name} cannot enforce a form: "
                f"teacher {teacher!r} is asked for the free one"
            )
        return "free"

    def previous(self, stage: str) -> Version:
        """The newest version of the stage before ``stage``.

        Raises:
            SourceError: It has not been built; the hint names the command that builds it.
        """
        before = STAGES[STAGES.index(stage) - 1]
        root = self.folder(before)
        if not (root / LATEST).is_file():
            raise SourceError(
                f"stage {stage} needs the output of stage {before}, and there is none in {root}",
                hint=f"run `python -m promptcot {COMMANDS[before]} --recipe {self.recipe.name} "
                f"--out {self.out}` first, or `python -m promptcot run` for all stages",
            )
        return resolve_version(root)

    def stage(
        self,
        name: str,
        *,
        record: type[BaseModel],
        settings: dict[str, Any],
        inputs: Sequence[InputRef],
        teachers: Iterable[str] = (),
    ) -> Stage:
        """A stage's identity: its settings, its teachers' settings, its inputs and our code."""
        scripts, described = [], {}
        for teacher in sorted(set(teachers)):
            teacher_settings = self.recipe.settings.teachers[teacher]
            values = determining(teacher_settings)
            # A script is named by its content: its path differs between machines.
            if (script := values.pop("script")) is not None:
                path = self.recipe.file(script)
                if path.is_file():
                    scripts.append(InputRef(name=f"script:{teacher}", version=file_sha256(path)))
            described[teacher] = values
        return Stage(
            name=name,
            root=self.folder(name),
            record=record,
            settings={
                "seed": self.root_seed,
                "batch_size": self.settings.batch_size,
                "teachers": described,
                **settings,
            },
            inputs=[*inputs, *scripts],
            packages=("pipeline", "promptcot"),
            unit=UNITS[name.partition("-")[0]],
            min_rows=self.settings.min_rows,
            concurrency=self._count_batches(name, described),
            cancel=self.cancel,
            spending=partial(sum_ledger, self.books, self._prices) if described else None,
        )

    def _count_batches(self, stage: str, teachers: Iterable[str]) -> int:
        """Batches in flight: enough that the busiest teacher never waits for the last replies."""
        if self.settings.max_batches_in_flight:
            return self.settings.max_batches_in_flight
        wanted = [_wanted_requests(self.recipe.settings.teachers[name]) for name in teachers]
        per_row = self.settings.solutions.samples_per_problem if stage == "solutions" else 1
        return 2 + -(-max(wanted, default=1) // (self.settings.batch_size * per_row))


def _wanted_requests(teacher: TeacherSettings) -> int:
    """Requests in open batches that keep a teacher busy.

    A batch stays open until its slowest reply is there, which takes several times as long as an
    ordinary one: most requests of the open batches have been answered already.
    """
    if teacher.engine == "embedded":
        # Groups go one after the other; a batch that waits for its turn is enough.
        return teacher.group_size
    return _OPEN_PER_SLOT * teacher.max_concurrency


_OPEN_PER_SLOT = 8
"""Simulated with log-normal latencies: 3 keep the engine full at a spread (sigma) of 0.5, 6 at 0.8
and 8 lose nothing worth naming at 1.0, which is how the lengths of chains of thought spread."""

UNITS = {
    "extracted": "seeds",
    "concepts": "seeds",
    "combinations": "combinations",
    "problems": "problems",
    "distinct": "problems",
    "judged": "problems",
    "solutions": "solutions",
    "verified": "solutions",
    "triples": "seeds",
    "refined": "seeds",
}
"""What a stage's input rows are, for people."""


def input_of(version: Version, stage: str) -> InputRef:
    """A previous stage's version as an input."""
    return InputRef(name=f"synthesis/{stage}", version=version.name)


def count_tokens(answers: Iterable[Answer]) -> dict[str, int]:
    """Tokens of answers, as the manifest records them."""
    listed = list(answers)
    return {
        "prompt": sum(answer.num_prompt_tokens for answer in listed),
        "completion": sum(answer.num_completion_tokens for answer in listed),
    }


def refuse_reply(row_id: str, stage: str, defect: Defect, answer: Answer) -> Rejected:
    """A row whose reply is not fit for use, with the beginning of that reply."""
    # Broken characters are one of the reasons to refuse a reply, and no file takes them.
    text = answer.text[:_REFUSED_CHARS].encode("utf-8", "replace").decode("utf-8")
    return Rejected(
        row_id=row_id, stage=stage, reason=defect.reason, detail=defect.detail, text=text
    )


_REFUSED_CHARS = 4000
"""Of a refused reply, kept for people to read; all of it is among the stored answers."""
