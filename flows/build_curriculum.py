"""Flow ``build-curriculum``: sources to one phase's dataset version."""

from collections.abc import Sequence
from typing import Any, Literal

from prefect import State, flow

from flows.failures import tell_crash
from flows.forms import CurriculumConfig, Seed
from flows.parameters import next_flow, run_label, run_request, this_request
from flows.steps import DATASETS

EMPTY_FORM = CurriculumConfig()


def name_run() -> str:
    """E.g. ``demo-data-1``."""
    request = this_request()
    return run_label(request, f"data-{request.phase}")


@flow(
    name="build-curriculum", flow_run_name=name_run, persist_result=False, on_crashed=[tell_crash]
)
def build_curriculum(
    phase: Literal[1, 2] = 1,
    recipe: str = "demo",
    out: str = "",
    domain: Literal["recipe", "math", "code"] = "recipe",
    seed: Seed = -1,
    dry_run: bool = False,
    config: CurriculumConfig = EMPTY_FORM,
    overrides: Sequence[str] = (),
) -> State[Any]:
    """Build one phase of the curriculum: Parquet, manifest and data card.

    Args:
        phase: Phase 1 or 2.
        recipe: Which experiment: demo, small, math, paper, or a path to a TOML file.
        out: Output folder; empty takes runs/RECIPE-NAME. Finished work in it is reused.
        domain: Only rows of maths, only of code, or what the recipe takes.
        seed: Root of sampling and order; -1 takes the recipe's.
        config: Further settings; what is empty stays as the recipe says.
        overrides: Any other recipe values, each as section.key=value. These win.
        dry_run: Only check and plan: nothing is asked, nothing is written.
    """
    request = this_request()
    after = next_flow(request, "train-sft", f"phase={phase}")
    return run_request(request, [DATASETS[str(phase)]], next_command=after)
