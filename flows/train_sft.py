"""Flow ``train-sft``: supervised fine-tuning of the student on one phase."""

from collections.abc import Sequence
from typing import Any, Literal

from prefect import State, flow

from flows.failures import tell_crash
from flows.forms import Seed, TrainingConfig
from flows.parameters import next_flow, run_label, run_request, this_request
from flows.steps import TRAINING

EMPTY_FORM = TrainingConfig()


def name_run() -> str:
    """E.g. ``demo-sft-1``."""
    request = this_request()
    return run_label(request, f"sft-{request.phase}")


@flow(name="train-sft", flow_run_name=name_run, persist_result=False, on_crashed=[tell_crash])
def train_sft(
    phase: Literal[1, 2] = 1,
    recipe: str = "demo",
    out: str = "",
    seed: Seed = -1,
    dry_run: bool = False,
    config: TrainingConfig = EMPTY_FORM,
    overrides: Sequence[str] = (),
) -> State[Any]:
    """Train the student; phase 2 starts from phase 1's checkpoint.

    Args:
        phase: Phase 1 or 2.
        recipe: Which experiment: demo, small, math, paper, or a path to a TOML file.
        out: Output folder; empty takes runs/RECIPE-NAME. Finished work in it is reused.
        seed: Of weights and order; -1 takes the recipe's.
        config: Further settings; what is empty stays as the recipe says.
        overrides: Any other recipe values, each as section.key=value. These win.
        dry_run: Only check and plan: nothing is asked, nothing is written.
    """
    request = this_request()
    after = next_flow(request, "evaluate", f"checkpoint=phase-{phase}")
    return run_request(request, [TRAINING[str(phase)]], next_command=after)
