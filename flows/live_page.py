"""What a run's page shows while the run is at work: bars of shards, and how far it is.

A listener to the run's events, which also reads what a launched training tells. The artifact
``progress`` is written anew now and then by a thread of its own, so that a slow server never holds
up the work, and one that is gone costs the page and not the run.

No postponed annotations here: see ``flows.running``.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import Context, copy_context
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import PrefectException

from flows.launched_events import LaunchedEvents
from flows.progress_view import describe_progress
from flows.run_state import RunState
from flows.shard_bars import ShardBars, name_shards, number_of
from flows.steps import Step
from pipeline.errors import SourceError

_PAUSE_S = 10.0
_SHARE = 0.005
"""Drawing the progress may take this share of one processor."""
_LAST_WORD_S = 15.0
"""How long the end of a run waits for a server that is slow to take the progress."""


class LivePage:
    """One run's page; a context manager, and a listener for ``pipeline.events.listening``.

    Args:
        steps: What the run does.
        num_before: Task runs of earlier attempts of the same flow run.
        out: The run folder.

    Raises:
        SourceError: The folder's log cannot be read.
    """

    def __init__(self, steps: Sequence[Step], num_before: int, out: Path) -> None:
        self.stopped_at = ""
        """Shard or step at which the step that ran last has failed."""
        self._titles = [step.title for step in steps]
        self._state = RunState()
        self._bars = ShardBars(len(steps), num_before)
        self._lock = threading.Lock()
        trainings = {key for step in steps for key in step.stages if key.startswith("training-")}
        self._launched = LaunchedEvents(out, trainings)
        self._following = threading.Lock()
        self._own_run: str | None = None
        self._step_context = Context()
        self._has_news, self._is_over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep_posting, name="run page", daemon=True)
        self._artifact: UUID | None = None
        self._trouble = ""

    def __enter__(self) -> "LivePage":
        line, page = self._describe()
        created: Any = create_markdown_artifact(key="progress", markdown=page, description=line)
        self._artifact = created
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join(_LAST_WORD_S)
        if self._trouble:
            get_run_logger().warning("the artifact progress is not up to date: %s", self._trouble)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take an event, from any thread."""
        self._own_run = event.get("run")
        if event["event"] == "step.started":
            # Bars are drawn below the task that is running here.
            self._step_context = copy_context()
        elif event["event"].startswith("step."):
            self._follow()
        self._take(event)

    def _follow(self) -> None:
        """Take what launched processes have told since."""
        with self._following:
            try:
                told = self._launched.read_new(self._own_run)
            except SourceError as exc:
                self._trouble = str(exc)
                return
            for event in told:
                self._step_context.run(self._take, event)

    def _take(self, event: Mapping[str, Any]) -> None:
        with self._lock:
            self._state.add(event)
            self._bars.hear(event)
            if event["event"] == "step.started":
                self.stopped_at = ""
            elif event["event"] in ("stage.failed", "stage.interrupted"):
                self.stopped_at = _name_place(event)
        self._has_news.set()

    def state(self) -> dict[str, Any]:
        """What has been heard so far, JSON-ready (``flows.run_state``)."""
        with self._lock:
            return self._state.as_json()

    def _describe(self) -> tuple[str, str]:
        return describe_progress(self.state(), self._titles)

    def _keep_posting(self) -> None:
        pause = _PAUSE_S
        try:
            with get_client(sync_client=True) as client:
                while not self._is_over.wait(pause):
                    self._follow()
                    if self._has_news.is_set():
                        pause = max(_PAUSE_S, self._post(client) / _SHARE)
                self._post(client)
        except (httpx.HTTPError, PrefectException) as exc:
            self._trouble = str(exc) or type(exc).__name__

    def _post(self, client: Any) -> float:
        """Write the progress; the processor time that it took."""
        start = time.thread_time()
        self._has_news.clear()
        line, page = self._describe()
        update = ArtifactUpdate(data=page, description=line)
        client.update_artifact(artifact_id=self._artifact, artifact=update)
        return time.thread_time() - start


def _name_place(event: Mapping[str, Any]) -> str:
    """Where a stage stopped, e.g. ``problems-00003, 2 of 12 shards finished``."""
    unit = "steps" if event.get("unit") == "steps" else "shards"
    place = event["stage"]
    if event.get("shard"):
        place = name_shards(place, [number_of(event)])
    total = event.get("total")
    return f"{place}, {event['done']:,} of {total:,} {unit} finished" if total else str(place)
