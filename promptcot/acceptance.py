"""From what verification found about the samples of a problem to traces and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.records import ProgramTest, Rejected, Solution, VerifiedTrace
from pipeline.settings.solutions import VerificationSettings

STAGE = "verified"
UNCONFIRMED = frozenset(
    {"no_majority", "low_agreement", "no_tests", "tests_disputed", "constant_output"}
)
"""Reasons that say nothing against a solution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What verification found about one solution."""

    method: Literal["majority", "tests"]
    reason: str | None = None
    """None when it is confirmed."""
    detail: str = ""
    agreement: float = 0.0
    """Share of the samples asked that agree with this one."""
    final_answer: str = ""
    tests: tuple[ProgramTest, ...] = ()


def conclude(
    rows: Sequence[Solution],
    findings: Sequence[Finding],
    *,
    num_samples: int,
    rules: VerificationSettings,
) -> list[VerifiedTrace | Rejected]:
    """Outcomes of one problem's samples, in their order.

    Further reasons: ``low_agreement`` and ``too_easy`` outside the band, ``enough_traces`` for
    those beyond the shortest ones that are wanted.
    """
    judged = [_hold_to_band(finding, rules) for finding in findings]
    kept = _choose(rows, judged, rules)
    outcomes: list[VerifiedTrace | Rejected] = []
    for position, (row, finding) in enumerate(zip(rows, judged, strict=True)):
        if position in kept:
            outcomes.append(_trace(row, finding, num_samples))
            continue
        reason, detail = finding.reason, finding.detail
        if reason is None or _is_kept(finding, rules):
            reason = "enough_traces"
            detail = f"{rules.traces_per_problem} shorter or better confirmed ones are kept"
        outcomes.append(Rejected(row_id=row.id, stage=STAGE, reason=reason, detail=detail))
    return outcomes


def _hold_to_band(finding: Finding, rules: VerificationSettings) -> Finding:
    if finding.reason is not None:
        return finding
    if finding.agreement < rules.minimum_agreement:
        return replace(finding, reason="low_agreement")
    if finding.agreement > rules.maximum_agreement:
        return replace(finding, reason="too_easy")
    return finding


def _is_kept(finding: Finding, rules: VerificationSettings) -> bool:
    return finding.reason is None or (rules.keep_unverified and finding.reason in UNCONFIRMED)


def _choose(
    rows: Sequence[Solution], findings: Sequence[Finding], rules: VerificationSettings
) -> set[int]:
    """Positions that are kept: confirmed ones first, then the shorter."""
    fit = [n for n, finding in enumerate(findings) if _is_kept(finding, rules)]
    fit.sort(
        key=lambda n: (
            findings[n].reason is not None,
            rows[n].num_completion_tokens,
            rows[n].id,
        )
    )
    return set(fit[: rules.traces_per_problem or None])


def _trace(row: Solution, finding: Finding, num_samples: int) -> VerifiedTrace:
    return VerifiedTrace(
        solution=row,
        final_answer=finding.final_answer,
        agreement=finding.agreement,
        num_samples=num_samples,
        method=finding.method if finding.reason is None else "unverified",
        tests=list(finding.tests),
    )
