"""How much of a run its event log keeps (``pipeline.events``)."""

from __future__ import annotations

from pipeline.settings.base import Settings, execution_only


class EventSettings(Settings):
    """The ``[events]`` of a recipe; none of it changes a result."""

    max_megabytes: float = execution_only(16.0, ge=0.01)
    """A log that would grow beyond this many MB (10^6 bytes) is put aside and a new one begun."""
    kept_files: int = execution_only(3, ge=1)
    """Logs put aside that are kept; the oldest is deleted."""
    interval_s: float = execution_only(2.0, ge=0)
    """Seconds between two lines about one stage's shards or one training's steps. In between, lines
    are summed up; long stages write more rarely, down to one line a minute. 0: a line for each."""
