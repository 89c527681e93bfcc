"""Flow ``build-curriculum``: sources to one phase's dataset version."""

from collections.abc import Sequence
from typing import Any, Literal

from prefect import State, flow
from prefect.runtime import flow_run

from flows.running import run_label, run_steps
from flows.steps import DATASETS


def name_run() -> str:
    """E.g. ``demo-data-1``."""
    return run_label(f"data-{flow_run.parameters['phase']}")


@flow(name="build-curriculum", flow_run_name=name_run, persist_result=False)
def build_curriculum(
    phase: Literal[1, 2] = 1,
    recipe: str = "demo",
    out: str = "",
    overrides: Sequence[str] = (),
) -> State[Any]:
    """Build one phase of the curriculum: Parquet, manifest and data card.

    Args:
        phase: Phase 1 or 2.
        recipe: Name of a file in recipes/, or a path to a TOML file.
        out: Output folder; runs/RECIPE-NAME when empty.
        overrides: Recipe values to change, each as section.key=value.
    """
    return run_steps(
        [DATASETS[str(phase)]],
        recipe,
        out=out,
        overrides=overrides,
        next_run=f"train-sft -p phase={phase}",
    )
