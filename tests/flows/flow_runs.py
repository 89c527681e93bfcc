"""Runs of flows in this process, and what the server knows of them afterwards."""

from __future__ import annotations

import time
from typing import Any

SETTLING_S = 30.0


def run_flow(flow: Any, **parameters: Any) -> Any:
    """Run a flow and return its final state."""
    return flow(**parameters, return_state=True)


def read_run(state: Any) -> tuple[Any, list[Any], dict[str, Any]]:
    """The flow run, its task runs and its artifacts by key, as the server knows them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterFlowRunId,
        FlowRunFilter,
        FlowRunFilterId,
    )

    run_id = state.state_details.flow_run_id
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        deadline = time.monotonic() + SETTLING_S
        while True:
            # Records of task runs arrive as events, shortly after the run's own end.
            tasks = client.read_task_runs(flow_run_filter=of_run)
            if all(task.state is not None and task.state.is_final() for task in tasks):
                break
            assert time.monotonic() < deadline, [(task.name, task.state_name) for task in tasks]
            time.sleep(0.05)
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
        )
    return run, tasks, {artifact.key: artifact for artifact in artifacts}
