"""Flow ``train-sft``: supervised fine-tuning of the student on one phase."""

from collections.abc import Sequence
from typing import Any, Literal

from prefect import State, flow
from prefect.runtime import flow_run

from flows.running import run_label, run_steps
from flows.steps import TRAINING


def name_run() -> str:
    """E.g. ``demo-sft-1``."""
    return run_label(f"sft-{flow_run.parameters['phase']}")


@flow(name="train-sft", flow_run_name=name_run, persist_result=False)
def train_sft(
    phase: Literal[1, 2] = 1,
    recipe: str = "demo",
    out: str = "",
    overrides: Sequence[str] = (),
) -> State[Any]:
    """Train the student; phase 2 starts from phase 1's checkpoint.

    Args:
        phase: Phase 1 or 2.
        recipe: Name of a file in recipes/, or a path to a TOML file.
        out: Output folder; runs/RECIPE-NAME when empty.
        overrides: Recipe values to change, each as section.key=value.
    """
    return run_steps(
        [TRAINING[str(phase)]],
        recipe,
        out=out,
        overrides=overrides,
        next_run=f"evaluate -p checkpoint=phase-{phase}",
    )
