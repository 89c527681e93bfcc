"""Flow ``synth-promptcot``: concept combinations to verified traces.

prefect deployment run synth-promptcot --watch
"""

from collections.abc import Sequence
from typing import Any, Literal

from prefect import State, flow

from flows.failures import tell_crash
from flows.forms import Count, Seed, SynthesisConfig
from flows.parameters import next_flow, run_label, run_request, this_request
from flows.steps import SYNTHESIS_STAGES
from pipeline.errors import ConfigError

EMPTY_FORM = SynthesisConfig()


def name_run() -> str:
    """E.g. ``demo-40x2``: combinations times solutions of each problem."""
    request = this_request()
    try:
        synthesis = request.load().settings.synthesis
    except ConfigError:
        # The run itself says what is wrong with the recipe.
        return run_label(request)
    rows = synthesis.combinations.num_combinations
    return run_label(request, f"{rows}x{synthesis.solutions.samples_per_problem}")


@flow(name="synth-promptcot", flow_run_name=name_run, persist_result=False, on_crashed=[tell_crash])
def synth_promptcot(
    recipe: str = "demo",
    out: str = "",
    domain: Literal["recipe", "math", "code"] = "recipe",
    rows: Count = 0,
    teacher: str = "",
    seed: Seed = -1,
    dry_run: bool = False,
    config: SynthesisConfig = EMPTY_FORM,
    overrides: Sequence[str] = (),
) -> State[Any]:
    """Synthesise problems with verified solutions.

    Args:
        recipe: Which experiment: demo, small, math, paper, or a path to a TOML file.
        out: Output folder; empty takes runs/RECIPE-NAME. Finished work in it is reused.
        domain: Only maths, only code, or the recipe's mix.
        rows: Concept combinations to start from; 0 takes the recipe's number.
        teacher: Who writes: a name among the recipe's [teachers]. Judges stay as they are.
        seed: Root of all randomness; -1 takes the recipe's.
        config: Further settings; what is empty stays as the recipe says.
        overrides: Any other recipe values, each as section.key=value. These win.
        dry_run: Only check and plan: nothing is asked, nothing is written.
    """
    request = this_request()
    after = next_flow(request, "build-curriculum", "phase=2")
    return run_request(request, SYNTHESIS_STAGES, next_command=after)
