"""``[curriculum]`` of a recipe: sources, gates, phases."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline.settings.base import Settings, execution_only
from pipeline.settings.decontamination import DecontaminationSettings
from pipeline.settings.phases import PhaseSettings
from pipeline.settings.sources import SourceSettings
from pipeline.settings.validation import ValidationSettings


class CurriculumSettings(Settings):
    """``[curriculum]`` of a recipe."""

    sources: tuple[SourceSettings, ...] = ()
    phases: dict[str, PhaseSettings] = Field(default_factory=dict)
    validation: ValidationSettings = ValidationSettings()
    decontamination: DecontaminationSettings = DecontaminationSettings()
    deduplicate: bool = True
    traces_per_question: int = Field(1, ge=1)
    """How many traces of one question survive deduplication."""
    near_duplicates: bool = True
    """Whether questions in nearly the same words count as one question (with ``deduplicate``)."""
    near_duplicate_jaccard: float = Field(0.8, ge=0.7, le=1)
    """Likeness of two questions' word 3-grams from which they are one."""
    near_duplicates_share_numbers: bool = True
    """Whether questions with other numbers stay two questions, however alike their words are."""
    near_duplicates_share_answers: bool = True
    """Whether questions with other boxed answers stay two questions ("find x", "find y")."""
    batch_rows: int = Field(1000, ge=1)
    """Rows read, checked and written together: bounds memory."""
    shard_rows: int = Field(5000, ge=1)
    """Rows of one Parquet file of a version."""
    num_workers: int = execution_only(2, ge=1)
    """Processes, or Ray workers, that work at once (``[execution]`` says which); 1 with
    ``execution.executor = "local"`` works in the command."""
    compress_prepared: bool = execution_only(False)
    """Compress what sources are prepared to. Measured: 0.7 of the bytes of generated text; of real
    rows 0.4 (thoughts of 13 kB, graph puzzles) to 0.7 (solutions of 1 kB), and no gain under 300
    bytes. It takes 30 µs a row of 15 kB, a twelfth of a build's processor time."""
    dedupe_memory_mb: int = execution_only(256, ge=16)
    """What the search for near-duplicates may hold of its keys at once."""
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
            for resolved in map(settings.resolve, (None, *settings.variants)):
                _check_references(phase, resolved, names, sorted(self.phases))
        return self


def _check_references(
    phase: str, settings: PhaseSettings, names: list[str], phases: list[str]
) -> None:
    for entry in settings.sources:
        if entry.source not in names:
            raise ValueError(f"phase {phase} names source {entry.source!r}; sources are {names}")
    others = [name for name in phases if name != phase]
    named = [*settings.distinct_from, *([settings.replay.phase] if settings.replay else [])]
    for name in named:
        if name not in others:
            raise ValueError(f"phase {phase} names phase {name!r}; other phases are {others}")
