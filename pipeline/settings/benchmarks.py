"""Settings of the benchmarks that curriculum and evaluation share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.settings.base import Settings, execution_only


class BenchmarkSettings(Settings):
    """One ``[[benchmarks]]`` entry: evaluated on, and kept out of the training data."""

    name: str
    samples_per_item: int | None = Field(None, ge=1)
    """k of this benchmark's avg@k; none: ``evaluation.samples_per_item``."""
    path: str = execution_only(...)
    """JSONL (optionally .gz) or Parquet file, relative to the recipe."""
    domain: Literal["math", "code"]
    id_field: str = "id"
    """Empty: the file has no ids and items are numbered by row."""
    question_field: str = "question"
    answer_field: str = "answer"
    """Maths: the gold answer. Empty: only the questions are read, to keep them out of training
    data; such a benchmark is not evaluated on."""
    tests_field: str = "tests"
    """Code: list of {input, output} pairs for a program that reads standard input. Empty: as
    above."""
    expected_items: int | None = None
    sha256: str | None = None
    """Hash of the file; another content refuses the run (exit 3)."""
    strip_suffix: str = ""
    """Instruction text at the end of each question that is not part of the item."""
    question_after: str = ""
    """The question begins after the first occurrence of this text, which every row must hold."""
    question_until: tuple[str, ...] = ()
    """The question ends where one of these texts first occurs; every row must hold one."""

    @property
    def is_scored(self) -> bool:
        """Whether there is something to score answers with."""
        return bool(self.answer_field if self.domain == "math" else self.tests_field)
