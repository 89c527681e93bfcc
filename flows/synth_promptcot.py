"""Flow ``synth-promptcot``: concept combinations to verified traces.

prefect deployment run synth-promptcot --watch
"""

from collections.abc import Sequence
from typing import Any

from prefect import State, flow
from prefect.runtime import flow_run

from flows.running import run_label, run_steps
from flows.steps import SYNTHESIS_STAGES
from pipeline.errors import ConfigError
from pipeline.settings.recipe import load_recipe


def name_run() -> str:
    """E.g. ``demo-40x2``: combinations times solutions of each problem."""
    parameters = flow_run.parameters
    try:
        settings = load_recipe(parameters["recipe"], parameters["overrides"]).settings
    except ConfigError:
        # The run itself says what is wrong with the recipe.
        return run_label()
    synthesis = settings.synthesis
    return run_label(
        f"{synthesis.combinations.num_combinations}x{synthesis.solutions.samples_per_problem}"
    )


@flow(name="synth-promptcot", flow_run_name=name_run, persist_result=False)
def synth_promptcot(
    recipe: str = "demo", out: str = "", overrides: Sequence[str] = ()
) -> State[Any]:
    """Synthesise problems with verified solutions.

    Args:
        recipe: Name of a file in recipes/, or a path to a TOML file.
        out: Output folder; runs/RECIPE-NAME when empty.
        overrides: Recipe values to change, each as section.key=value.
    """
    return run_steps(
        SYNTHESIS_STAGES,
        recipe,
        out=out,
        overrides=overrides,
        next_run="build-curriculum -p phase=2",
    )
