"""Flow ``reproduce``: the whole loop, from concepts to the report."""

from collections.abc import Sequence
from typing import Any

from prefect import State, flow

from flows.running import run_label, run_steps
from flows.steps import WHOLE_LOOP_BY_STAGE


def name_run() -> str:
    """The recipe's name, e.g. ``demo``."""
    return run_label()


@flow(name="reproduce", flow_run_name=name_run, persist_result=False)
def reproduce(recipe: str = "demo", out: str = "", overrides: Sequence[str] = ()) -> State[Any]:
    """Synthesise, build both datasets, train, evaluate and report.

    Args:
        recipe: Name of a file in recipes/, or a path to a TOML file.
        out: Output folder; runs/RECIPE-NAME when empty.
        overrides: Recipe values to change, each as section.key=value.
    """
    return run_steps(
        WHOLE_LOOP_BY_STAGE,
        recipe,
        out=out,
        overrides=overrides,
        next_run="",
    )
