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
