"""Questions that rows only point to: joined by row number, by key, or by what the reasoning says.

OpenCodeReasoning writes ``-`` for questions that it may not redistribute and names the dataset,
split and row where they stand. Row numbers hold at one revision only. Where they moved, a question
is found again through the reasoning, which repeats its rarer words; the same overlap can check a
join by row number.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from curriculum.sources.parts import Columns
from curriculum.sources.reading import Schema, read_file, stream_file
from pipeline.errors import SourceError
from pipeline.settings.recipe import Recipe
from pipeline.settings.sources import QuestionSource

_CODEFORCES: Columns = {
    "description": "text",
    "input_format": "text",
    "output_format": "text",
    "examples": "turns",
    "note": "text",
}
_WORD = re.compile(r"[a-z]{4,}|\d{2,}")
_TRACE_CHARS = 8000
"""A reasoning repeats the problem at its beginning."""
_RARE_WORDS = 24
"""A question is known by so many of its rarest words."""
_LEAST_COVERAGE, _LEAST_MARGIN, _LEAST_WEIGHT = 0.6, 0.2, 20.0
"""Share of a question's weight that the reasoning must repeat, how far ahead of the next question,
and the weight below which a match may be chance. Strict, because a wrong question is worse than
none."""


@dataclass(slots=True)
class QuestionTable:
    """One question file."""

    match: str
    texts: Sequence[str | None]
    by_key: dict[str, int] = field(default_factory=dict)
    index: WordIndex | None = None


class QuestionTables:
    """The questions that ``-`` rows point to, by (dataset, split)."""

    def __init__(self, tables: dict[tuple[str, str], QuestionTable]) -> None:
        self._tables = tables

    def find(
        self, dataset: str, split: str, row: str, *, key: str = "", trace: str = ""
    ) -> tuple[str | None, str]:
        """The question, or ``None`` and why there is none.

        Args:
            dataset: One name, or several separated by commas as on older cards.
            split: Split of the original dataset.
            row: Row number as text.
            key: The row's own id, for files joined by key.
            trace: The answer, for files joined by text.
        """
        names = [name.strip() for name in dataset.split(",")]
        tables = [self._tables[name, split] for name in names if (name, split) in self._tables]
        if not tables:
            return None, f"no question file for dataset {dataset!r}, split {split!r}"
        why = ""
        for table in tables:
            place, problem = _place_in(table, row, key, trace)
            if place is not None and (table.texts[place] or "").strip():
                return table.texts[place], ""
            why = problem or f"row {place} of {dataset!r}/{split!r} does not exist or is empty"
        return None, why


def _place_in(table: QuestionTable, row: str, key: str, trace: str) -> tuple[int | None, str]:
    if table.match == "key":
        return table.by_key.get(key), f"no question has the key {key!r}"
    if table.index is not None:
        return table.index.find(trace)
    if not row.strip().isdigit():
        return None, f"index {row!r} is no row number"
    number = int(row)
    return (number, "") if number < len(table.texts) else (None, f"row {number} does not exist")


class WordIndex:
    """Finds the question whose rarer words a text repeats."""

    def __init__(self, texts: Sequence[str | None]) -> None:
        words = [frozenset(words_of(text or "")) for text in texts]
        counts: dict[str, int] = defaultdict(int)
        for found in words:
            for word in found:
                counts[word] += 1
        self._weights = {word: math.log(1 + len(words) / n) for word, n in counts.items()}
        postings: dict[str, list[int]] = defaultdict(list)
        self._totals: npt.NDArray[np.float64] = np.full(len(words), np.inf)
        for place, found in enumerate(words):
            rare = sorted(found, key=lambda word: (-self._weights[word], word))[:_RARE_WORDS]
            if rare:
                self._totals[place] = sum(self._weights[word] for word in rare)
            for word in rare:
                postings[word].append(place)
        self._postings = {word: np.array(places, np.int32) for word, places in postings.items()}

    def find(self, trace: str) -> tuple[int | None, str]:
        """Place of the question, or ``None`` and why."""
        scores = np.zeros(len(self._totals))
        for word in set(words_of(trace[:_TRACE_CHARS])) & self._postings.keys():
            scores[self._postings[word]] += self._weights[word]
        if not len(scores):
            return None, "the question file is empty"
        scores = np.where(scores >= _LEAST_WEIGHT, scores / self._totals, 0.0)
        best = int(scores.argmax())
        if scores[best] < _LEAST_COVERAGE:
            return None, f"the reasoning fits no question (best {scores[best]:.0%})"
        second = float(np.partition(scores, -2)[-2]) if len(scores) > 1 else 0.0
        if scores[best] - second < _LEAST_MARGIN:
            return None, f"the reasoning fits two questions ({scores[best]:.0%} and {second:.0%})"
        return best, ""


def words_of(text: str) -> Iterator[str]:
    """Words and numbers that can tell questions apart."""
    return (match.group() for match in _WORD.finditer(text.lower()))


def overlap(question: str, trace: str) -> float:
    """Share of a question's longer words and numbers that the beginning of a reasoning repeats."""
    wanted = set(words_of(question))
    if not wanted:
        return 1.0
    return len(wanted & set(words_of(trace[:_TRACE_CHARS]))) / len(wanted)


def load_questions(recipe: Recipe, sources: Sequence[QuestionSource]) -> QuestionTables:
    """Read the join's question files; only their texts stay in memory.

    Raises:
        SourceError: A file is missing, unreadable or lacks its text column.
    """
    tables: dict[tuple[str, str], QuestionTable] = {}
    for entry in sources:
        if (entry.dataset, entry.split) in tables:
            raise SourceError(
                f"two question files for dataset {entry.dataset!r}, split {entry.split!r}",
                hint="give one file per dataset and split",
            )
        tables[entry.dataset, entry.split] = _load_table(recipe, entry)
    return QuestionTables(tables)


def _load_table(recipe: Recipe, entry: QuestionSource) -> QuestionTable:
    path = recipe.file(entry.path)
    column = entry.column or ("description" if entry.dataset == "code_contests" else "question")
    by_key: dict[str, int] = {}
    texts: list[str | None]
    if entry.match == "key":
        columns: Columns = {entry.key: "any", column: "text"}
        texts = []
        for row in stream_file(path, Schema(columns=columns, required=tuple(columns))):
            by_key[str(row[entry.key])] = len(texts)
            texts.append(row[column])
    elif entry.dataset == "open-r1/codeforces" and entry.column is None:
        texts = [_compose_codeforces(r) for r in read_file(path, _CODEFORCES, ["description"])]
    else:
        texts = [row[column] for row in read_file(path, {column: "text"}, [column])]
    index = WordIndex(texts) if entry.match == "text" else None
    return QuestionTable(entry.match, texts, by_key, index)


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
