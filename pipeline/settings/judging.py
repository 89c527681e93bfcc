"""Settings of the judges."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.settings.base import Settings
from pipeline.settings.concepts import Form


class JudgeSettings(Settings):
    """One judge: a teacher, and how it is asked."""

    teacher: str = "default"
    name: str = ""
    """For tables and columns; the teacher's name when empty."""
    prompt: str | None = None
    """Template file relative to the recipe, with the places of ``promptcot/prompts/judge_free.md``
    (``$statement``, ``$boundary``, ``$level`` and ``$concepts`` must be there); the bundled one
    when left out. Its content is part of the version's name."""
    votes: int = Field(1, ge=1)
    """Replies asked of this judge per problem."""

    @property
    def label(self) -> str:
        """The judge's name."""
        return self.name or self.teacher


class JudgingSettings(Settings):
    """Five criteria, verdict recomputed from the ratings."""

    judges: tuple[JudgeSettings, ...] = Field((JudgeSettings(),), min_length=1)
    form: Form = "free"
    temperature: float = Field(0.6, ge=0)
    max_tokens: int = Field(2048, ge=16)
    aggregation: Literal["unanimous", "lenient"] = "unanimous"
    """``unanimous``: every vote reaches ``minimum_verdict``; ``lenient``: at least one perfect and
    none bad."""
    sequential: bool = False
    """Ask a judge only about problems that no judge before it has refused. The same problems are
    kept for less money, but agreement between the judges is then known for those problems alone."""
    minimum_verdict: Literal["perfect", "acceptable", "bad"] = "perfect"
    """``unanimous`` only. The paper keeps ``perfect``; lower values relax the gate and are
    reported."""
    calibration: str | None = None
    """JSONL of problems that a person labelled, relative to the recipe: the judges are scored on
    it before any problem of this run is judged."""
    minimum_precision: float = Field(0.0, ge=0, le=1)
    """With ``calibration``: limit for the lower end of the panel's 95 % interval of precision (of
    the labelled problems it keeps, how many a person would keep), below which judging is refused
    (exit 3) before any problem of this run is judged. 0: the scores are only shown."""

    @model_validator(mode="after")
    def _judges_can_be_told_apart(self) -> JudgingSettings:
        labels = [judge.label for judge in self.judges]
        if len(set(labels)) != len(labels):
            raise ValueError(f"two judges share a name: {labels}; set judges.N.name")
        if any("/" in label for label in labels):
            raise ValueError(f"a judge's name holds a slash: {labels}; set judges.N.name")
        if self.minimum_precision and self.calibration is None:
            raise ValueError("minimum_precision needs a calibration file")
        return self
