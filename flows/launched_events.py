"""What processes that a run has launched tell: read from the run folder's log, as they share it.

A training under ``torchrun`` or a launcher of yours is no part of the process that asked for it,
whose listeners hear nothing of it. Its lines are in the same log (``pipeline.events``), a few of
the steps only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any

from flows.event_log import EventReader


class LaunchedEvents:
    """Follows the log from now on.

    Args:
        out: The run folder.
        stages: Whose events count. Only this run may work on them (``pipeline.claims``); other
            commands may do something else in the same folder.

    Raises:
        SourceError: The log cannot be read.
    """

    def __init__(self, out: Path, stages: Collection[str]) -> None:
        self._stages = frozenset(stages)
        self._reader = EventReader(out)
        # What former runs told is read over, not kept.
        deque(self._reader.read_new(), maxlen=0)

    def read_new(self, own: str | None) -> list[dict[str, Any]]:
        """New events about the stages by other processes.

        Args:
            own: Id of the run in this process, which has heard its own events already.

        Raises:
            SourceError: The log cannot be read.
        """
        return [
            event
            for event in self._reader.read_new()
            if event.get("stage") in self._stages and event.get("run") != own
        ]
