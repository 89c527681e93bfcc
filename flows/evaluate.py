"""Flow ``evaluate``: sample from a checkpoint on the recipe's benchmarks and grade the answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import State, flow
from prefect.runtime import flow_run

from flows.running import run_label, run_steps
from flows.steps import EVALUATION, evaluation_of


def name_run() -> str:
    """E.g. ``demo-evaluate``, or ``demo-evaluate-phase-2`` for one checkpoint."""
    checkpoint = Path(flow_run.parameters["checkpoint"]).name
    return run_label(f"evaluate-{checkpoint}" if checkpoint else "evaluate")


@flow(name="evaluate", flow_run_name=name_run, persist_result=False)
def evaluate(
    checkpoint: str = "",
    recipe: str = "demo",
    out: str = "",
    overrides: Sequence[str] = (),
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
