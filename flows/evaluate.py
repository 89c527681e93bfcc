"""Flow ``evaluate``: sample from a checkpoint on the recipe's benchmarks and grade the answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import State, flow
from prefect.runtime import flow_run

from flows.failures import tell_crash
from flows.forms import Count, EvaluationConfig, Seed
from flows.next_command import spell_report
from flows.parameters import run_label, run_request, this_request
from flows.steps import EVALUATION, evaluation_of

EMPTY_FORM = EvaluationConfig()


def name_run() -> str:
    """E.g. ``demo-evaluate``, or ``demo-evaluate-phase-2`` for one checkpoint."""
    checkpoint = Path(flow_run.parameters["checkpoint"]).name
    return run_label(this_request(), f"evaluate-{checkpoint}" if checkpoint else "evaluate")


@flow(name="evaluate", flow_run_name=name_run, persist_result=False, on_crashed=[tell_crash])
def evaluate(
    checkpoint: str = "",
    recipe: str = "demo",
    out: str = "",
    samples: Count = 0,
    seed: Seed = -1,
    dry_run: bool = False,
    config: EvaluationConfig = EMPTY_FORM,
    overrides: Sequence[str] = (),
) -> State[Any]:
    """Score checkpoints on the recipe's benchmarks.

    Args:
        checkpoint: phase-1, phase-2 or a model folder; all that the recipe names when empty.
        recipe: Which experiment: demo, small, math, paper, or a path to a TOML file.
        out: Output folder; empty takes runs/RECIPE-NAME. Finished work in it is reused.
        samples: Answers to each problem, k of avg@k; 0 takes the recipe's number.
        seed: Of sampling; -1 takes the recipe's.
        config: Further settings; what is empty stays as the recipe says.
        overrides: Any other recipe values, each as section.key=value. These win.
        dry_run: Only check and plan: nothing is asked, nothing is written.
    """
    step = evaluation_of(checkpoint) if checkpoint else EVALUATION
    request = this_request()
    after = spell_report("evaluation", request.recipe, request.out, request.overrides)
    return run_request(request, [step], next_command=after)
