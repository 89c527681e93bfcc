"""Flow ``reproduce``: the whole loop, from concepts to the report."""

from collections.abc import Sequence
from typing import Any, Literal

from prefect import State, flow

from flows.failures import tell_crash
from flows.forms import Count, Seed, WholeLoopConfig
from flows.parameters import run_label, run_request, this_request
from flows.steps import WHOLE_LOOP_BY_STAGE

EMPTY_FORM = WholeLoopConfig()


def name_run() -> str:
    """The recipe's name and what was changed, e.g. ``demo`` or ``demo-math-8rows``."""
    request = this_request()
    return run_label(request, f"{request.knobs['rows']}rows" if "rows" in request.knobs else "")


@flow(name="reproduce", flow_run_name=name_run, persist_result=False, on_crashed=[tell_crash])
def reproduce(
    recipe: str = "demo",
    out: str = "",
    domain: Literal["recipe", "math", "code"] = "recipe",
    rows: Count = 0,
    teacher: str = "",
    seed: Seed = -1,
    dry_run: bool = False,
    config: WholeLoopConfig = EMPTY_FORM,
    overrides: Sequence[str] = (),
) -> State[Any]:
    """Synthesise, build both datasets, train, evaluate and report.

    Args:
        recipe: Which experiment: demo, small, math, paper, or a path to a TOML file.
        out: Output folder; empty takes runs/RECIPE-NAME. Finished work in it is reused.
        domain: Of synthesis: only maths, only code, or the recipe's mix.
        rows: Concept combinations to start from; 0 takes the recipe's number.
        teacher: Who writes: a name among the recipe's [teachers]. Judges stay as they are.
        seed: Of synthesis, order, training and sampling; -1 takes the recipe's.
        config: Further settings; what is empty stays as the recipe says.
        overrides: Any other recipe values, each as section.key=value. These win.
        dry_run: Only check and plan: nothing is asked, nothing is written.
    """
    return run_request(this_request(), WHOLE_LOOP_BY_STAGE, next_command="")
