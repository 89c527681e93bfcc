"""One object per ``[[curriculum.sources]]`` entry: its rows, its parser, and what names it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curriculum.candidates import Candidate
from curriculum.sources import open_code_reasoning as ocr
from curriculum.sources import open_thoughts, synthesized
from curriculum.sources.reading import file_inputs, iterate_rows, read_file, read_hub
from pipeline.manifest import InputRef, Version
from pipeline.records import Rejected
from pipeline.settings.recipe import Recipe
from pipeline.settings.sources import SourceSettings

RawRow = tuple[str, dict[str, Any]]
"""Revision of the file or dataset a row comes from, and the row."""

CARDS = {
    "open_code_reasoning": "open_code_reasoning",
    "open_thoughts2": "open_thoughts2",
    "synthesized": "promptcot",
}
"""Source kind to its hand-written card in ``data_cards/``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parser:
    """Turns raw rows of one source into candidates; small enough to send to a process."""

    settings: SourceSettings
    questions: ocr.QuestionTables = field(default_factory=lambda: ocr.QuestionTables({}))

    def parse(self, raw: RawRow) -> Candidate | Rejected:
        """Understand one row by its source's schema."""
        revision, row = raw
        if self.settings.kind == "open_code_reasoning":
            return ocr.parse_row(row, self.settings, revision, self.questions)
        if self.settings.kind == "open_thoughts2":
            return open_thoughts.parse_row(row, self.settings, revision)
        return synthesized.parse_row(row, self.settings, revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSource:
    """A source whose origin exists and is pinned."""

    recipe: Recipe
    settings: SourceSettings
    inputs: list[InputRef]
    version: Version | None = None
    """Verified traces, for a synthesized source."""

    @property
    def name(self) -> str:
        """The source's name in the recipe."""
        return self.settings.name

    def rows(self) -> Iterator[RawRow]:
        """Stream the source's rows, always in the same order.

        Raises:
            SourceError: A file or the hub dataset cannot be read as documented.
        """
        if self.version is not None:
            for row in synthesized.read_traces(self.version):
                yield self.version.name, row
        elif self.settings.hub_id:
            yield from self._hub_rows()
        else:
            for relative, ref in zip(self.settings.paths, self.inputs, strict=False):
                yield from read_source_file(self.settings, self.recipe.file(relative), ref.version)

    def _hub_rows(self) -> Iterator[RawRow]:
        revision = self.settings.revision or ""
        for config, split in _hub_parts(self.settings):
            columns = ocr.COLUMNS if self.settings.kind == "open_code_reasoning" else _OT2
            if config == "split_0":
                columns = {name: kind for name, kind in columns.items() if name != "index"}
            for row in read_hub(self.settings, columns, config=config, split=split):
                yield revision, row

    def parser(self) -> Parser:
        """The source's parser, with the join's questions loaded."""
        questions = ocr.load_questions(self.recipe, self.settings.questions)
        return Parser(settings=self.settings, questions=questions)


_OT2 = open_thoughts.COLUMNS


def _hub_parts(settings: SourceSettings) -> list[tuple[str | None, str]]:
    """(config, split) pairs: OpenCodeReasoning names its splits like its configs."""
    if settings.kind == "open_code_reasoning":
        configs = [settings.config] if settings.config else list(ocr.CONFIGS)
        return [(config, settings.split or config) for config in configs]
    return [(settings.config, settings.split or "train")]


def read_source_file(settings: SourceSettings, path: Path, revision: str) -> Iterator[RawRow]:
    """Stream one local file in a source's schema.

    Raises:
        SourceError: The file is missing, unreadable, empty or has other columns.
    """
    if settings.kind == "synthesized":
        required: tuple[str, ...] = ("solution", "final_answer", "agreement", "method")
        for row in iterate_rows(path, required):
            yield revision, row
        return
    module = ocr if settings.kind == "open_code_reasoning" else open_thoughts
    for row in read_file(path, module.COLUMNS, module.REQUIRED):
        yield revision, row


def open_source(recipe: Recipe, settings: SourceSettings, out: Path, *, plan: bool) -> OpenedSource:
    """Find a source's origin and what names it.

    Args:
        recipe: Resolves relative paths.
        settings: The source.
        out: Run folder, where a synthesized source lives.
        plan: Only look; never start synthesis.

    Raises:
        SourceError: A file is missing, or there are no verified traces yet.
    """
    if settings.kind == "synthesized" and not settings.paths:
        version = synthesized.find_version(recipe, out, may_synthesize=not plan)
        ref = InputRef(name=f"{settings.name}:synthesis/verified", version=version.name)
        return OpenedSource(recipe=recipe, settings=settings, inputs=[ref], version=version)
    if settings.hub_id:
        parts = ",".join(f"{config or 'default'}/{split}" for config, split in _hub_parts(settings))
        ref = InputRef(
            name=f"{settings.name}:{settings.hub_id}:{parts}", version=settings.revision or ""
        )
        inputs = [ref]
    else:
        inputs = file_inputs(recipe, settings.name, settings.paths)
    questions = [entry.path for entry in settings.questions]
    inputs += file_inputs(recipe, f"{settings.name}:questions", questions)
    return OpenedSource(recipe=recipe, settings=settings, inputs=inputs)
