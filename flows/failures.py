"""How a run that stopped says so: one sentence with the place and the command that continues.

Prefect shows a run's state message in a tab below the fold. The sentence is therefore also the end
of the run's name, which heads its page and stands in the list of runs, and the artifact
``failure``. A retry begins with a clean page.

No postponed annotations here: see ``flows.running``.
"""

from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow, State, get_client, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas import FlowRun
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.runtime import deployment, flow_run
from prefect.states import Crashed, Failed

from flows.shard_bars import MAX_TASK_RUNS
from pipeline.events import LOG, command_line

_LONGEST_NAME = 230
_SPLIT = " — "


def resume_command() -> str:
    """What continues this run: a retry, or this process's own command without a deployment."""
    return f"prefect flow-run retry {flow_run.id}" if deployment.id else command_line()


def compose(place: str, reason: str, command: str) -> str:
    """The sentence.

    Args:
        place: Step, and where it stopped, e.g. ``problems, at problems-00003``.
        reason: What went wrong, with its remedy.
        command: What continues the run; empty where nothing would.
    """
    sentence = f"{place}: {reason}" if place else reason
    return sentence + (f"{_SPLIT}continue: {command}" if command else "")


def fail(sentence: str, out: Path | None = None) -> State[Any]:
    """End the flow run as failed, with this sentence wherever a person looks first.

    Args:
        sentence: From :func:`compose`.
        out: The run folder, where there is one.
    """
    get_run_logger().error(sentence)
    show_failure(sentence, out, UUID(str(flow_run.id)), str(flow_run.name))
    return Failed(message=sentence)


def show_failure(sentence: str, out: Path | None, run_id: UUID, name: str) -> None:
    """Put a failure into the run's name and its artifact."""
    first, *others = sentence.split(_SPLIT)
    lines = [f"**{first}**", *(f"- {text[:1].upper()}{text[1:]}" for text in others)]
    if out is not None:
        lines.append(f"- What was finished is kept in `{out}` and is not done again.")
        lines.append(
            f"- The run's log: `{out / LOG}`; a view of it: `python -m flows.status {out}`"
        )
    create_markdown_artifact(
        key="failure", markdown="\n".join([lines[0], "", *lines[1:]]), description=sentence
    )
    with get_client(sync_client=True) as client:
        client.set_flow_run_name(run_id, name_failure(name, sentence))


def name_failure(name: str, sentence: str) -> str:
    """A failed run's name: its own, what stopped it, and the command, which is never cut."""
    first, *others = sentence.split(_SPLIT)
    command = f"{_SPLIT}{others[-1]}" if others and others[-1].startswith("continue: ") else ""
    room = _LONGEST_NAME - len(name) - len(command) - len(" stopped: ")
    short = first if len(first) <= room else first[: room - 1].rstrip() + "…"
    return f"{name} stopped: {short}{command}"


def tell_crash(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook for runs whose process ended without a word (killed, out of memory): name them so.

    Called by whoever started the process, which has no run of its own to post artifacts for.
    """
    reason = (state.message or "its process ended").split("\n")[0].rstrip(".")
    command = f"prefect flow-run retry {flow_run.id}" if flow_run.deployment_id else ""
    with get_client(sync_client=True) as client:
        client.set_flow_run_name(
            flow_run.id, name_failure(flow_run.name, compose("", reason, command))
        )


def clear_earlier_attempts() -> int:
    """Before a retry: remove artifacts of earlier attempts, and end tasks that a kill left running.

    Returns:
        Task runs of earlier attempts, of which the server shows a limited number.
    """
    run_id: Any = flow_run.id
    if run_id is None or (flow_run.run_count or 1) <= 1:
        return 0
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    with get_client(sync_client=True) as client:
        old = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
        )
        for artifact in old:
            client.delete_artifact(artifact.id)
        tasks = client.read_task_runs(flow_run_filter=of_run, limit=MAX_TASK_RUNS)
        for task in tasks:
            if task.state is None or not task.state.is_final():
                gone: State[Any] = Crashed(
                    message="its process was stopped; the retry took its work up"
                )
                client.set_task_run_state(task.id, gone, force=True)
    return len(tasks)
