"""What one row decides by itself: accepted with its features, or refused by name.

Rows are judged in slices, because searching benchmarks, counting tokens and hashing are several
times faster for many texts at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from curriculum.candidates import (
    Candidate,
    PreparedRow,
    refuse,
    tell_origin,
)
from curriculum.dedupe import trace_key
from curriculum.difficulty import rank_row
from curriculum.features import Features
from curriculum.gold import check_answers
from curriculum.measure import STAGE as MEASURE
from curriculum.measure import Measured, measure_rows
from curriculum.normalize import normalize_row
from curriculum.prepared import TABLE_SCHEMA, Finding, Slice, decode_features, make_column
from curriculum.question_hashes import hash_answers, hash_questions
from curriculum.quick_looks import look_at
from curriculum.sources.catalog import Parser, RawRow
from curriculum.stored_rows import StoredRow, render_fields
from curriculum.surveys import survey
from curriculum.validate import validate_row
from pipeline.benchmark_index import load_benchmark_index
from pipeline.contamination import STAGE as DECONTAMINATE
from pipeline.contamination import BenchmarkIndex, Match
from pipeline.near_duplicates import NUM_BANDS
from pipeline.records import Rejected
from pipeline.settings.curriculum import CurriculumSettings
from pipeline.settings.recipe import Recipe
from pipeline.word_hashes import WordHashes, hash_words


class Judged(NamedTuple):
    """What became of one row."""

    outcome: Measured | Rejected
    findings: tuple[Finding, ...] = ()

    @property
    def row_id(self) -> str:
        """The row's id, whatever became of it."""
        if isinstance(self.outcome, Rejected):
            return self.outcome.row_id
        return self.outcome.row.candidate.row_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Everything that a row's outcome depends on, besides the row."""

    parser: Parser
    settings: CurriculumSettings
    benchmarks: BenchmarkIndex

    def judge(self, rows: Sequence[RawRow]) -> list[Judged]:
        """The outcome of every row, in order."""
        return self._judge(rows)[0]

    def _judge(self, rows: Sequence[RawRow]) -> tuple[list[Judged], WordHashes]:
        """The outcome of every row, and the words of the accepted ones' questions."""
        admitted = check_answers(self._admit(rows), self.settings.validation)
        well_formed = [row for row in admitted if isinstance(row, PreparedRow)]
        words = hash_words([row.question for row in well_formed])
        searched = self._search_benchmarks(well_formed, words)
        drop_twins = self.settings.decontamination.drop_twins
        refused = [find_refusal(found, drop_twins=drop_twins) for found in searched]
        clean = [row for row, reason in zip(well_formed, refused, strict=True) if not reason]
        findings = iter(zip(searched, refused, strict=True))
        outcomes = measure_rows(clean)
        measured, judged = iter(outcomes), []
        for row in admitted:
            if isinstance(row, Rejected):
                judged.append(Judged(row))
                continue
            found, reason = next(findings)
            outcome = _contaminated(row, reason, found[0]) if reason else next(measured)
            judged.append(Judged(outcome, found))
        name = self.parser.settings.name
        pairs = zip(judged, rows, strict=True)
        told = [
            one._replace(outcome=tell_origin(one.outcome, name, raw))
            if isinstance(one.outcome, Rejected)
            else one
            for one, raw in pairs
        ]
        places = (place for place, reason in enumerate(refused) if not reason)
        kept = [
            place
            for place, outcome in zip(places, outcomes, strict=True)
            if isinstance(outcome, Measured)
        ]
        return told, words.take(kept)

    def prepare(self, rows: Sequence[RawRow]) -> Slice:
        """Judge rows; what is stored of them."""
        judged, words = self._judge(rows)
        accepted = [one.outcome for one in judged if isinstance(one.outcome, Measured)]
        columns = make_columns(accepted, words)
        pairs = zip(accepted, columns["licence"], strict=True)
        return Slice(
            num_in=len(rows),
            rows=[make_stored_row(one, licence) for one, licence in pairs],
            columns=columns,
            rejected=[one.outcome for one in judged if isinstance(one.outcome, Rejected)],
            findings=[(one.row_id, finding) for one in judged for finding in one.findings],
        )

    def _admit(self, rows: Sequence[RawRow]) -> list[PreparedRow | Rejected]:
        """Rows understood, levelled and held against the rules."""
        levelled = self._level(rows)
        validation = self.settings.validation
        formed = [row for row in levelled if isinstance(row, PreparedRow)]
        looks = iter(look_at(formed, validation))
        return [
            row if isinstance(row, Rejected) else validate_row(row, validation, next(looks)) or row
            for row in levelled
        ]

    def _level(self, rows: Sequence[RawRow]) -> list[PreparedRow | Rejected]:
        parsed = [self.parser.parse(raw) for raw in rows]
        understood = [one for one in parsed if isinstance(one, Candidate)]
        surveys = iter(survey([one.response for one in understood]))
        max_chars = self.settings.validation.max_chars
        return [
            normalize_row(one, max_chars, next(surveys)) if isinstance(one, Candidate) else one
            for one in parsed
        ]

    def _search_benchmarks(
        self, rows: Sequence[PreparedRow], words: WordHashes
    ) -> list[tuple[Finding, ...]]:
        if not self.settings.decontamination.enabled:
            return [()] * len(rows)
        limit = self.settings.decontamination.thinking_chars
        found = self.benchmarks.find_in_rows(
            [row.user_text for row in rows],
            [row.question for row in rows],
            [row.trace.head(limit) for row in rows],
            words,
        )
        pairs = [(one.hit, one.twin) for one in found]
        return [tuple(_finding(match) for match in pair if match is not None) for pair in pairs]


def find_refusal(findings: Sequence[Finding], *, drop_twins: bool) -> str:
    """The reason to refuse a row for what was found in it, the worst first; empty to keep it."""
    if not findings:
        return ""
    if findings[0].rule != "twin":
        return "benchmark_item"
    return "template_twin" if drop_twins else ""


def limit_length(judged: Judged, max_tokens: int | None) -> Judged:
    """What a phase with this limit makes of a row."""
    outcome = judged.outcome
    if isinstance(outcome, Rejected) or max_tokens is None:
        return judged
    if outcome.size.num_tokens <= max_tokens:
        return judged
    detail = f"{outcome.size.num_tokens} tokens, limit {max_tokens}"
    return Judged(refuse(judged.row_id, MEASURE, "over_max_tokens", detail), judged.findings)


def open_judge(recipe: Recipe, parser: Parser, benchmarks: BenchmarkIndex | None = None) -> Judge:
    """The judge of one source's rows; its benchmarks are loaded unless they are given.

    Raises:
        SourceError: A benchmark's file cannot be read.
    """
    return Judge(
        parser=parser,
        settings=recipe.settings.curriculum,
        benchmarks=load_benchmark_index(recipe) if benchmarks is None else benchmarks,
    )


def make_stored_row(measured: Measured, licence: str) -> StoredRow:
    """The row as it is stored, to be published."""
    row = measured.row
    return StoredRow(
        fields=render_fields(row.candidate, licence, measured.size),
        prompt=measured.prompt,
        completion=measured.completion,
        question=row.question.encode(),
    )


@lru_cache(maxsize=1024)
def normalize_licence(text: str) -> str:
    """A licence as the hub spells it: lower case, hyphens; ``unknown`` when nothing is stated."""
    return "-".join(text.strip().lower().split()) or "unknown"


def make_columns(accepted: Sequence[Measured], words: WordHashes | None = None) -> dict[str, Any]:
    """The features of accepted rows, as columns of a prepared part's table.

    Args:
        accepted: The rows.
        words: Their questions', if they are hashed already.
    """
    rows = [one.row for one in accepted]
    candidates = [row.candidate for row in rows]
    ids = [candidate.row_id for candidate in candidates]
    hashes = hash_questions([row.question for row in rows], words)
    bands, grams = hashes.sketches.bands, hashes.sketches.grams
    return {
        "row_id": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), len(rows), [None, pa.py_buffer(bytes.fromhex("".join(ids)))]
        ),
        "source_file": [candidate.provenance.source_file for candidate in candidates],
        "source_position": [candidate.provenance.source_position for candidate in candidates],
        "question": hashes.keys,
        "numbers": hashes.numbers,
        "answer": hash_answers([row.answer for row in rows]),
        "trace": [trace_key(row.trace.thinking_utf8, row.trace.answer_utf8) for row in rows],
        "num_prompt_tokens": [one.size.num_prompt_tokens for one in accepted],
        "num_completion_tokens": [one.size.num_completion_tokens for one in accepted],
        "num_chars": [
            len(row.user_text) + row.trace.num_thinking_chars + len(row.answer) for row in rows
        ],
        "is_verified": [candidate.is_verified for candidate in candidates],
        "domain": [candidate.domain for candidate in candidates],
        "licence": [normalize_licence(candidate.licence) for candidate in candidates],
        "difficulty_rank": [rank_row(row) for row in rows],
        "bands": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(4 * NUM_BANDS), len(rows), [None, pa.py_buffer(np.ascontiguousarray(bands))]
        ),
        "grams": pa.ListArray.from_arrays(grams.offsets.astype(np.int32), pa.array(grams.values)),
    }


def make_features(accepted: Sequence[Measured]) -> Features:
    """The features of rows of one source that are not stored."""
    columns = make_columns(accepted)
    fields = [column for column in TABLE_SCHEMA if column.name in columns]
    arrays = [make_column(columns[column.name], column.type) for column in fields]
    return decode_features(pa.table(arrays, schema=pa.schema(fields)), source=0)


def _finding(match: Match) -> Finding:
    return Finding(
        benchmark=match.benchmark,
        item_id=match.item_id,
        rule=match.rule,
        score=match.score,
        part=match.part,
        span=match.span[:300],
        differs=match.differs,
    )


def _contaminated(row: PreparedRow, reason: str, finding: Finding) -> Rejected:
    detail = (
        f"{finding.benchmark}/{finding.item_id} by {finding.rule} {finding.score:g} "
        f"in the {finding.part}: {finding.span}"
    )
    return refuse(row.candidate.row_id, DECONTAMINATE, reason, detail)
