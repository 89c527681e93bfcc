"""Settings of the curriculum's sources."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

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
    hub_files: tuple[str, ...] = ()
    """Patterns of the dataset's files; by default ``<config or data>/<split or train>-*.parquet``,
    which is how ``datasets`` uploads them."""
    hub_endpoint: str | None = execution_only(None)
    """Address of a hub or mirror other than the usual one."""
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
