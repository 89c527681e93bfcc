"""Settings of the benchmarks that curriculum and evaluation share.

A recipe lists ``[[benchmarks]]``. An entry with ``use = "math500"`` begins with the bundled
description ``pipeline/data/benchmarks/math500.toml``, and its own fields override that one's; an
entry without ``use`` describes a benchmark of the user's.
"""

from __future__ import annotations

import re
import tomllib
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

import pipeline
from pipeline.settings.addresses import Link
from pipeline.settings.base import Settings, execution_only

BUNDLED = Path(pipeline.__path__[0]) / "data" / "benchmarks"
"""Folder of the bundled descriptions."""
UNPINNED = "unpinned"
"""Stands for a commit that is the user's to choose."""
Grader = Literal["math", "stdin", "humaneval", "humaneval_plus", "livecodebench", "none"]
_URL = ("url", "sha256")
_HUB = ("hub_id", "revision", "hub_files", "release", "files_sha256")
_RELEASE = re.compile(r"release_v([1-9])")


class ReadingSettings(Settings):
    """How the rows of a file become items.

    None of this names a version: the items that were read do.
    """

    id_field: str = execution_only("id")
    """Empty: the file has no ids and items are numbered by row."""
    question_field: str = execution_only("question")
    strip_suffix: str = execution_only("")
    """Instruction text at the end of each question that is not part of the item."""
    question_after: str = execution_only("")
    """The question begins after the first occurrence of this text, which every row must hold."""
    question_until: tuple[str, ...] = execution_only(())
    """The question ends where one of these texts first occurs; every row must hold one."""
    grader: Grader | None = execution_only(None)
    """``math``: compare answers. Code: ``stdin`` runs programs on ``tests_field``; ``humaneval``,
    ``humaneval_plus`` and ``livecodebench`` run the tests as those publish them. ``none``: the
    file has questions only. By default ``math`` or ``stdin``, by the domain."""
    answer_field: str = execution_only("answer")
    """Maths: the gold answer. Empty: only the questions are read, to keep them out of training
    data; such a benchmark is not evaluated on."""
    answer_after: str = execution_only("")
    """The gold answer follows the last occurrence of this text, which every row must hold."""
    answer_type: Literal["any", "integer", "expression", "numeric"] = execution_only("any")
    """Kind of all answers. ``integer`` requires it of the file."""
    answer_type_field: str = execution_only("")
    """Column with the kind of each answer, in the words of OlympiadBench."""
    multiple_field: str = execution_only("")
    """Column that says whether the answer lists several, in any order."""
    unit_field: str = execution_only("")
    tolerance_field: str = execution_only("")
    """Column with the absolute error that an answer may have."""
    tests_field: str = execution_only("tests")
    """Code graded by ``stdin``: list of {input, output} pairs for a program that reads standard
    input. Empty: as an empty ``answer_field``."""
    date_field: str = execution_only("")
    """Column with each item's date (ISO), for ``date_from`` and ``date_until``."""
    label_fields: dict[str, str] = execution_only({})
    """Label to column, e.g. ``{subject = "subject"}``: what results are broken down by."""

    def resolve_grader(self, domain: str) -> Grader:
        """What answers are graded with; ``none`` where there is nothing to hold them against."""
        grader = self.grader or ("math" if domain == "math" else "stdin")
        needed = {"math": self.answer_field, "stdin": self.tests_field}.get(grader, "given")
        return grader if needed else "none"

    def columns(self) -> set[str]:
        """Columns without which a file cannot be read this way."""
        named = [self.id_field, self.question_field, self.date_field]
        if self.grader in ("humaneval", "humaneval_plus"):
            named += ["prompt", "entry_point", "test"]
        elif self.grader == "livecodebench":
            named += ["public_test_cases", "private_test_cases", "starter_code", "metadata"]
        elif self.grader == "math":
            named += [self.answer_field, self.answer_type_field, self.multiple_field]
        return {name for name in named if name}


class StatementsSettings(ReadingSettings):
    """A smaller file with the questions alone, enough to keep them out of training data."""

    url: Link = execution_only("")
    sha256: str = execution_only("")
    local_files: tuple[str, ...] = execution_only(())


class BenchmarkSettings(ReadingSettings):
    """One ``[[benchmarks]]`` entry: evaluated on, and kept out of the training data.

    The file is looked for in this order: ``path``; the folder of local copies; the hub; the URL.
    """

    name: str
    use: str = execution_only("")
    """Name of a bundled description, whose values the entry's own override."""
    domain: Literal["math", "code"]
    licence: str = execution_only("")
    """Of the file, as its publisher states it."""
    samples_per_item: int | None = execution_only(None, ge=1)
    """k of this benchmark's avg@k; none: ``evaluation.samples_per_item``. Evaluations name it in
    their versions; data kept clean of the benchmark does not depend on it."""

    path: str = execution_only("")
    """JSONL (optionally .gz) or Parquet file relative to the recipe, or a folder with the files of
    the hub's repository."""
    hub_id: str = execution_only("")
    """Dataset on the Hugging Face hub."""
    revision: str = execution_only(UNPINNED)
    """Commit of it."""
    hub_files: tuple[str, ...] = execution_only(())
    release: str = execution_only("")
    """LiveCodeBench's, e.g. ``release_v5``: its files are ``test.jsonl`` to ``test5.jsonl``."""
    hub_endpoint: Link | None = execution_only(None)
    """Another server with the hub's interface."""
    url: Link = execution_only("")
    """https address of one file; it wants ``sha256``."""
    local_files: tuple[str, ...] = execution_only(())
    """Names under which a folder of local copies may hold it; these always may:
    ``<name>.jsonl``, ``<name>.jsonl.gz``, ``<name>.parquet``, a folder ``<name>`` of the hub's."""
    statements: StatementsSettings | None = execution_only(None)
    """Read instead of the whole benchmark to decontaminate, where no ``path`` is given."""
    forms: dict[str, ReadingSettings] = execution_only({})
    """Other column layouts in which the same items are published; the first layout whose columns a
    file has is used, the entry's own before these."""

    date_from: date | None = execution_only(None)
    date_until: date | None = execution_only(None)
    """Items dated earlier or later than these days do not belong to the benchmark."""
    expected_items: int | None = execution_only(None)
    sha256: str | None = execution_only(None)
    """Hash of the file, of its uncompressed content where it is a .gz; another content refuses the
    run (exit 3)."""
    files_sha256: dict[str, str] = execution_only({})
    """The same for each of several files; looked at before answers are graded."""
    content_sha256: str | None = execution_only(None)
    """Hash of the items themselves (questions, answers, tests, in no order), whatever file they
    come from; other items refuse the run (exit 3)."""
    ids_sha256: str | None = execution_only(None)
    """Hash of the sorted ids, one a line."""
    max_tests_mib: int = execution_only(1024, ge=1)
    """Most that one item's packed tests may unpack to."""

    prompt: str = execution_only("")
    """The task as it is put to the model, with ``{question}``; the student's chat format adds its
    own instruction on the form of answers. Empty: the question alone."""
    prompt_functional: str = execution_only("")
    """The same for items that give ``{starter_code}``."""
    labels: dict[str, str] = execution_only({})
    """Labels of all items."""
    time_limit_s: float | None = execution_only(None, gt=0)
    """Of one test, as published; none: ``evaluation.code_timeout_s``."""
    within_contract: bool = execution_only(False)
    """HumanEval+: leave out inputs that break the problem's contract. EvalPlus counts them, and so
    does every published score."""

    @model_validator(mode="before")
    @classmethod
    def _use_bundled(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not values.get("use"):
            return values
        merged = read_bundled(str(values["use"]))
        # Another place than the bundled one has its own files; their layout stays.
        if values.get("path") or values.get("hub_id"):
            merged = _without(merged, _URL)
        if values.get("hub_id", merged.get("hub_id")) != merged.get("hub_id"):
            merged = _without(merged, _HUB)
        if values.get("url"):
            merged = _without(merged, _HUB)
        return {**merged, **values}

    @model_validator(mode="after")
    def _has_a_place(self) -> BenchmarkSettings:
        if self.release and not _RELEASE.fullmatch(self.release):
            raise ValueError(f"release should be like release_v5, got {self.release!r}")
        if self.url and not self.url.startswith(("https://", "http://")):
            raise ValueError(f"benchmark {self.name!r}: url should begin with https://")
        if self.url and not self.sha256:
            raise ValueError(f"benchmark {self.name!r}: a url wants the sha256 of its file")
        return self

    @property
    def is_scored(self) -> bool:
        """Whether there is something to score answers with."""
        return self.scored_by != "none"

    @property
    def scored_by(self) -> Grader:
        """The grader of a file in the entry's own layout."""
        return self.resolve_grader(self.domain)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files in the hub's repository, in order."""
        if self.hub_files or not self.release:
            return self.hub_files
        last = int(self.release.removeprefix("release_v"))
        return ("test.jsonl", *(f"test{number}.jsonl" for number in range(2, last + 1)))

    @property
    def layouts(self) -> list[ReadingSettings]:
        """The entry's own layout, then the others that its file may have."""
        others: list[ReadingSettings] = [*self.forms.values()]
        return [self, *others, *([self.statements] if self.statements else [])]


def _without(values: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


@cache
def read_bundled(name: str) -> dict[str, Any]:
    """The values of a bundled description.

    Raises:
        ValueError: There is none of that name.
    """
    path = BUNDLED / f"{name}.toml"
    known = sorted(file.stem for file in BUNDLED.glob("*.toml"))
    if name not in known:
        raise ValueError(f"no bundled benchmark is named {name!r}; there are {', '.join(known)}")
    return tomllib.loads(path.read_text(encoding="utf-8"))
