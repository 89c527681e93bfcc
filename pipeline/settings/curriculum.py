"""Settings of the curriculum: sources, gates, phases."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.settings.base import Settings, execution_only


class QuestionSource(Settings):
    """Where split_1 of OpenCodeReasoning finds the question of a ``-`` row."""

    dataset: Literal["taco", "apps", "code_contests", "open-r1/codeforces"]
    split: str
    path: str = execution_only(...)
    """Local Parquet or JSONL file whose row numbers are those of the pinned revision."""


class SourceSettings(Settings):
    """One ``[[curriculum.sources]]`` entry: local file(s) or a pinned hub dataset."""

    name: str
    kind: Literal["open_code_reasoning", "open_thoughts2", "synthesized"]
    paths: tuple[str, ...] = execution_only(())
    """Local Parquet or JSONL files, relative to the recipe. Their content names the version."""
    hub_id: str | None = None
    revision: str | None = None
    """Commit of the hub dataset; required with ``hub_id``."""
    config: str | None = None
    split: str | None = None
    licence: str = ""
    """Licence of rows that state none."""
    expected_rows: int | None = execution_only(None)
    """Warn when the source has another number of rows."""
    questions: tuple[QuestionSource, ...] = ()

    @model_validator(mode="after")
    def _one_origin(self) -> SourceSettings:
        if self.kind == "synthesized":
            if self.hub_id:
                raise ValueError("a synthesized source reads this run's own output: drop hub_id")
        elif bool(self.paths) == bool(self.hub_id):
            raise ValueError("give either paths or hub_id")
        if self.hub_id and not self.revision:
            raise ValueError("hub_id needs a pinned revision (a commit hash)")
        return self


class ValidationSettings(Settings):
    """Limits of a well-formed row."""

    min_question_chars: int = Field(10, ge=1)
    max_chars: int = Field(400_000, ge=100)
    """Question plus answer; longer rows are run-aways and are never tokenised."""
    min_thinking_chars: int = Field(20, ge=0)
    max_foreign_share: float = Field(0.3, ge=0, le=1)
    """Share of letters outside Latin and Greek above which a text is in another language."""
    min_distinct_ngrams: float = Field(0.3, ge=0, le=1)
    """Distinct share of the word 4-grams at a text's end; a loop has fewer."""


class DecontaminationSettings(Settings):
    """When a row counts as a benchmark item (docs/design.md explains the rule)."""

    enabled: bool = True
    ngram: int = Field(5, ge=2)
    min_coverage: float = Field(0.6, gt=0, le=1)
    """Share of the item's n-grams found in the row."""
    short_words: int = Field(8, ge=1)
    """Items with fewer words are matched whole."""
    min_ratio: float = Field(90.0, gt=0, le=100)
    """Character similarity (with equal numbers and the same last sentence)."""
    thinking_chars: int = Field(2000, ge=0)
    """How much of the reasoning is searched too."""


class PhaseSource(Settings):
    """How much of one source a phase takes."""

    source: str
    share: float = Field(1.0, gt=0, le=1)
    """Fraction of the source's accepted rows, drawn by the phase's seed."""


class PhaseSettings(Settings):
    """One phase of the curriculum."""

    sources: tuple[PhaseSource, ...]
    max_tokens: int = Field(ge=32)
    """Longest prompt plus completion; longer rows are rejected, never cut."""
    order: Literal["shuffled", "as-is", "difficulty"] = "shuffled"
    allowed_licences: tuple[str, ...] = ()
    """Empty allows all; otherwise another licence refuses the build (exit 3)."""


class CurriculumSettings(Settings):
    """``[curriculum]`` of a recipe."""

    sources: tuple[SourceSettings, ...] = ()
    phases: dict[str, PhaseSettings] = Field(default_factory=dict)
    validation: ValidationSettings = ValidationSettings()
    decontamination: DecontaminationSettings = DecontaminationSettings()
    deduplicate: bool = True
    traces_per_question: int = Field(1, ge=1)
    """How many traces of one question survive deduplication."""
    batch_rows: int = Field(1000, ge=1)
    """Rows read, checked and written together: bounds memory."""
    shard_rows: int = Field(5000, ge=1)
    """Rows of one Parquet file of a version; one such file is held in memory while written."""
    num_workers: int = execution_only(2, ge=1)
    """Processes that check and tokenise batches."""
    min_rows: int = Field(1, ge=0)
    synthesize_if_missing: bool = execution_only(False)
    """Run synthesis first when a phase needs it and there is none: cheap in the demo only."""

    @model_validator(mode="after")
    def _known_sources(self) -> CurriculumSettings:
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError(f"source names must be unique, got {names}")
        for phase, settings in self.phases.items():
            if phase not in {"1", "2"}:
                raise ValueError(f"phases are named 1 and 2, got {phase!r}")
            for entry in settings.sources:
                if entry.source not in names:
                    raise ValueError(
                        f"phase {phase} names source {entry.source!r}; sources are {names}"
                    )
        return self
