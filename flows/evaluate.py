"""Flow ``evaluate``: sample from a checkpoint on the recipe's benchmarks and grade the answers."""

from typing import Any

from prefect import State, flow
from prefect.runtime import flow_run

from flows.running import run_label, run_steps
from flows.steps import EVALUATION, evaluation_of


def name_run() -> str:
    """E.g. ``demo-evaluation``, or ``demo-phase-2`` for one checkpoint."""
    checkpoint = flow_run.parameters["checkpoint"]
    return run_label(str(checkpoint).rstrip("/").rpartition("/")[2] if checkpoint else "evaluation")


@flow(name="evaluate", flow_run_name=name_run, persist_result=False)
def evaluate(
    checkpoint: str | None = None,
    recipe: str = "demo",
    out: str | None = None,
    overrides: list[str] | None = None,
) -> State[Any]:
    """Score checkpoints on the recipe's benchmarks.

    Args:
        checkpoint: phase-1, phase-2 or a model folder; all that the recipe names when empty.
        recipe: Name of a file in recipes/, or a path to a TOML file.
        out: Output folder; runs/RECIPE-NAME when empty.
        overrides: Recipe values to change, each as section.key=value.
    """
    return run_steps(
        [evaluation_of(checkpoint) if checkpoint else EVALUATION],
        recipe,
        out=out,
        overrides=overrides,
        next_run="reproduce",
    )
