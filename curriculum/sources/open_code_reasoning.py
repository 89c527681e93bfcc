"""nvidia/OpenCodeReasoning: reasoning traces of R1 for programming contest problems.

Its config and split names are ``split_0`` and ``split_1`` (there is no ``train``); every column is
text. In split_1 the question is the single character ``-`` and must be fetched from the original
dataset by its row number. ``id`` names the question and recurs on every sample of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curriculum.candidates import Candidate, make_row_id, refuse
from curriculum.sources.parts import Columns, RawRow
from curriculum.sources.reading import read_file
from pipeline.errors import SourceError
from pipeline.records import Provenance, Rejected
from pipeline.settings.recipe import Recipe
from pipeline.settings.sources import QuestionSource, SourceSettings

REQUIRED = (
    "id",
    "input",
    "output",
    "source",
    "license",
    "dataset",
    "split",
    "difficulty",
    "solution",
)
COLUMNS: Columns = {name: "text" for name in (*REQUIRED, "index")}
CONFIGS = ("split_0", "split_1")
MISSING_QUESTION = "-"


class QuestionTables:
    """The questions that ``-`` rows point to, by (dataset, split)."""

    def __init__(self, tables: dict[tuple[str, str], list[str | None]]) -> None:
        self._tables = tables

    def find(self, datasets: str, split: str, index: str) -> tuple[str | None, str]:
        """The question, or ``None`` and why there is none.

        Args:
            datasets: One name, or several separated by commas as on older cards.
            split: Split of the original dataset.
            index: Row number as text.
        """
        names = [name.strip() for name in datasets.split(",")]
        tables = [self._tables[name, split] for name in names if (name, split) in self._tables]
        if not tables:
            return None, f"no question file for dataset {datasets!r}, split {split!r}"
        if not index.strip().isdigit():
            return None, f"index {index!r} is no row number"
        row = int(index)
        for table in tables:
            if row < len(table) and (table[row] or "").strip():
                return table[row], ""
        return None, f"row {row} of {datasets!r}/{split!r} does not exist or is empty"


def load_questions(recipe: Recipe, sources: Sequence[QuestionSource]) -> QuestionTables:
    """Read the join's question files; only their texts stay in memory.

    Raises:
        SourceError: A file is missing, unreadable or lacks its text column.
    """
    tables: dict[tuple[str, str], list[str | None]] = {}
    for entry in sources:
        column = "description" if entry.dataset == "code_contests" else "question"
        if entry.dataset == "open-r1/codeforces":
            rows = read_file(recipe.file(entry.path), _CODEFORCES, ["description"])
            texts: list[str | None] = [_compose_codeforces(row) for row in rows]
        else:
            rows = read_file(recipe.file(entry.path), {column: "text"}, [column])
            texts = [row[column] for row in rows]
        if (entry.dataset, entry.split) in tables:
            raise SourceError(
                f"two question files for dataset {entry.dataset!r}, split {entry.split!r}",
                hint="give one file per dataset and split",
            )
        tables[entry.dataset, entry.split] = texts
    return QuestionTables(tables)


_CODEFORCES: Columns = {
    "description": "text",
    "input_format": "text",
    "output_format": "text",
    "examples": "turns",
    "note": "text",
}


def _compose_codeforces(row: dict[str, Any]) -> str | None:
    """The statement as the dataset's authors put it together from its parts."""
    if not row["description"]:
        return None
    parts = [row["description"]]
    if row["input_format"]:
        parts.append(f"Input\n\n{row['input_format']}")
    if row["output_format"]:
        parts.append(f"Output\n\n{row['output_format']}")
    if row["examples"]:
        shown = [f"Input\n\n{e['input']}\n\nOutput\n\n{e['output']}" for e in row["examples"]]
        parts.append("Examples\n\n" + "\n\n".join(shown))
    if row["note"]:
        parts.append(f"Note\n\n{row['note']}")
    return "\n\n".join(parts)


def config_of(row: dict[str, Any]) -> str:
    """Config a row belongs to: only split_1 rows carry an index."""
    return "split_1" if row.get("index") is not None else "split_0"


def parse_row(
    raw: RawRow, source: SourceSettings, questions: QuestionTables
) -> Candidate | Rejected:
    """Understand one row; a ``-`` question is joined or refused by name."""
    row = raw.values
    config = config_of(row)
    row_id = make_row_id(config, row["id"], row["output"])
    question = row["input"]
    if question is not None and question.strip() == MISSING_QUESTION:
        question, why = questions.find(
            row["dataset"] or "", row["split"] or "", row.get("index") or ""
        )
        if question is None:
            return refuse(row_id, "join", "question_not_joined", why)
    return Candidate(
        row_id=row_id,
        source=source.name,
        source_revision=raw.revision,
        source_id=row["id"] or "",
        question=question,
        user_text=question,
        response=row["output"],
        licence=row["license"] or source.licence,
        domain="code",
        difficulty=row["difficulty"] or None,
        provenance=Provenance(
            teacher="DeepSeek-R1",
            source_row=row.get("index"),
            source_dataset=row["dataset"],
            source_split=row["split"],
            source_file=raw.file,
            source_position=raw.position,
        ),
        code_rule="strict",
    )
