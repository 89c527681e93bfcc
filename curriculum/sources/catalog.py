"""One object per ``[[curriculum.sources]]`` entry: its parts, its rows, its parser, its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from curriculum.candidates import Candidate
from curriculum.sources import open_code_reasoning as ocr
from curriculum.sources import open_thoughts, synthesized
from curriculum.sources.parts import RawRow, SourceFile, SourcePart
from curriculum.sources.reading import Schema, iterate_rows, read_file, read_part, split_file
from pipeline.errors import SourceError
from pipeline.hashing import file_sha256
from pipeline.manifest import InputRef, Version
from pipeline.records import Rejected
from pipeline.settings.recipe import Recipe
from pipeline.settings.sources import SourceSettings

__all__ = ["CARDS", "OpenedSource", "Parser", "RawRow", "SourcePart", "open_source"]

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
        if self.settings.kind == "open_code_reasoning":
            return ocr.parse_row(raw, self.settings, self.questions)
        if self.settings.kind == "open_thoughts2":
            return open_thoughts.parse_row(raw, self.settings)
        return synthesized.parse_row(raw, self.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSource:
    """A source whose origin exists and is pinned; can be sent to a process."""

    recipe: Recipe
    settings: SourceSettings
    inputs: list[InputRef]
    files: tuple[SourceFile, ...]

    @property
    def name(self) -> str:
        """The source's name in the recipe."""
        return self.settings.name

    def parts(self, batch_rows: int, spool: Path) -> Iterator[SourcePart]:
        """Cut the source into parts of at most ``batch_rows`` rows, always the same.

        Args:
            batch_rows: Most rows of a part.
            spool: Folder of this source alone, for what must be unpacked or downloaded first. It
                must stay as long as parts are read.

        Raises:
            SourceError: A file cannot be read as documented.
        """
        schema = schema_of(self.settings)
        numbers = count()
        for file_number, file in enumerate(self.files):
            folder = spool / f"{file_number:04d}-{file.revision[:16]}"
            for part in split_file(file.path, schema, batch_rows, folder):
                yield replace(part, index=next(numbers), file=file_number)

    def read(self, part: SourcePart) -> Iterator[RawRow]:
        """The rows of a part; any process that sees the files may read them.

        Raises:
            SourceError: A file changed or cannot be read as documented.
        """
        file = self.files[part.file]
        rows = read_part(part, schema_of(self.settings), file.path)
        for position, values in enumerate(rows, start=part.start):
            yield RawRow(file.revision, file.name, position, values)

    def release(self, part: SourcePart) -> None:
        """Say that a part's rows are stored, so that what was downloaded for it may go."""

    def parser(self) -> Parser:
        """The source's parser, with the join's questions loaded."""
        questions = ocr.load_questions(self.recipe, self.settings.questions)
        return Parser(settings=self.settings, questions=questions)

    def rows(self) -> Iterator[RawRow]:
        """Stream the source's rows, always in the same order.

        Raises:
            SourceError: A file cannot be read as documented.
        """
        for file in self.files:
            yield from read_source_file(self.settings, file.path, file.revision)


_SYNTHESIZED = ("solution", "final_answer", "agreement", "method")


def schema_of(settings: SourceSettings) -> Schema:
    """The columns that a source's files have."""
    if settings.kind == "synthesized":
        return Schema(required=_SYNTHESIZED)
    module = ocr if settings.kind == "open_code_reasoning" else open_thoughts
    return Schema(columns=module.COLUMNS, required=module.REQUIRED)


def read_source_file(settings: SourceSettings, path: Path, revision: str) -> Iterator[RawRow]:
    """Stream one local file in a source's schema.

    Raises:
        SourceError: The file is missing, unreadable, empty or has other columns.
    """
    schema = schema_of(settings)
    if schema.columns is None:
        rows = iterate_rows(path, schema.required)
    else:
        rows = read_file(path, schema.columns, schema.required)
    for position, values in enumerate(rows):
        yield RawRow(revision, path.name, position, values)


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
        files = _version_files(version)
        return OpenedSource(recipe=recipe, settings=settings, inputs=[ref], files=files)
    files = _local_files(recipe, settings.name, settings.paths)
    joined = _local_files(
        recipe, f"{settings.name}:questions", [entry.path for entry in settings.questions]
    )
    inputs = [InputRef(name=f"{settings.name}:{f.name}", version=f.revision) for f in files]
    inputs += [
        InputRef(name=f"{settings.name}:questions:{f.name}", version=f.revision) for f in joined
    ]
    return OpenedSource(recipe=recipe, settings=settings, inputs=inputs, files=files)


def _version_files(version: Version) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(name=shard.path, revision=version.name, path=version.folder / shard.path)
        for shard in version.manifest.shards
    )


def _local_files(
    recipe: Recipe, name: str, paths: list[str] | tuple[str, ...]
) -> tuple[SourceFile, ...]:
    """Name local files by their content, so that moving them changes no version."""
    files = []
    for relative in paths:
        path = recipe.file(relative)
        if not path.is_file():
            raise SourceError(
                f"source {name!r}: file not found: {path}",
                hint="check `paths` in the recipe (relative to the recipe's folder)",
            )
        files.append(SourceFile(name=path.name, revision=file_sha256(path), path=path))
    return tuple(files)
