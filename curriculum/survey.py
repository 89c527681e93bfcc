"""Pass one: every row judged alone, in batches that survive a kill.

A batch becomes one small Parquet file of verdicts: hashes, counts and reasons, no texts. What
needs more than one row (duplicates, shares, order) is decided from the verdicts afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curriculum.candidates import PreparedRow, refuse
from curriculum.dedupe import trace_key
from curriculum.measure import Size, measure_row
from curriculum.normalize import normalize_row
from curriculum.sources.catalog import Parser, RawRow
from curriculum.validate import validate_row
from pipeline.contamination import STAGE as DECONTAMINATE
from pipeline.contamination import BenchmarkIndex, Match, find_in_row
from pipeline.questions import question_key
from pipeline.records import Domain, Record, Rejected
from pipeline.settings.curriculum import CurriculumSettings


class Finding(Record):
    """A benchmark item found in a row."""

    benchmark: str
    item_id: str
    rule: str
    score: float
    part: str
    span: str


class Verdict(Record):
    """What pass one knows of a row; an empty reason means well formed."""

    row_id: str
    stage: str = ""
    reason: str = ""
    detail: str = ""
    question: str = ""
    trace: str = ""
    is_verified: bool = False
    domain: Domain = "other"
    licence: str = ""
    difficulty: str | None = None
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    findings: list[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Everything that a row's verdict depends on, besides the row."""

    parser: Parser
    settings: CurriculumSettings
    max_tokens: int | None
    benchmarks: BenchmarkIndex

    def prepare(self, raw: RawRow) -> PreparedRow | Rejected:
        """Parse and normalise one row."""
        candidate = self.parser.parse(raw)
        if isinstance(candidate, Rejected):
            return candidate
        return normalize_row(candidate, self.settings.validation.max_chars)

    def judge(self, raw: RawRow) -> Verdict:
        """The verdict on one row."""
        row = self.prepare(raw)
        if isinstance(row, Rejected):
            return _refusal(row, [])
        broken = validate_row(row, self.settings.validation)
        if broken is not None:
            return _refusal(broken, [])
        findings = self._search_benchmarks(row)
        if findings and findings[0].rule != "twin":
            return _refusal(_contaminated(row, findings[0]), findings)
        size = measure_row(row, self.max_tokens)
        if isinstance(size, Rejected):
            return _refusal(size, findings)
        return _acceptance(row, size, findings)

    def _search_benchmarks(self, row: PreparedRow) -> list[Finding]:
        if not self.settings.decontamination.enabled:
            return []
        limit = self.settings.decontamination.thinking_chars
        hit, twin = find_in_row(
            self.benchmarks,
            user_text=row.user_text,
            question=row.question,
            thinking=row.thinking[:limit],
        )
        return [_finding(match) for match in (hit, twin) if match is not None]


def normalize_licence(text: str) -> str:
    """A licence as the hub spells it: lower case, hyphens; ``unknown`` when nothing is stated."""
    return "-".join(text.strip().lower().split()) or "unknown"


def judge_batch(judge: Judge, rows: Sequence[RawRow]) -> list[Verdict]:
    """Verdicts on a batch, in order; a pure function of its arguments."""
    return [judge.judge(raw) for raw in rows]


def _finding(match: Match) -> Finding:
    return Finding(
        benchmark=match.benchmark,
        item_id=match.item_id,
        rule=match.rule,
        score=match.score,
        part=match.part,
        span=match.span[:300],
    )


def _contaminated(row: PreparedRow, finding: Finding) -> Rejected:
    detail = (
        f"{finding.benchmark}/{finding.item_id} by {finding.rule} {finding.score:g} "
        f"in the {finding.part}: {finding.span}"
    )
    return refuse(row.candidate.row_id, DECONTAMINATE, "benchmark_item", detail)


def _refusal(rejected: Rejected, findings: list[Finding]) -> Verdict:
    return Verdict(
        row_id=rejected.row_id,
        stage=rejected.stage,
        reason=rejected.reason,
        detail=rejected.detail,
        findings=findings,
    )


def _acceptance(row: PreparedRow, size: Size, findings: list[Finding]) -> Verdict:
    candidate = row.candidate
    return Verdict(
        row_id=candidate.row_id,
        question=question_key(row.question),
        trace=trace_key(row.thinking, row.answer),
        is_verified=candidate.is_verified,
        domain=candidate.domain,
        licence=normalize_licence(candidate.licence),
        difficulty=candidate.difficulty,
        num_prompt_tokens=size.num_prompt_tokens,
        num_completion_tokens=size.num_completion_tokens,
        findings=findings,
    )
