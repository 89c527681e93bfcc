"""Score the judges on problems that a person labelled, before money is spent on a run.

Input: JSONL, one labelled problem a line (:class:`LabelledProblem`). Output, in
``<out>/calibration``: ``report.json`` (scores) and ``verdicts.jsonl`` (what each judge said about
each problem, with its reasons). Answers are stored like any other, so a second scoring is free.
Command: ``python -m promptcot calibrate --labels FILE``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from pipeline.errors import ConfigError, GateRefused, SourceError
from pipeline.hashing import content_hash, file_sha256
from pipeline.records import Domain, Problem, Rating
from pipeline.settings.base import Settings
from pipeline.settings.judging import JudgingSettings
from pipeline.store import dump_json_line, write_json, write_text
from promptcot.agreement import wilson_interval
from promptcot.calibration_report import CalibrationReport, Share, score_judge, score_panel
from promptcot.panel import Opinion, Panel, wanted_verdict
from promptcot.panel_counts import count_opinions, summarise_opinions
from promptcot.parsing import Defect
from promptcot.ratings import VERDICT_ORDER
from promptcot.run_context import SynthesisRun

STAGE = "calibration"
_EXAMPLE = "promptcot/data/labelled_problems.jsonl"


class LabelledProblem(Settings):
    """A problem with the verdict that a person gave it."""

    id: str = Field(min_length=1)
    problem: str = Field(min_length=1)
    concepts: tuple[str, ...] = Field(min_length=1)
    level: str = Field(min_length=1)
    domain: Domain
    rationale: str = ""
    label: Rating
    note: str = ""
    """Why, for people; no judge sees it."""

    def as_problem(self) -> Problem:
        """The problem in the form in which judges are asked."""
        # By content, so that an edited problem is asked anew and a renamed one is not.
        name = content_hash([self.problem, self.rationale, self.level, list(self.concepts)])
        return Problem(
            id=name,
            combination_id="",
            concepts=list(self.concepts),
            level=self.level,
            domain=self.domain,
            rationale=self.rationale,
            statement=self.problem,
            teacher="",
            prompt_hash="",
            seed=0,
        )


def read_labels(path: Path) -> list[LabelledProblem]:
    """The labelled problems of a file.

    Raises:
        SourceError: The file is missing, empty or not UTF-8, or a row is wrong; the message names
            the line and the field.
    """
    hint = f"write one JSON object a line, like the rows of {_EXAMPLE}"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise SourceError(f"labelled problems cannot be read: {path} ({exc})", hint=hint) from exc
    rows: list[LabelledProblem] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = LabelledProblem.model_validate_json(line)
        except ValidationError as exc:
            error = exc.errors(include_url=False)[0]
            field = ".".join(map(str, error["loc"])) or "the whole line"
            message = f"{path}, line {number}, {field}: {error['msg']}"
            raise SourceError(message, hint=hint) from exc
        if row.id in seen:
            message = f"{path}, line {number}, id: {row.id!r} stands in line {seen[row.id]} too"
            raise SourceError(message, hint="give every labelled problem its own id")
        seen[row.id] = number
        rows.append(row)
    if not rows:
        raise SourceError(f"{path} holds no labelled problem", hint=hint)
    return rows


def calibrate(run: SynthesisRun, labels: Path) -> CalibrationReport:
    """Ask every judge about every labelled problem and compare with the labels.

    All judges are asked about all problems, whatever ``judging.sequential`` says.

    Raises:
        SourceError: The file is missing or malformed.
        ConfigError: A judge's template lacks a place or has an unknown one.
        TeacherError: A judge cannot be used.
    """
    settings = run.settings.judging
    rows = read_labels(labels)
    opinions, tokens = Panel(run, STAGE).ask([row.as_problem() for row in rows], sequential=False)
    expected = [row.label for row in rows]
    summary = summarise_opinions(count_opinions(opinions, settings), settings)
    report = CalibrationReport(
        labels=labels.name,
        labels_sha256=file_sha256(labels),
        num_problems=len(rows),
        label_counts={str(k): n for k, n in sorted(Counter(expected).items())},
        wanted=str(wanted_verdict(settings)),
        base_rate=Share(sum(_is_good(label, settings) for label in expected), len(rows)),
        judges=tuple(score_judge(judge.label, expected, opinions) for judge in settings.judges),
        panel=score_panel(expected, opinions, settings),
        agreement=summary,
        tokens=tokens,
    )
    folder = run.out / STAGE
    write_text(folder / "verdicts.jsonl", _render_verdicts(rows, opinions))
    write_json(folder / "report.json", report.as_json())
    return report


def check_reach(rows: Sequence[LabelledProblem], path: Path, settings: JudgingSettings) -> None:
    """Refuse a precision that even judges without a fault could not show on so few problems.

    Raises:
        ConfigError: Too few problems are labelled as good.
    """
    num_good = sum(_is_good(row.label, settings) for row in rows)
    reach = wilson_interval(1.0, num_good)[0]
    if reach >= settings.minimum_precision:
        return
    needed = num_good
    while needed < 1_000_000 and wilson_interval(1.0, needed)[0] < settings.minimum_precision:
        needed += 1
    raise ConfigError(
        f"judging.minimum_precision = {settings.minimum_precision} cannot be shown with {path}: "
        f"judges without a fault would reach {reach:.3f} on its {num_good} problems labelled "
        f'"{wanted_verdict(settings)}" or better',
        hint=f"label at least {needed} such problems, or lower judging.minimum_precision",
    )


def _is_good(label: Rating, settings: JudgingSettings) -> bool:
    """Whether a person would keep what has this label, by the recipe's rule."""
    return VERDICT_ORDER.index(label) >= VERDICT_ORDER.index(wanted_verdict(settings))


def pass_gate(run: SynthesisRun, labels: Path) -> dict[str, Any]:
    """Score the judges and refuse them below the recipe's precision; the scores as JSON.

    Raises:
        GateRefused: The lower end of the panel's interval is below the minimum, or the panel kept
            no labelled problem.
    """
    minimum = run.settings.judging.minimum_precision
    report = calibrate(run, labels)
    report.show()
    precision = report.panel.precision
    if minimum and precision.value is None:
        found = f"the judges kept none of the {report.num_problems} labelled problems"
    elif precision.low < minimum:
        found = (
            f"of {precision.total} labelled problems that the judges kept, {precision.hits} were "
            f"rightly kept: precision {precision.value:.3f}, at least {precision.low:.3f}"
        )
    else:
        return report.as_json()
    raise GateRefused(
        f"{found}; judging.minimum_precision is {minimum} ({labels})",
        hint=f"read {run.out / STAGE / 'verdicts.jsonl'}; use better judges, more votes or "
        "prompts, label more problems, or lower the minimum",
    )


def _render_verdicts(rows: Sequence[LabelledProblem], opinions: Sequence[Opinion]) -> str:
    """What was said about each problem, for the person who labelled it."""
    lines = []
    for row, opinion in zip(rows, opinions, strict=True):
        votes = [
            {"judge": vote.judge, "vote": vote.number, "unreadable": vote.ratings.reason}
            if isinstance(vote.ratings, Defect)
            else {
                "judge": vote.judge,
                "vote": vote.number,
                "verdict": str(vote.ratings.verdict),
                "ratings": {field: str(r) for field, r in vote.ratings.by_field.items()},
                "reasons": list(vote.ratings.reasons),
            }
            for vote in opinion.votes
        ]
        defect = opinion.defect
        found = {
            "id": row.id,
            "label": str(row.label),
            "note": row.note,
            "kept": defect is None,
            "refused_because": None if defect is None else defect.reason,
            "votes": votes,
        }
        lines.append(dump_json_line(json.loads(json.dumps(found))))
    return "".join(line + "\n" for line in lines)
