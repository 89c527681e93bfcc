"""One object per ``[[curriculum.sources]]`` entry: its parts, its rows, its parser, its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from curriculum.candidates import Candidate
from curriculum.sources import mapping, open_thoughts, openr1_math, synthesized
from curriculum.sources import open_code_reasoning as ocr
from curriculum.sources.hub import HubSource, hub_patterns
from curriculum.sources.identity import identify
from curriculum.sources.parts import (
    RawRow,
    SourceFile,
    SourcePart,
    StoredFiles,
    stored_parts,
)
from curriculum.sources.questions import QuestionTables, load_questions
from curriculum.sources.reading import Schema, iterate_rows, read_file, read_part, split_file
from pipeline.errors import SourceError
from pipeline.manifest import InputRef, Version
from pipeline.records import Rejected
from pipeline.settings.recipe import Recipe
from pipeline.settings.sources import SourceSettings

__all__ = ["CARDS", "OpenedSource", "Parser", "RawRow", "SourcePart", "open_source"]

CARDS = {
    "open_code_reasoning": "open_code_reasoning",
    "open_code_reasoning2": "open_code_reasoning2",
    "open_thoughts2": "open_thoughts2",
    "open_thoughts": "open_thoughts",
    "open_thoughts_metadata": "open_thoughts",
    "openr1_math": "openr1_math",
    "mixture_of_thoughts": "mixture_of_thoughts",
    "promptcot_release": "promptcot_release",
    "synthesized": "promptcot",
    "mapping": "mapping",
}
"""Source kind to its hand-written card in ``data_cards/``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parser:
    """Turns raw rows of one source into candidates; small enough to send to a process."""

    settings: SourceSettings
    questions: QuestionTables = field(default_factory=lambda: QuestionTables({}))

    def parse(self, raw: RawRow) -> Candidate | Rejected:
        """Understand one row by its source's schema."""
        kind = self.settings.kind
        if kind == "open_thoughts2":
            return open_thoughts.parse_row(raw, self.settings)
        if kind == "open_code_reasoning":
            return ocr.parse_row(raw, self.settings, self.questions)
        if kind == "open_code_reasoning2":
            return ocr.parse_row_2(raw, self.settings, self.questions)
        if kind == "synthesized":
            return synthesized.parse_row(raw, self.settings)
        if kind == "openr1_math":
            return openr1_math.parse_row(raw, self.settings)
        return mapping.parse_row(raw, self.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSource:
    """A source whose origin exists and is pinned; can be sent to a process."""

    recipe: Recipe
    settings: SourceSettings
    inputs: list[InputRef]
    files: tuple[SourceFile, ...] = ()
    hub: HubSource | None = None
    """Where the rows come from instead of ``files``."""

    @property
    def name(self) -> str:
        """The source's name in the recipe."""
        return self.settings.name

    def parts(
        self, batch_rows: int, spool: Path, stored: StoredFiles | None = None
    ) -> Iterator[SourcePart]:
        """Cut the source into parts of at most ``batch_rows`` rows, always the same.

        Args:
            batch_rows: Most rows of a part.
            spool: Folder of this source alone, for what must be unpacked or downloaded first. It
                must stay as long as parts are read.
            stored: Files that need neither be cut nor downloaded.

        Raises:
            SourceError: A file cannot be read as documented.
        """
        schema = schema_of(self.settings)
        if self.hub is not None:
            parts = self.hub.parts(schema, batch_rows, spool, stored or {})
        else:
            parts = self._local_parts(schema, batch_rows, spool, stored or {})
        for index, part in enumerate(parts):
            yield replace(part, index=index)

    def _local_parts(
        self, schema: Schema, batch_rows: int, spool: Path, stored: StoredFiles
    ) -> Iterator[SourcePart]:
        for number, file in enumerate(self.files):
            if (part_rows := stored.get((file.name, file.revision))) is not None:
                yield from stored_parts(file, part_rows)
                continue
            folder = spool / f"{number:04d}-{file.revision[:16]}-{batch_rows}"
            for part in split_file(file.path, schema, batch_rows, folder):
                yield replace(part, file=file)

    def read(self, part: SourcePart) -> Iterator[RawRow]:
        """The rows of a part; any process that sees the files may read them.

        Raises:
            SourceError: A file changed or cannot be read as documented.
        """
        file = part.file
        if file is None:
            raise ValueError("a part of no source")
        if self.hub is not None:
            self.hub.ensure(part)
        rows = read_part(part, schema_of(self.settings), file.path)
        for position, values in enumerate(rows, start=part.start):
            yield RawRow(file.revision, file.name, position, values)

    def release(self, part: SourcePart) -> None:
        """Say that a part's rows are stored: what was downloaded for it may go.

        Whoever iterates over :meth:`parts` calls this for every part, in any order, those that a
        former run stored included.
        """
        if self.hub is not None:
            self.hub.release(part)

    def parser(self) -> Parser:
        """The source's parser, with the join's questions loaded."""
        questions = load_questions(self.recipe, self.settings.questions)
        return Parser(settings=self.settings, questions=questions)


_SCHEMAS = {
    "open_code_reasoning": Schema(columns=ocr.COLUMNS, required=ocr.REQUIRED),
    "open_code_reasoning2": Schema(columns=ocr.COLUMNS_2, required=ocr.REQUIRED_2),
    "open_thoughts2": Schema(columns=open_thoughts.COLUMNS, required=open_thoughts.REQUIRED),
    "openr1_math": Schema(columns=openr1_math.COLUMNS, required=openr1_math.REQUIRED),
}
_SYNTHESIZED = ("solution", "final_answer", "agreement", "method")


def schema_of(settings: SourceSettings) -> Schema:
    """The columns that a source's files have."""
    if settings.kind == "synthesized":
        return Schema(required=_SYNTHESIZED)
    if settings.kind in _SCHEMAS:
        return _SCHEMAS[settings.kind]
    spec = mapping.mapping_of(settings)
    return Schema(columns=mapping.columns_of(spec), required=mapping.required_of(spec))


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
    hub = HubSource(settings) if settings.hub_id else None
    files = _local_files(recipe, settings.name, settings.paths)
    inputs = [InputRef(name=f"{settings.name}:{f.name}", version=f.revision) for f in files]
    if hub is not None:
        name = f"{settings.name}:{settings.hub_id}:{','.join(hub_patterns(settings))}"
        inputs = [InputRef(name=name, version=settings.revision or "")]
    joined = _local_files(
        recipe, f"{settings.name}:questions", [entry.path for entry in settings.questions]
    )
    inputs += [
        InputRef(name=f"{settings.name}:questions:{f.name}", version=f.revision) for f in joined
    ]
    return OpenedSource(recipe=recipe, settings=settings, inputs=inputs, files=files, hub=hub)


def _version_files(version: Version) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(shard.path, version.name, version.folder / shard.path)
        for shard in version.manifest.shards
    )


def _local_files(recipe: Recipe, name: str, paths: Sequence[str]) -> tuple[SourceFile, ...]:
    """Name local files by their content, so that moving them changes no version."""
    files = []
    for relative in paths:
        path = recipe.file(relative)
        if not path.is_file():
            raise SourceError(
                f"source {name!r}: file not found: {path}",
                hint="check `paths` in the recipe (relative to the recipe's folder)",
            )
        files.append(SourceFile(path.name, identify(path), path))
    return tuple(files)
