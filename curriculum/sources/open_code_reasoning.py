"""nvidia/OpenCodeReasoning and its successor: reasoning for programming contest problems.

Config and split names of the first are ``split_0`` and ``split_1`` (there is no ``train``); every
column is text. In split_1, and on every row of OpenCodeReasoning-2, the question is the single
character ``-`` and must be fetched from the original dataset. ``id`` names the question in the
first and recurs on every sample of it.
"""

from __future__ import annotations

from typing import Any

from curriculum.candidates import Candidate, Origin, make_row_id, refuse
from curriculum.sources.parts import Columns, RawRow
from curriculum.sources.questions import QuestionTables, overlap
from curriculum.texts import Text, to_text, to_utf8
from pipeline.records import Rejected
from pipeline.settings.sources import SourceSettings

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
_TAKEN = ("id", "input", "output", "license", "dataset", "split", "difficulty", "index")
COLUMNS: Columns = {**dict.fromkeys(_TAKEN, "text"), "output": "long_text"}
REQUIRED_2 = ("question", "r1_generation", "dataset", "split", "index", "id", "question_id")
COLUMNS_2: Columns = {
    **dict.fromkeys((*REQUIRED_2, "license", "difficulty", "judgement", "pass_rate"), "text"),
    "r1_generation": "long_text",
}
MISSING_QUESTION = "-"
_LANGUAGES = {"cpp": "cpp", "python": "python"}


def config_of(row: dict[str, Any]) -> str:
    """Config a row belongs to: only split_1 rows carry an index."""
    return "split_1" if row.get("index") is not None else "split_0"


def parse_row(
    raw: RawRow, source: SourceSettings, questions: QuestionTables
) -> Candidate | Rejected:
    """Understand one row; a ``-`` question is joined or refused by name."""
    row = raw.values
    parts = _Parts(row["id"], row["input"], row["output"])
    # The question belongs to the key: ids may be careless, and two questions can share an answer.
    parts.name(config_of(row), row["id"], row["input"], row.get("index"))
    return _parse(raw, source, questions, parts)


def parse_row_2(
    raw: RawRow, source: SourceSettings, questions: QuestionTables
) -> Candidate | Rejected:
    """Understand one row of OpenCodeReasoning-2."""
    row = raw.values
    parts = _Parts(row["question_id"], row["question"], row["r1_generation"])
    parts.name(source.kind, row["question_id"], row["question"], row["index"])
    return _parse(raw, source, questions, parts)


class _Parts:
    """What the two datasets name differently."""

    __slots__ = ("question", "response", "row_id", "source_id")

    def __init__(self, source_id: str | None, question: str | None, response: Text | None) -> None:
        self.source_id, self.question = source_id, question
        self.response = to_utf8(response)
        self.row_id = ""

    def name(self, *parts: str | None) -> None:
        """Make the row's key of these and the response."""
        self.row_id = make_row_id(*parts, self.response)


def _parse(
    raw: RawRow, source: SourceSettings, questions: QuestionTables, parts: _Parts
) -> Candidate | Rejected:
    row, question = raw.values, parts.question
    if question is not None and question.strip() == MISSING_QUESTION:
        trace = to_text(parts.response) or ""
        question, why = questions.find(
            row["dataset"] or "",
            row["split"] or "",
            row.get("index") or "",
            key=parts.source_id or "",
            trace=trace,
        )
        if question is None:
            return refuse(parts.row_id, "join", "question_not_joined", why)
        if source.min_join_overlap and overlap(question, trace) < source.min_join_overlap:
            share = f"{overlap(question, trace):.0%} of its words in the reasoning"
            return refuse(parts.row_id, "join", "joined_to_another_question", share)
    return Candidate(
        row_id=parts.row_id,
        source=source.name,
        source_revision=raw.revision,
        source_id=parts.source_id or "",
        question=question,
        user_text=question,
        response=parts.response,
        licence=row["license"] or source.licence,
        domain="code",
        difficulty=row["difficulty"] or None,
        provenance=Origin(
            teacher=source.teacher or "DeepSeek-R1",
            source_row=row.get("index"),
            source_dataset=row["dataset"],
            source_split=row["split"],
            source_file=raw.file,
            source_position=raw.position,
        ),
        is_verified=_passed_all(row.get("pass_rate")),
        code_rule=source.code_rule or "strict",
        language=_LANGUAGES.get(source.split or "", "python"),
    )


def _passed_all(rate: str | None) -> bool:
    """Whether a pass rate, which is text and may be ``-1``, says that all tests passed."""
    try:
        return float(rate or "nan") == 1.0
    except ValueError:
        return False
